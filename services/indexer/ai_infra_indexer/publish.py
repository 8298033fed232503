"""Step 5: what is final is said on `audit-events`, exactly once.

The messages and the position that they reach are one Kafka transaction: the position is the committed offset of the
indexer's group on the lane's partition of `audit-events` itself, and its metadata holds the count of what the indexer
says as a service. So after any crash the next publisher reads one position, which has moved with the messages or not
at all; the copy in Postgres (`lane_progress.published_size`) is for people, and for a Kafka that has lost its offsets.
The group's metadata, taken while the lane was held, fences a publisher that has lost the lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from confluent_kafka import OFFSET_INVALID, Consumer, TopicPartition

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.topics import BROADCAST_TOPICS, PLAIN
from ai_infra.events.compose import Frame, compose, consequence_id, uuid7
from ai_infra.events.event import Cause
from ai_infra.events.generated import AuditCheckpoint, AuditFinding, FindingKind
from ai_infra.events.lanes import lane_key
from ai_infra.tlog.checkpoint import OpenedCheckpoint
from ai_infra.trust.session import Session
from ai_infra_indexer import kernel
from ai_infra_indexer.entry import Link
from ai_infra_indexer.order import Source
from ai_infra_indexer.store import Connection, read_offsets

MAX_MESSAGES: Final = 5_000  # in one transaction: it must end well within its time-out
_SERVICE: Final = "indexer"
_SOURCE: Final = "/ai-infra/indexer"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a lane is published, and how far the indexer's own numbering in it has come."""

    size: int
    epoch: int = 1
    seq: int = 0
    prev: str | None = None

    def metadata(self) -> str:
        return orjson.dumps({"epoch": self.epoch, "prev": self.prev, "seq": self.seq}).decode()


@dataclass(frozen=True, slots=True)
class Publication:
    """The messages that take a lane from one position to the next."""

    lane: int
    after: Position
    messages: tuple[Outgoing, ...]
    inputs: Mapping[Source, int]
    """Where the indexer goes on reading, as Postgres has it: a copy for those who ask Kafka how far it is."""

    def offsets(self) -> list[TopicPartition]:
        """What commits the new position with the messages."""
        inputs = [TopicPartition(topic, partition, at) for (topic, partition), at in self.inputs.items()]
        return [TopicPartition(PLAIN, self.lane, self.after.size, self.after.metadata()), *inputs]


def read_position(consumer: Consumer, connection: Connection, lane: int, *, timeout: float) -> Position:
    """Where publishing goes on. Waits for a transaction of a predecessor that is still pending."""
    [found] = consumer.committed([TopicPartition(PLAIN, lane)], timeout=timeout)
    if found.offset != OFFSET_INVALID and found.metadata:
        kept = orjson.loads(found.metadata)
        return Position(found.offset, kept["epoch"], kept["seq"], kept["prev"])
    row = connection.execute("SELECT published_size FROM lane_progress WHERE lane = %s", (lane,)).fetchone()
    size = max(row[0] if row else 0, found.offset if found.offset != OFFSET_INVALID else 0)
    if size == 0:
        return Position(0)
    # Kafka has lost the group's offsets: the numbering begins a new epoch rather than doubling an old number.
    row = connection.execute(
        "SELECT max(epoch) FROM producer_events WHERE lane = %s AND producer = %s", (lane, f"{_SERVICE}/{lane}")
    ).fetchone()
    return Position(size, (row[0] if row and row[0] else 0) + 1)


class Publisher:
    """Composes publications. Pure but for the rows that it reads and the session key that it signs with."""

    def __init__(self, session: Session, log_origin: str, frame: Frame | None = None) -> None:
        self._session = session
        self._frame = frame
        self._origin = log_origin

    def publication(
        self, connection: Connection, position: Position, checkpoint: OpenedCheckpoint, lane: int, *, announce: bool
    ) -> Publication:
        """The next messages of a lane, none beyond its checkpoint. `announce`: the checkpoint itself too."""
        rows = connection.execute(
            "SELECT position, event_type, id, payload::text, prev_hash, hash, signature, signer_id, "
            "(extract(epoch FROM ts) * 1000000)::int8, metadata::text FROM audit_events "
            "WHERE lane = %s AND position >= %s AND position < %s ORDER BY position LIMIT %s",
            (lane, position.size, checkpoint.checkpoint.size, MAX_MESSAGES),
        ).fetchall()
        messages = [self._audit_event(lane, row) for row in rows]
        after = replace(position, size=position.size + len(rows))
        for finding in self._findings(connection, lane, position.size, after.size):
            after, said = self._say_finding(lane, after, finding)
            messages.append(said)
        if announce and after.size == checkpoint.checkpoint.size:
            messages.append(self._checkpoint(lane, checkpoint))
        offsets = read_offsets(connection, lane)
        # Broadcast topics are entered into every lane; no lane may speak for the group's position there.
        inputs = {source: at for source, at in offsets.items() if source[0] not in BROADCAST_TOPICS}
        return Publication(lane, after, tuple(messages), inputs)

    @staticmethod
    def _audit_event(lane: int, row: Sequence[Any]) -> Outgoing:
        _, event_type, event_id, payload, prev_hash, hash_, signature, signer_id, ts_us, metadata = row
        link = Link(event_id, ts_us, prev_hash, hash_, signature, signer_id)
        value = kernel.audit_event(payload.encode(), link, event_type=event_type, metadata=metadata.encode())
        headers = [("content-type", b"application/json")]
        return Outgoing(PLAIN, lane, event_id.encode(), value, headers)

    @staticmethod
    def _findings(connection: Connection, lane: int, low: int, high: int) -> list[tuple[Any, ...]]:
        return connection.execute(
            "SELECT position, kind, about, event_id::text, producer, epoch, seq, detail FROM findings "
            "WHERE lane = %s AND position >= %s AND position < %s ORDER BY position, kind, about",
            (lane, low, high),
        ).fetchall()

    def _say_finding(self, lane: int, position: Position, row: tuple[Any, ...]) -> tuple[Position, Outgoing]:
        """A finding as an event of its own, which will be entered into the log in its turn."""
        at, kind, about, event_id, producer, epoch, seq, detail = row
        body = AuditFinding(
            kind=FindingKind(kind),
            lane_of=lane,
            producer=producer,
            epoch=epoch,
            first_seq=seq,
            last_seq=seq,
            position=at,
            event_id=event_id,
            detail=detail,
        )
        after = replace(position, seq=position.seq + 1)
        signed = compose(
            body,
            key=lane_key(lane),
            lane=lane,
            id=consequence_id(event_id, f"finding/{lane}/{at}/{kind}/{about}"),
            time=_now(),
            source=_SOURCE,
            subject=None,
            signer=self._session.signer_id,
            keyring=self._session.keyring,
            delegation=self._session.delegation,
            sign=self._session.sign,
            producer=f"{_SERVICE}/{lane}",
            epoch=after.epoch,
            seq=after.seq,
            prev=position.prev,
            causes=(Cause(event_id, lane),),
            frame=self._frame,
        )
        outgoing = Outgoing(signed.topic, signed.partition, signed.key, signed.value, signed.headers)
        return replace(after, prev=signed.hash), outgoing

    def _checkpoint(self, lane: int, checkpoint: OpenedCheckpoint) -> Outgoing:
        head = checkpoint.checkpoint
        root = checkpoint.checkpoint.text.decode().splitlines()[2]
        note = checkpoint.note.decode()
        body = AuditCheckpoint(log_lane=lane, origin=head.origin, size=head.size, root=root, note=note)
        signed = compose(
            body,
            key=lane_key(lane),
            lane=lane,
            id=uuid7(),
            time=_now(),
            source=_SOURCE,
            subject=head.origin,
            signer=self._session.signer_id,
            keyring=self._session.keyring,
            delegation=self._session.delegation,
            sign=self._session.sign,
            frame=self._frame,
        )
        return Outgoing(signed.topic, signed.partition, signed.key, signed.value, signed.headers)


def _now() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
