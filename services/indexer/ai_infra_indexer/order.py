"""The order of a lane: an event comes after those of its causes that are in the lane. Pure.

Kafka orders partitions, not a lane's topics against each other: an effect may arrive before its cause. Such an event is
held until its causes are sequenced, or until the lane's topics have been read to where they ended when it arrived: by
then its cause, which its sender had read before it spoke, must have come. What is still missing then was never there,
or comes late; the event goes on without it and the log records that.

Whoever may say one event chooses its causes freely: ones that never come, chains and circles of them. So each event and
each cause costs a step or two, whatever the others are; and of a source of which much is held no more is to be read
(`full`), so that what is held has a bound.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")
Source = tuple[str, int]
"""Topic and partition."""

FULL: Final = 4_000  # held events of a source: effects run that far ahead of their causes, and it is some 40 MB


@dataclass(frozen=True, slots=True)
class Arrival(Generic[T]):
    """An event as it arrived: its id, the causes that belong to this lane, and where it stands in Kafka."""

    id: str
    causes: tuple[str, ...]
    source: Source
    offset: int
    item: T


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """An event whose turn has come. `missing`: causes that were waited for in vain."""

    item: T
    missing: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Held(Generic[T]):
    arrival: Arrival[T]
    missing: set[str]
    here: int
    """How many of the missing are held themselves."""
    barrier: Mapping[Source, int] | None = None
    """Where the topics ended when it began to wait; None: it has just arrived."""
    overdue: bool = False
    """All before the barrier was read: it waits for nothing but what is held itself."""


class CauseOrder(Generic[T]):
    """Events of one lane that wait for their causes."""

    def __init__(self, full: int = FULL) -> None:
        self._limit = full
        self._held: dict[_Held[T], None] = {}  # the oldest first
        self._waiters: dict[str, dict[_Held[T], None]] = {}  # by the cause that is missing
        self._ids: Counter[str] = Counter()  # of what is held
        self._sources: Counter[Source] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def lowest_held(self, source: Source) -> int | None:
        """Offset from which a source must be read again after a restart, because of what is held; None: nothing is."""
        return min((held.arrival.offset for held in self._held if held.arrival.source == source), default=None)

    @property
    def waits(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    @property
    def full(self) -> frozenset[Source]:
        """Sources of which so much is held that no more should be read before some of it is placed."""
        return frozenset(source for source, count in self._sources.items() if count >= self._limit)

    def items(self) -> list[T]:
        """What is held, the oldest first."""
        return [held.arrival.item for held in self._held]

    def sources(self) -> set[Source]:
        """Where what is held came from."""
        return set(self._sources)

    def place(
        self,
        arrivals: Collection[Arrival[T]],
        *,
        known: Collection[str],
        read_to: Mapping[Source, int],
        ends: Callable[[], Mapping[Source, int]],
    ) -> list[Placed[T]]:
        """What can be sequenced now, in order.

        `known`: those of the arrivals' causes that are in the log. `read_to`: next offset by source. `ends`: the ends
        of the lane's topics as of now; called only where something must begin to wait.
        """
        placed: list[Placed[T]] = []
        done: set[str] = set()
        starters: list[_Held[T]] = []
        for arrival in arrivals:
            missing = {c for c in arrival.causes if c not in known and c not in done and c != arrival.id}
            if missing:
                starters.append(self._hold(arrival, missing))
            else:
                self._settle(Placed(arrival.item, ()), arrival.id, placed, done, held=arrival.id in self._ids)
        if starters := [held for held in starters if held in self._held]:
            barrier = dict(ends())
            for held in starters:
                held.barrier = barrier
        self._give_up(read_to, placed, done)
        return placed

    def _hold(self, arrival: Arrival[T], missing: set[str]) -> _Held[T]:
        held = _Held(arrival, missing, here=sum(cause in self._ids for cause in missing))
        self._held[held] = None
        self._sources[arrival.source] += 1
        for cause in missing:
            self._waiters.setdefault(cause, {})[held] = None
        if arrival.id not in self._ids:
            for waiter in self._waiters.get(arrival.id, ()):
                waiter.here += 1
        self._ids[arrival.id] += 1
        return held

    def _let_go(self, held: _Held[T]) -> Placed[T]:
        """What is held no more; what it still lacks is missing."""
        del self._held[held]
        for cause in held.missing:
            waiters = self._waiters[cause]
            del waiters[held]
            if not waiters:
                del self._waiters[cause]
        _count_down(self._sources, held.arrival.source)
        _count_down(self._ids, held.arrival.id)
        return Placed(held.arrival.item, tuple(sorted(held.missing)))

    def _settle(self, first: Placed[T], first_id: str, placed: list[Placed[T]], done: set[str], *, held: bool) -> None:
        """Places an event, and with it whatever waits for nothing any more. `held`: whether one of its id was held."""
        ready = deque([(first, first_id, held)])
        while ready:
            event, event_id, was_held = ready.popleft()
            placed.append(event)
            done.add(event_id)
            for waiter in self._waiters.pop(event_id, ()):
                waiter.missing.discard(event_id)
                waiter.here -= was_held
                if not waiter.missing or (waiter.overdue and not waiter.here):
                    ready.append((self._let_go(waiter), waiter.arrival.id, True))

    def _give_up(self, read_to: Mapping[Source, int], placed: list[Placed[T]], done: set[str]) -> None:
        """Places those that need not wait any longer: all was read that was there when they arrived (what is full is
        not read, and would be waited for in vain), and none of their causes is waiting itself. Where causes wait for
        each other in a circle, the oldest of it goes first."""
        full = self.full
        passed: dict[int, bool] = {}  # by the barrier, which those of a batch share
        for held in self._held:
            barrier = held.barrier or {}
            if id(held.barrier) not in passed:
                passed[id(held.barrier)] = all(s in full or read_to.get(s, 0) >= end for s, end in barrier.items())
            held.overdue = held.overdue or passed[id(held.barrier)]
        self._place_all([held for held in self._held if held.overdue and not held.here], placed, done)
        if stuck := [held for held in self._held if held.overdue]:
            waiting = self._behind([held for held in self._held if not held.overdue])
            self._place_all([held for held in stuck if held not in waiting], placed, done)

    def _place_all(self, given_up: list[_Held[T]], placed: list[Placed[T]], done: set[str]) -> None:
        for held in given_up:
            if held in self._held:
                self._settle(self._let_go(held), held.arrival.id, placed, done, held=True)

    def _behind(self, first: list[_Held[T]]) -> set[_Held[T]]:
        """What waits for one of these, or for what does."""
        found: set[_Held[T]] = set()
        stack = first
        while stack:
            for waiter in self._waiters.get(stack.pop().arrival.id, ()):
                if waiter not in found:
                    found.add(waiter)
                    stack.append(waiter)
        return found


def _count_down(counts: Counter[K], key: K) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
