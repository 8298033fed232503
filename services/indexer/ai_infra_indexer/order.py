"""The order of a lane: an event comes after those of its causes that are in the lane. Pure.

Kafka orders partitions, not a lane's topics against each other: an effect may arrive before its cause. Such an event is
held until its causes are sequenced, or until the lane's topics have been read to where they ended when it arrived: by
then its cause, which its sender had read before it spoke, must have come. What is still missing then was never there,
or comes late; the event goes on without it and the log records that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ai_infra.events.values import value

T = TypeVar("T")
Source = tuple[str, int]
"""Topic and partition."""


@value()
class Arrival(Generic[T]):
    """An event as it arrived: its id, the causes that belong to this lane, and where it stands in Kafka."""

    id: str
    causes: tuple[str, ...]
    source: Source
    offset: int
    item: T


@value()
class Placed(Generic[T]):
    """An event whose turn has come. `missing`: causes that were waited for in vain."""

    item: T
    missing: tuple[str, ...]


@dataclass(slots=True)
class _Held(Generic[T]):
    arrival: Arrival[T]
    missing: set[str]
    barrier: Mapping[Source, int] | None
    """Where the topics ended when it began to wait; None: it has just arrived."""


class CauseOrder(Generic[T]):
    """Events of one lane that wait for their causes."""

    def __init__(self) -> None:
        self._held: list[_Held[T]] = []

    def __len__(self) -> int:
        return len(self._held)

    def unresolved(self, arrivals: Collection[Arrival[T]]) -> set[str]:
        """Ids of causes whose presence in the log decides what `place` does now."""
        wanted = {cause for arrival in arrivals for cause in arrival.causes}
        return wanted.union(*(held.missing for held in self._held))

    def lowest_held(self, source: Source) -> int | None:
        """Offset from which a source must be read again after a restart, because of what is held; None: nothing is."""
        return min((held.arrival.offset for held in self._held if held.arrival.source == source), default=None)

    @property
    def waits(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    def items(self) -> list[T]:
        """What is held, the oldest first."""
        return [held.arrival.item for held in self._held]

    def sources(self) -> set[Source]:
        """Where what is held came from."""
        return {held.arrival.source for held in self._held}

    def place(
        self,
        arrivals: Collection[Arrival[T]],
        *,
        known: Collection[str],
        read_to: Mapping[Source, int],
        ends: Callable[[], Mapping[Source, int]],
    ) -> list[Placed[T]]:
        """What can be sequenced now, in order.

        `known`: those of `unresolved(arrivals)` that are in the log. `read_to`: next offset by source. `ends`: the ends
        of the lane's topics as of now; called only where something must begin to wait.
        """
        known_now = set(known)
        waiting = self._held
        for held in waiting:
            held.missing -= known_now
        fresh = [_Held(a, {c for c in a.causes if c not in known_now and c != a.id}, None) for a in arrivals]
        placed: list[Placed[T]] = []
        pending = self._release(waiting + fresh, placed)
        starters = [held for held in pending if held.barrier is None]
        if starters:
            barrier = dict(ends())
            for held in starters:
                held.barrier = barrier
        while given_up := self._overdue(pending, read_to):
            placed += [Placed(held.arrival.item, tuple(sorted(held.missing))) for held in given_up]
            gone = {id(held) for held in given_up}
            released = {held.arrival.id for held in given_up}
            pending = self._release([h for h in pending if id(h) not in gone], placed, released=released)
        self._held = pending
        return placed

    @staticmethod
    def _overdue(pending: list[_Held[T]], read_to: Mapping[Source, int]) -> list[_Held[T]]:
        """Those that need not wait any longer: all was read that was there when they arrived, and none of their causes
        is waiting itself. Where causes wait for each other in a circle, the oldest of it goes first."""
        here = {held.arrival.id: held for held in pending}
        overdue = [h for h in pending if all(read_to.get(s, 0) >= end for s, end in (h.barrier or {}).items())]
        free = [held for held in overdue if not held.missing & here.keys()]
        if free or not overdue:
            return free
        ids = {held.arrival.id for held in overdue}
        for held in overdue:
            seen: set[str] = set()
            stack = [held.arrival.id]
            while stack:
                event_id = stack.pop()
                if event_id in here and event_id not in seen:
                    seen.add(event_id)
                    stack += here[event_id].missing
            if seen <= ids:
                return [held]
        return []

    @staticmethod
    def _release(pending: list[_Held[T]], placed: list[Placed[T]], released: set[str] | None = None) -> list[_Held[T]]:
        """Appends to `placed` whatever waits for nothing any more; returns the rest. Linear in causes."""
        waiters: dict[str, list[_Held[T]]] = {}
        for held in pending:
            for cause in held.missing:
                waiters.setdefault(cause, []).append(held)
        gone: set[int] = set()

        def settle(event_id: str) -> None:
            stack = [event_id]
            while stack:
                for waiter in waiters.pop(stack.pop(), ()):
                    waiter.missing = {c for c in waiter.missing if c in waiters}
                    if not waiter.missing and id(waiter) not in gone:
                        gone.add(id(waiter))
                        placed.append(Placed(waiter.arrival.item, ()))
                        stack.append(waiter.arrival.id)

        for event_id in released or ():
            settle(event_id)
        for held in pending:
            if not held.missing and id(held) not in gone:
                gone.add(id(held))
                placed.append(Placed(held.arrival.item, ()))
                settle(held.arrival.id)
        return [held for held in pending if id(held) not in gone]
