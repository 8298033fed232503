"""What a service knows and waits for while its decisions are made again, with the runtime's own rules. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from ai_infra.bus.decision import Decision, Put
from ai_infra.bus.replay.words import Asked
from ai_infra.events.event import Cause


class Here:
    """What a service knows and waits for, at one place of the replay. Implements `StateView`."""

    __slots__ = ("carried", "read", "records", "timers", "work")

    def __init__(self) -> None:
        self.records: dict[type, dict[str, Any]] = {}
        self.work: dict[tuple[str, str], Asked] = {}
        self.timers: dict[str, tuple[datetime, Cause]] = {}
        self.read: dict[str, int] = {}
        self.carried: dict[Cause, frozenset[str]] = {}
        """What was taken from outside in the work that goes back to this cause."""

    def copy(self) -> Here:
        other = Here()
        other.records = {kind: dict(records) for kind, records in self.records.items()}
        other.work, other.timers, other.read = dict(self.work), dict(self.timers), dict(self.read)
        other.carried = dict(self.carried)
        return other

    def get(self, record_type: Any, record_id: str, /) -> Any:
        return self.records.get(record_type, {}).get(record_id)

    def all(self, record_type: Any, /) -> Iterator[tuple[str, Any]]:
        return iter(sorted(self.records.get(record_type, {}).items()))

    def apply(self, decision: Decision, cause: Cause) -> None:
        for change in decision.state:
            if isinstance(change, Put):
                self.records.setdefault(type(change.record), {})[change.id] = change.record
            else:
                self.records.get(change.record_type, {}).pop(change.id, None)
        for timer in decision.timers:
            self.timers.pop(timer.key, None)
            if timer.at is not None:
                self.timers[timer.key] = (timer.at, cause)
        for key in decision.cancel:
            self.work.pop(key, None)
        for work in decision.work:
            self.work.setdefault((work.kind, work.id), Asked(work.kind, work.id, work.args, cause))
