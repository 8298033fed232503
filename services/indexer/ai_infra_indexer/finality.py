"""Steps 3 to 5, behind the transaction in Postgres: archive, checkpoint, publish. On a thread of its own.

Each step derives what to do from what is durable (the archived checkpoint, the lane's rows, the offset in Kafka), so a
process may die between any two writes. The order is the guarantee: tiles before the checkpoint that covers them, the
checkpoint before anything that it covers is said. Whatever is away is asked again at the next turn; a lane whose
archive says otherwise is given back to the loop, which takes it anew from what is durable.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.topics import PLAIN
from ai_infra.bus.transactions import AbortNeededError, TransactionalProducer
from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.objects.exceptions import Conflict
from ai_infra.telemetry import metrics
from ai_infra.tlog.checkpoint import OpenedCheckpoint
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra_indexer import SERVICE
from ai_infra_indexer.archive import LaneArchive
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import LaneLost
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.publish import MAX_MESSAGES, Position, Publication, Publisher
from ai_infra_indexer.refusals import forget_said
from ai_infra_indexer.store import POSTGRES_AWAY, Connection, keyring_version, record_versions

log = structlog.get_logger(__name__)

CHUNK: Final = 4_096  # entries read, archived and covered by one checkpoint while catching up
GIVE_UP_SECONDS: Final = 15.0  # how long a rebalance waits for the step that is under way
PAUSE_SECONDS: Final = 0.03  # between two lanes, of which each turn makes all final
SLOW_SECONDS: Final = 20.0  # for one step; a server that hangs is noticed by its client after two minutes only


@dataclass(slots=True)
class FinalLane:
    """One lane behind Postgres: the archive's right edge, the newest checkpoint, the published position."""

    number: int
    archive: LaneArchive
    edge: RightEdge
    edge_hash: str
    """Chain hash of the last archived entry; empty where nothing is."""
    checkpoint: OpenedCheckpoint | None
    position: Position
    handover: Handover
    group_metadata: Any = None
    """Of the consumer while it held the lane: fences a publisher that has lost it."""
    lost: AiInfraError | None = None
    announced: int = -1
    noted: tuple[OpenedCheckpoint | None, Position | None] = (None, None)
    """The checkpoint and the position that Postgres shows."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def archive_more(self, connection: Connection) -> bool:
        """Archive and cover the next chunk; False where there was nothing new."""
        found = self._next(connection)
        if found is None:
            return False
        follows, entries, last_hash = found
        if not follows:
            raise LaneLost(
                f"lane {self.number}: what Postgres has after position {self.edge.size} does not follow what is "
                "archived; the database was replaced"
            )
        with metrics.INDEXER_STAGE.labels("archive").time():
            growth = grow(self.edge, entries)
            audit = self.archive.audit(keyring_version(connection, self.number, growth.edge.size))
            self.archive.put_tiles(growth.writes)
            self._record_versions(connection)
        with metrics.INDEXER_STAGE.labels("checkpoint").time():
            signed = self.archive.sign(growth.edge, audit)
            self.archive.put_checkpoint(signed)
            self.checkpoint, self.edge, self.edge_hash = signed, growth.edge, last_hash
            self.archive.keep(signed)
            self._record_versions(connection)
        for stage in ("archived", "final"):
            metrics.INDEXER_POSITION.labels(str(self.number), stage).set(self.edge.size)
        return len(entries) == CHUNK

    def _record_versions(self, connection: Connection) -> None:
        """Remembers what the archive keeps for good, of earlier turns too that could not."""
        record_versions(connection, self.number, self.archive.written)
        self.archive.written.clear()

    def _next(self, connection: Connection) -> tuple[bool, list[bytes], str] | None:
        """Whether the next entries follow what is archived, their bytes, and the chain hash of the last one."""
        if handed := self.handover.take(self.edge.size, CHUNK):
            return handed[0].prev_hash == self.edge_hash, [entry.raw for entry in handed], handed[-1].hash
        rows = connection.execute(
            "SELECT position, entry FROM entries WHERE lane = %s AND position >= %s ORDER BY position LIMIT %s",
            (self.number, self.edge.size, CHUNK),
        ).fetchall()
        if not rows:
            return None
        entries = [bytes(entry) for _, entry in rows]
        prev_hash = decode(entries[0]).link.prev_hash or ""
        follows = rows[0][0] == self.edge.size and prev_hash == self.edge_hash
        return follows, entries, decode(entries[-1]).link.hash


def note(connection: Connection, lanes: Iterable[FinalLane]) -> None:
    """Shows readers of Postgres how far these lanes are, in one transaction. These are copies, what counts is in the
    archive and in Kafka; what fails is made up for with the next note, also where nothing moves any more."""
    behind = [(lane, (lane.checkpoint, lane.position)) for lane in lanes]
    behind = [(lane, found) for lane, found in behind if found != lane.noted]
    if not behind:
        return
    with connection.transaction():
        for lane, (checkpoint, position) in behind:
            if checkpoint is not None:
                note_checkpoint(connection, lane.number, checkpoint)
            connection.execute(
                "UPDATE lane_progress SET published_size = %s WHERE lane = %s AND published_size < %s",
                (position.size, lane.number, position.size),
            )
            forget_said(connection, lane.number, position.inputs)
    for lane, found in behind:
        lane.noted = found


def note_checkpoint(connection: Connection, lane: int, opened: OpenedCheckpoint) -> None:
    """A copy for readers; the archive is what counts."""
    head = opened.checkpoint
    connection.execute(
        "UPDATE lane_progress SET checkpoint_size = %s, checkpoint_root = %s, checkpoint_note = %s, "
        "checkpoint_at = now() WHERE lane = %s AND checkpoint_size <= %s",
        (head.size, head.text.decode().splitlines()[2], opened.note.decode(), lane, head.size),
    )


class Finality:
    """Works all lanes of this process at the checkpoint interval. `add` and `remove` are for the loop's thread."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        publisher: Publisher,
        make_producer: Callable[[], TransactionalProducer],
        *,
        interval_s: float,
        write_heads: Callable[[Connection], object] = lambda _: None,
    ) -> None:
        """`write_heads`: called by whoever holds lane 0, after its checkpoints."""
        self._connect = connect
        self._publisher = publisher
        self._make_producer = make_producer
        self._interval_s = interval_s
        self._write_heads = write_heads
        self._lanes: dict[int, FinalLane] = {}
        self._leaving: dict[int, FinalLane] = {}
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="finality", daemon=True)
        self._connection: Connection | None = None
        self._producer: TransactionalProducer | None = None
        self._problem: str | None = None
        self._step_began: float | None = None
        self.failed: BaseException | None = None
        """What only a restart can mend."""

    @property
    def problem(self) -> str | None:
        """Why nothing becomes final now; None when all is well."""
        began = self._step_began
        if began is not None and (waiting := time.monotonic() - began) > SLOW_SECONDS:
            return (
                f"entries do not become final: a step takes {waiting:.0f} s so far; do the object store, Postgres and "
                "Kafka answer? (`ai-infra status`)"
            )
        return self._problem

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout: float) -> None:
        """One last turn, so that what was sequenced is final, then end."""
        self._stop.set()
        self._wake.set()
        self._thread.join(timeout)

    def add(self, lane: FinalLane) -> None:
        with self._guard:
            self._lanes[lane.number] = lane

    def remove(self, *numbers: int) -> None:
        """The lanes are not worked any more when this returns, or after a bound. From then on the group fences them; as
        long as the group still gives one to this process, `leaving` says that it must not be taken anew yet."""
        with self._guard:
            lanes = [self._lanes.pop(number) for number in numbers if number in self._lanes]
            self._leaving.update({lane.number: lane for lane in lanes})
        for lane in lanes:
            lane.lost = lane.lost or LaneLost(f"lane {lane.number} was given up")
        deadline = time.monotonic() + GIVE_UP_SECONDS
        for lane in lanes:
            if lane.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                lane.lock.release()

    def leaving(self, number: int) -> bool:
        """Whether a step of this lane is still under way that began before the lane was removed: where publishing goes
        on isn't known before that step is over."""
        with self._guard:
            lane = self._leaving.get(number)
            if lane is not None and not lane.lock.locked():
                del self._leaving[number]
                return False
            return lane is not None

    def lost(self) -> dict[int, AiInfraError]:
        """Lanes that must be taken anew, and why."""
        with self._guard:
            return {n: lane.lost for n, lane in self._lanes.items() if lane.lost is not None}

    def refresh(self, numbers: list[int], group_metadata: Any) -> None:
        """The group's metadata as of now, for lanes that the loop holds now."""
        with self._guard:
            for number in numbers:
                if number in self._lanes:
                    self._lanes[number].group_metadata = group_metadata

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            ending = self._stop.is_set()
            began = time.monotonic()
            try:
                self._turn()
                self._problem = None
            except (UnavailableError, *POSTGRES_AWAY) as error:
                self._problem = f"entries do not become final: {error}"
                log.warning("finality waits", why=str(error))
                self._forget_connection()
            except BaseException as error:  # noqa: BLE001 - the loop's thread raises it
                self.failed = error
                return
            finally:
                self._step_began = None
            if ending:
                break
            self._wake.wait(max(0.0, self._interval_s - (time.monotonic() - began)))
        if self._producer is not None:
            self._producer.close()
        self._forget_connection()

    def _turn(self) -> None:
        with self._guard:
            lanes = list(self._lanes.values())
        try:
            for lane in lanes:
                with lane.lock:
                    self._make_final(lane)
                # Puts and signatures take the interpreter from the loop: a little at a time holds no event up for long.
                self._wake.wait(min(PAUSE_SECONDS, self._interval_s / (4 * len(lanes))))
        finally:  # an archive that is away is what this metric is for
            for lane in lanes:
                self._show_age(lane)
        note(self._open(), lanes)
        while self._publish(lanes):
            pass
        if any(lane.number == 0 and lane.lost is None for lane in lanes):
            self._step_began = time.monotonic()
            self._write_heads(self._open())

    def _make_final(self, lane: FinalLane) -> None:
        try:
            while lane.lost is None:
                self._step_began = time.monotonic()
                if not lane.archive_more(self._open()) or self._stop.is_set():
                    return
                note(self._open(), [lane])
        except (LaneLost, Conflict) as error:
            lane.lost = error
            log.warning("lane lost", lane=lane.number, code=error.code, why=str(error))
        except UnavailableError:
            raise
        except AiInfraError as error:
            lane.lost = error
            log.error("lane stopped", lane=lane.number, code=error.code, why=str(error))

    def _show_age(self, lane: FinalLane) -> None:
        """How old the oldest entry is that no checkpoint covers."""
        row = self._open().execute(
            "SELECT extract(epoch FROM now() - append_time)::float8 FROM entries WHERE lane = %s AND position = %s",
            (lane.number, lane.edge.size),
        )
        found = row.fetchone()
        metrics.INDEXER_UNCOVERED.labels(str(lane.number)).set(max(0.0, found[0]) if found is not None else 0.0)

    def _publish(self, lanes: list[FinalLane]) -> bool:
        """The next messages of all lanes in one transaction; False where nothing is left to say, or nothing can be.

        A lane is locked from before its position is read until it has moved: who removes it waits for that. The group's
        metadata is of a moment at which all of them were held; newer one would let a lane through that has moved since.
        """
        self._step_began = time.monotonic()
        with ExitStack() as locked:
            for lane in lanes:
                locked.enter_context(lane.lock)
            with self._guard:
                held = [lane for lane in lanes if self._lanes.get(lane.number) is lane]
            metadata = held[0].group_metadata if held else None
            made = [(lane, self._publication(lane)) for lane in held]
            said = [(lane, publication) for lane, publication in made if publication is not None]
            return bool(said) and self._transact(said, metadata)

    def _publication(self, lane: FinalLane) -> Publication | None:
        if lane.checkpoint is None or lane.lost is not None:
            return None
        size = lane.checkpoint.checkpoint.size
        announce = lane.announced < size
        news, connection = lane.position.size < size or announce, self._open()
        if not news and not self._publisher.has_more(connection, lane.position, lane.number):
            return None
        handed = lane.handover.take(lane.position.size, min(MAX_MESSAGES, max(0, size - lane.position.size)))
        made = self._publisher.publication(
            connection, lane.position, lane.checkpoint, lane.number, handed=handed, announce=announce
        )
        return made if news or made.messages else None

    def _transact(self, said: list[tuple[FinalLane, Publication]], group_metadata: Any) -> bool:
        if self._producer is None:
            self._producer = self._make_producer()
        messages: list[Outgoing] = [message for _, publication in said for message in publication.messages]
        offsets = [offset for _, publication in said for offset in publication.offsets()]
        try:
            with metrics.INDEXER_STAGE.labels("publish").time():
                self._producer.transact(messages, offsets, group_metadata)
        except AbortNeededError as error:
            # The group has moved on: the loop brings newer metadata where the lane is still held.
            metrics.BUS_ABORTS.labels(SERVICE, error.code).inc()
            log.info("publication put off", code=error.code, why=str(error))
            return False
        # All of it is said: every lane's position moves before anything else can fail, or it would be said again.
        for lane, publication in said:
            for message in publication.messages:
                if message.topic != PLAIN:
                    metrics.BUS_SAID.labels(SERVICE, message.topic).inc()
            lane.position = publication.after
            lane.handover.forget(publication.after.size)
            size = lane.checkpoint.checkpoint.size if lane.checkpoint is not None else 0
            if publication.after.size == size:
                lane.announced = size
            metrics.INDEXER_POSITION.labels(str(lane.number), "published").set(publication.after.size)
        note(self._open(), [lane for lane, _ in said])
        return True

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
