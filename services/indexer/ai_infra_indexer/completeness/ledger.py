"""From a lane's entries to what is withheld, equivocal or sequenced twice. Pure: the same entries, the same report.

A counted producer numbers what it says from 1 on in each epoch, and names with each event the hash of the one before. A
number below a later one, or below a heartbeat's, that is not in the lane is missing. It is withheld once the lane has
been read past it: a log alone can't show how far topics have been read, so there a gap counts as settled when the log,
in any of its lanes, has gone on for long enough in the broker's time; before that it is open, since its event may still
be on its way.

Two events under one number are equivocation; so is an event whose `prev` is not the hash of the one before it in the
log: its producer has signed another one under that number. A number whose event the log has refused is not withheld:
the refusal names the hash that the next event's `prev` has.

An event without a number is known by its id, which its sender gives to nothing else: one id at two positions is an
event that was sequenced twice. The indexer refuses the second, so only who writes past it brings that about.

Memory: 16 bytes of each numbered event's hash, in pages of 256 numbers; the id of each one without a number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ai_infra_indexer.completeness.numbers import Numbers

HEARTBEAT: Final = "producer.heartbeat"
_PAGE: Final = 256
_HASH: Final = 16  # bytes that are kept of a hash: to make two events share them takes 2^64 tries
_Producer = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Said:
    """What an entry says about who said it. `producer`, `epoch`, `seq`: None where its sender does not count."""

    position: int
    type: str
    event_id: str
    signer: str
    event_hash: str
    append_ms: int
    producer: str | None = None
    epoch: int | None = None
    seq: int | None = None
    prev: str | None = None
    beat: tuple[int, int, str] | None = None
    """Of a heartbeat: the epoch and number that it names, and the hash of that event."""
    refused: str | None = None
    """Of a refusal by the log itself: event_hash of what was refused."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Numbers that are missing. `shown_by`: position of the entry that shows it."""

    producer: str
    epoch: int
    first: int
    last: int
    shown_by: int
    settled: bool
    """Whether the log has gone on for long enough behind it: then it is withheld, not late."""
    refused: bool
    """The last of the numbers is of an event that the log has refused, and says so."""

    @property
    def count(self) -> int:
        return self.last - self.first + 1

    @property
    def withheld(self) -> int:
        """How many of them count as withheld."""
        return (self.count - self.refused) if self.settled else 0


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two events under one number: both in the log, or one of them only named by its successor."""

    producer: str
    epoch: int
    seq: int
    position: int
    """Where it shows."""
    logged: bool
    """Whether both are in the log."""


@dataclass(frozen=True, slots=True)
class ProducerSummary:
    """One counter of a lane."""

    producer: str
    epoch: int
    events: int
    last: int
    missing: int


@dataclass(frozen=True, slots=True)
class LaneCompleteness:
    """What a lane's log shows."""

    lane: int
    entries: int
    producers: tuple[ProducerSummary, ...]
    gaps: tuple[Gap, ...]
    equivocations: tuple[Equivocation, ...]
    doubled: tuple[int, ...]
    """Positions of events that were sequenced before: under the same number, or, uncounted, under the same id."""
    uncounted: tuple[tuple[str, str, int], ...]
    """(signer, event type, how many) of those who have nowhere to keep a counter: a missing one would not show."""

    @property
    def open(self) -> int:
        """How many numbers are missing that may still arrive."""
        return sum(gap.count - gap.refused for gap in self.gaps if not gap.settled)

    @property
    def complete(self) -> bool:
        return not (self.equivocations or self.doubled or any(gap.withheld for gap in self.gaps))


@dataclass(slots=True)
class _Counter:
    """What is known of one producer's epoch in a lane."""

    numbers: Numbers = field(default_factory=Numbers)
    pages: dict[int, bytearray] = field(default_factory=dict)
    awaited: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    """Of numbers that are named and not there: the hash that they should have, and the position that says so."""
    above: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of numbers that are there and whose predecessor is not: position, and when it was appended."""
    named_by: tuple[int, int] = (0, 0)
    """Position and time of the heartbeat that named the highest number."""


class Ledger:
    """Takes a lane's entries, in any order; `report` may be asked at any time."""

    def __init__(self, lane: int) -> None:
        self._lane = lane
        self._counters: dict[_Producer, _Counter] = {}
        self._equivocations: set[Equivocation] = set()
        self._doubled: list[int] = []
        self._ids: dict[str, int] = {}
        self._uncounted: dict[tuple[str, str], int] = {}
        self._refused: set[bytes] = set()
        self._entries = 0
        self._oldest_ms = 0
        self._newest_ms = 0

    def take(self, said: Said) -> bool:
        """Note an entry; False where its event was sequenced before."""
        self._oldest_ms = min(self._oldest_ms, said.append_ms) if self._entries else said.append_ms
        self._entries += 1
        self._newest_ms = max(self._newest_ms, said.append_ms)
        if said.refused is not None:
            self._refused.add(_short(said.refused))
        if said.producer is None or said.epoch is None or said.seq is None:
            key = (said.signer, said.type)
            self._uncounted[key] = self._uncounted.get(key, 0) + 1
            before = self._ids.setdefault(said.event_id, said.position)
            if before == said.position:
                return True
            self._doubled.append(max(before, said.position))
            self._ids[said.event_id] = min(before, said.position)
            return False
        counter = self._counters.setdefault((said.producer, said.epoch), _Counter())
        doubled = len(self._doubled)
        self._count(counter, said, said.producer, said.epoch, said.seq)
        if said.beat is not None:
            epoch, seq, event_hash = said.beat
            named = self._counters.setdefault((said.producer, epoch), _Counter())
            if seq > named.numbers.named:
                named.numbers.name(seq)
                named.named_by = (said.position, said.append_ms)
            if event_hash:
                self._expect(named, said.producer, epoch, seq, _short(event_hash), said.position)
        return len(self._doubled) == doubled

    @property
    def span(self) -> tuple[int, int] | None:
        """When the oldest and the newest of the entries were appended, ms; None where there are none."""
        return (self._oldest_ms, self._newest_ms) if self._entries else None

    def report(self, *, settle_ms: int, newest_ms: int = 0) -> LaneCompleteness:
        """What is known so far. `settle_ms`: how much later than a gap the newest entry must be for it to count.

        `newest_ms`: up to when the log is known to have gone on, in other lanes: this one may be idle.
        """
        newest_ms = max(newest_ms, self._newest_ms)
        gaps: list[Gap] = []
        summaries: list[ProducerSummary] = []
        for (producer, epoch), counter in sorted(self._counters.items()):
            missing = 0
            for first, last in counter.numbers.gaps():
                shown_by, at_ms = counter.above.get(last + 1, counter.named_by)
                settled = newest_ms - at_ms >= settle_ms
                refused = counter.awaited.get(last, (b"", 0))[0] in self._refused
                gap = Gap(producer, epoch, first, last, shown_by, settled, refused)
                gaps.append(gap)
                missing += gap.count
            numbers = counter.numbers
            summaries.append(ProducerSummary(producer, epoch, numbers.count, max(numbers.last, numbers.named), missing))
        return LaneCompleteness(
            lane=self._lane,
            entries=self._entries,
            producers=tuple(summaries),
            gaps=tuple(gaps),
            equivocations=tuple(sorted(self._equivocations, key=lambda e: (e.producer, e.epoch, e.seq, e.position))),
            doubled=tuple(sorted(self._doubled)),
            uncounted=tuple((who, what, count) for (who, what), count in sorted(self._uncounted.items())),
        )

    def _count(self, counter: _Counter, said: Said, producer: str, epoch: int, seq: int) -> None:
        own = _short(said.event_hash)
        if not counter.numbers.add(seq):
            if _known(counter, seq) == own:
                self._doubled.append(said.position)
            else:
                self._equivocations.add(Equivocation(producer, epoch, seq, said.position, logged=True))
            return
        page, at = divmod(seq, _PAGE)
        kept = counter.pages.setdefault(page, bytearray(_PAGE * _HASH))
        kept[at * _HASH : (at + 1) * _HASH] = own
        expected = counter.awaited.pop(seq, None)
        if expected is not None and expected[0] != own:
            self._equivocations.add(Equivocation(producer, epoch, seq, expected[1], logged=False))
        counter.above.pop(seq + 1, None)
        if seq > 1 and seq - 1 not in counter.numbers:
            counter.above[seq] = (said.position, said.append_ms)
        if said.prev and seq > 1:
            self._expect(counter, producer, epoch, seq - 1, _short(said.prev), said.position)

    def _expect(self, counter: _Counter, producer: str, epoch: int, seq: int, wanted: bytes, position: int) -> None:
        """The event under this number should have this hash."""
        if seq in counter.numbers:
            if _known(counter, seq) != wanted:
                self._equivocations.add(Equivocation(producer, epoch, seq, position, logged=False))
            return
        before = counter.awaited.setdefault(seq, (wanted, position))
        if before[0] != wanted:
            self._equivocations.add(Equivocation(producer, epoch, seq, position, logged=False))


def _known(counter: _Counter, seq: int) -> bytes:
    page, at = divmod(seq, _PAGE)
    return bytes(counter.pages[page][at * _HASH : (at + 1) * _HASH])


def _short(event_hash: str) -> bytes:
    return bytes.fromhex(event_hash[: 2 * _HASH])
