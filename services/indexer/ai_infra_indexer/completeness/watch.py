"""The numbers of a lane's producers, kept up to date beside the indexer: what is missing for certain is said.

It looks at what is in Postgres, so it holds up nothing. A gap counts once the lane's topics
have been read to where they ended after the gap was seen: what was committed before the later number is below that. In
memory it keeps ranges of numbers, which are few however long the log is. It only reports; nothing is refused for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.topics import input_partitions
from ai_infra.bus.kafka.unread import first_unread
from ai_infra.events.generated import AuditFinding, FindingKind
from ai_infra.events.identifiers import consequence_id
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra_indexer import SERVICE
from ai_infra_indexer.completeness.numbers import Numbers
from ai_infra_indexer.completeness.reading import said_in
from ai_infra_indexer.order import Source
from ai_infra_indexer.store import Connection, read_offsets, read_positions

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 10.0  # a service names its last number within ten minutes; a look is a few small questions
_CHUNK: Final = 10_000
_SAID_AGAIN: Final = 30  # looks after which a finding that is still not in the log is offered again
_Counter = tuple[str, int]

_RANGES: Final = """
SELECT producer, epoch, min(seq), max(seq) FROM (
    SELECT producer, epoch, seq, seq - row_number() OVER (PARTITION BY producer, epoch ORDER BY seq) AS island
    FROM producer_events WHERE lane = %s AND position < %s) numbered
GROUP BY producer, epoch, island
"""
_NEWS: Final = """
SELECT position, producer, epoch, seq FROM entries
WHERE lane = %s AND position >= %s AND producer IS NOT NULL ORDER BY position LIMIT %s
"""
_REFUSED: Final = """
SELECT EXISTS (SELECT FROM refused_events WHERE lane = %(lane)s AND service = %(service)s AND event_hash = %(hash)s)
    OR EXISTS (SELECT FROM unsaid_refusals WHERE lane = %(lane)s AND event_hash = %(hash)s)
"""


@dataclass(frozen=True, slots=True)
class Missing:
    """Numbers that are missing in a lane."""

    lane: int
    producer: str
    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Withheld:
    """Missing for certain, and the event that shows it."""

    missing: Missing
    position: int
    event_id: str

    @property
    def id(self) -> str:
        """Id of the finding: the same whoever finds it, and however often."""
        m = self.missing
        return consequence_id(self.event_id, f"finding/{m.lane}/withheld/{m.producer}/{m.epoch}/{m.first}-{m.last}")

    def body(self) -> AuditFinding:
        m = self.missing
        what = f"number {m.first}" if m.first == m.last else f"numbers {m.first} to {m.last}"
        return AuditFinding(
            kind=FindingKind.WITHHELD,
            lane_of=m.lane,
            producer=m.producer,
            epoch=m.epoch,
            first_seq=m.first,
            last_seq=m.last,
            position=self.position,
            event_id=self.event_id,
            detail=f"{what} of {m.producer} epoch {m.epoch} never came, though the lane's topics were read past it",
        )


@dataclass(slots=True)
class _Lane:
    """What is known of a lane."""

    next_position: int
    counters: dict[_Counter, Numbers] = field(default_factory=dict)
    named_by: dict[_Counter, int] = field(default_factory=dict)
    barriers: dict[Missing, Mapping[Source, int]] = field(default_factory=dict)
    """Where the lane's inputs ended when the gap had been seen."""
    offered: dict[str, int] = field(default_factory=dict)
    """Looks since a finding was offered to be said."""

    def missing(self, lane: int) -> list[Missing]:
        return [
            Missing(lane, producer, epoch, first, last)
            for (producer, epoch), numbers in sorted(self.counters.items())
            for first, last in numbers.gaps()
        ]


class CompletenessWatch:
    """Watches lanes. `unsaid` and `take` are for whoever publishes; `look` is for one thread."""

    def __init__(self, settings: Settings, connect: Callable[[], Connection]) -> None:
        self._settings = settings
        self._connect = connect
        self._admin = KafkaAdmin(settings)
        self._lanes: dict[int, _Lane] = {}
        self._unsaid: dict[int, dict[str, Withheld]] = {}
        self._guard = threading.Lock()

    def unsaid(self, lane: int) -> bool:
        """Whether there is a finding to say."""
        with self._guard:
            return bool(self._unsaid.get(lane))

    def take(self, lane: int) -> list[Withheld]:
        """The findings to say. What does not get into the log is offered again."""
        with self._guard:
            return list(self._unsaid.pop(lane, {}).values())

    def look(self, lanes: Iterable[int]) -> list[Withheld]:
        """Look now; returns all that is withheld. Raises UnavailableError, and what Postgres raises."""
        held = sorted(lanes)
        for lane in self._lanes.keys() - set(held):
            del self._lanes[lane]  # another replica watches it now, and shows it in its metric
            with suppress(KeyError):
                metrics.INDEXER_WITHHELD.remove(str(lane))
            with self._guard:
                self._unsaid.pop(lane, None)
        found: list[Withheld] = []
        with self._connect() as connection:
            for lane in held:
                found += self._look(connection, lane)
        return found

    def _look(self, connection: Connection, lane: int) -> list[Withheld]:
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            known = self._read(connection, lane)
            offsets = read_offsets(connection, lane)
        missing = known.missing(lane)
        known.barriers = {gap: barrier for gap, barrier in known.barriers.items() if gap in missing}
        certain = [gap for gap in missing if gap in known.barriers and self._passed(known.barriers[gap], offsets)]
        fresh = [gap for gap in missing if gap not in known.barriers]
        if fresh:
            ends = self._admin.ends(input_partitions(SERVICE, self._settings.log.lanes, lane))
            known.barriers.update(dict.fromkeys(fresh, ends))
        withheld = [w for gap in certain if (w := self._withheld(connection, gap, known)) is not None]
        metrics.INDEXER_WITHHELD.labels(str(lane)).set(sum(w.missing.last - w.missing.first + 1 for w in withheld))
        self._offer(connection, lane, known, withheld)
        return withheld

    def _read(self, connection: Connection, lane: int) -> _Lane:
        """What is in the lane as of now."""
        row = connection.execute(
            "SELECT size, pruned_size FROM lanes JOIN lane_progress USING (lane) WHERE lane = %s", (lane,)
        ).fetchone()
        size, pruned = row if row is not None else (0, 0)
        known = self._lanes.get(lane)
        # The database was replaced by an older one, or what is news here has left it already.
        if known is None or not pruned <= known.next_position <= size:
            known = self._lanes[lane] = _from_history(connection, lane, size)
        while known.next_position < size:
            rows = connection.execute(_NEWS, (lane, known.next_position, _CHUNK)).fetchall()
            for _, producer, epoch, seq in rows:
                known.counters.setdefault((producer, epoch), Numbers()).add(seq)
            known.next_position = rows[-1][0] + 1 if len(rows) == _CHUNK else size
        named = connection.execute("SELECT producer, epoch, seq, position FROM heartbeats WHERE lane = %s", (lane,))
        for producer, epoch, seq, position in named:
            known.counters.setdefault((producer, epoch), Numbers()).name(seq)
            known.named_by[producer, epoch] = position
        return known

    def _passed(self, barrier: Mapping[Source, int], offsets: Mapping[Source, int]) -> bool:
        """Whether everything before the barrier was read. Offsets alone can't say it: markers take some too."""
        behind = {source: offsets.get(source, 0) for source, end in barrier.items() if offsets.get(source, 0) < end}
        if not behind:
            return True
        committed = self._admin.committed_ends(behind)
        if any(committed[source] < barrier[source] for source in behind):
            return False  # a transaction is open there: what it holds back can't have been read
        unread = first_unread(self._settings, self._admin, behind, f"{SERVICE}.completeness")
        return all(source not in unread or unread[source].offset >= barrier[source] for source in behind)

    def _withheld(self, connection: Connection, gap: Missing, known: _Lane) -> Withheld | None:
        """The event that shows a gap; None where the log says that it has refused what is missing."""
        row: Any = connection.execute(
            "SELECT position FROM producer_events WHERE lane = %s AND producer = %s AND epoch = %s AND seq = %s",
            (gap.lane, gap.producer, gap.epoch, gap.last + 1),
        ).fetchone()
        position = row[0] if row is not None else known.named_by.get((gap.producer, gap.epoch))
        if position is None:
            return None  # named by a heartbeat that is pruned
        shows: Any = connection.execute(
            "SELECT event_id::text, entry FROM entries WHERE lane = %s AND position = %s", (gap.lane, position)
        ).fetchone()
        if shows is None:
            return None  # pruned since: it was said when it was new
        if row is not None and gap.first == gap.last:
            prev = said_in(bytes(shows[1]), self._settings.log.lanes).prev
            wanted = {"lane": gap.lane, "service": SERVICE, "hash": prev}
            [refused] = connection.execute(_REFUSED, wanted).fetchone() or (False,)
            if refused:
                return None
        return Withheld(gap, position, shows[0])

    def _offer(self, connection: Connection, lane: int, known: _Lane, withheld: list[Withheld]) -> None:
        logged = read_positions(connection, lane, [w.id for w in withheld])
        known.offered = {w.id: known.offered.get(w.id, _SAID_AGAIN) + 1 for w in withheld}
        for item in withheld:
            if item.id not in logged and known.offered[item.id] > _SAID_AGAIN:
                known.offered[item.id] = 0
                metrics.INDEXER_FINDINGS.labels("withheld").inc()
                log.error("withheld", lane=lane, what=item.body().detail, position=item.position)
                with self._guard:
                    self._unsaid.setdefault(lane, {})[item.id] = item


def _from_history(connection: Connection, lane: int, size: int) -> _Lane:
    """A lane up to here, by what is never pruned."""
    ranges: dict[_Counter, list[tuple[int, int]]] = {}
    for producer, epoch, first, last in connection.execute(_RANGES, (lane, size)):
        ranges.setdefault((producer, epoch), []).append((first, last))
    return _Lane(size, {counter: Numbers(found) for counter, found in ranges.items()})
