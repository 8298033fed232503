"""What follows from one trigger, collected part by part; and the lane's state as it will be after those parts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar, cast

from ai_infra.bus.decision import Decision, Delete, Put, Say, StateView, Timer, Work
from ai_infra.events.event import Cause
from ai_infra.events.generated import PromotionDecided
from ai_infra_promoter.state import Promotion, PromotionsAbout, key

R = TypeVar("R")


class Answer:
    """Implements `StateView`: `get` sees what was answered so far. `decision()` gives all of it."""

    def __init__(self, state: StateView, trigger: Cause) -> None:
        self._state = state
        self._trigger = trigger
        self._events: list[Say] = []
        self._changes: dict[tuple[type, str], Put | Delete] = {}
        self._timers: list[Timer] = []
        self._work: list[Work] = []

    def get(self, record_type: type[R], record_id: str, /) -> R | None:
        """The record of that type and id, or None."""
        change = self._changes.get((record_type, record_id))
        if change is None:
            return self._state.get(record_type, record_id)
        return cast("R", change.record) if isinstance(change, Put) else None

    def all(self, record_type: type[R], /) -> Iterator[tuple[str, R]]:
        """All records of a type, without what was answered: the promoter finds what it looks for by id."""
        return self._state.all(record_type)

    def promotions_about(self, *about: str) -> tuple[Promotion, ...]:
        """Promotions to look at when something about (model, what, id) becomes known."""
        known = self.get(PromotionsAbout, key(*about))
        found = (self.get(Promotion, key(about[0], i)) for i in (known.promotion_ids if known else ()))
        return tuple(p for p in found if p is not None)

    def say(self, step: PromotionDecided, causes: tuple[Cause, ...] = (), kind: str | None = None) -> None:
        """Say a step; the trigger comes first among its causes by itself."""
        beyond = tuple(c for c in dict.fromkeys(causes) if c != self._trigger)
        self._events.append(Say(step, subject=step.promotion_id, kind=kind or step.status.value, causes=beyond))

    def put(self, record_id: str, record: Any) -> None:
        """Write a record; the last of one id counts."""
        self._changes[(type(record), record_id)] = Put(record_id, record)

    def forget(self, record_type: type, record_id: str) -> None:
        """Delete a record, if there is one."""
        if self.get(record_type, record_id) is not None:
            self._changes[(record_type, record_id)] = Delete(record_type, record_id)

    def keep(self, promotion: Promotion) -> None:
        """Write a promotion."""
        self.put(key(promotion.model, promotion.promotion_id), promotion)

    def set_timer(self, timer: Timer) -> None:
        """Set or cancel a timer."""
        self._timers.append(timer)

    def ask(self, work: Work) -> None:
        """Have something done."""
        self._work.append(work)

    def decision(self) -> Decision:
        """All that follows."""
        return Decision(
            events=tuple(self._events),
            state=tuple(self._changes.values()),
            timers=tuple(self._timers),
            work=tuple(self._work),
        )
