"""What a lane waits for: timers that come due, and work that was asked for. All of it lies in the lane's state."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from ai_infra.bus.records import PendingTimer, PendingWork
from ai_infra.bus.state import LaneState


class Agenda:
    """`to_start` and `to_cancel` is what the open batch wants of the workers once it is committed."""

    def __init__(self, state: LaneState) -> None:
        self.to_start: list[PendingWork] = []
        self.to_cancel: list[str] = []
        self.pending = 0
        """How much work is waited for, open batch included."""
        self._state = state
        self._due: list[tuple[datetime, str]] = []

    def loaded(self) -> None:
        """Call once the state is what was committed."""
        self._due = [(timer.at, key) for key, timer in self._state.all(PendingTimer)]
        heapq.heapify(self._due)
        self.pending = sum(1 for _ in self._state.all(PendingWork))

    def clear(self) -> None:
        """The open batch has ended."""
        self.to_start.clear()
        self.to_cancel.clear()

    def mark(self) -> tuple[int, int, int]:
        """Before a trigger: where `back_to` goes back to. The state goes back by itself."""
        return len(self.to_start), len(self.to_cancel), self.pending

    def back_to(self, mark: tuple[int, int, int]) -> None:
        started, cancelled, self.pending = mark
        del self.to_start[started:], self.to_cancel[cancelled:]

    # -- timers ---------------------------------------------------------------------------------------------------

    def set_timer(self, key: str, timer: PendingTimer) -> None:
        self._state.put(key, timer)
        heapq.heappush(self._due, (timer.at, key))

    def take_timer(self, key: str) -> PendingTimer | None:
        """The timer, which is set no more; None where there is none."""
        timer = self._state.get(PendingTimer, key)
        if timer is not None:
            self._state.delete(PendingTimer, key)
        return timer

    def due(self, now: datetime) -> Iterator[str]:
        """Keys of timers that have come due, the earliest first."""
        while self._due and self._due[0][0] <= now:
            at, key = heapq.heappop(self._due)
            timer = self._state.get(PendingTimer, key)
            if timer is not None and timer.at == at:  # else it was set anew, or taken, since
                yield key

    def next_due(self) -> datetime | None:
        return self._due[0][0] if self._due else None

    # -- work -----------------------------------------------------------------------------------------------------

    def waits_for(self, key: str) -> bool:
        return self._state.get(PendingWork, key) is not None

    def ask(self, work: PendingWork) -> None:
        """Have work done once the batch is committed. Raises StateTooLargeError."""
        self._state.put_fitting(work_key(work.kind, work.work_id), work)
        self.pending += 1
        self.to_start.append(work)

    def put_back(self, work: PendingWork) -> None:
        """Wait again for work that was taken."""
        self._state.put(work_key(work.kind, work.work_id), work)
        self.pending += 1

    def cancel(self, kind: str, work_id: str) -> None:
        """Wait for it no more, and have it ended once the batch is committed."""
        if self.take_work(kind, work_id) is not None:
            self.to_cancel.append(work_key(kind, work_id))

    def take_work(self, kind: str, work_id: str, *, asked_by: str | None = None) -> PendingWork | None:
        """The work, which is waited for no more; None where it wasn't, or by another trigger than `asked_by`."""
        key = work_key(kind, work_id)
        work = self._state.get(PendingWork, key)
        if work is None or asked_by not in (None, work.asked_by):
            return None
        self._state.delete(PendingWork, key)
        self.pending -= 1
        return work

    def resume(self, running: Callable[[PendingWork], bool]) -> Iterator[PendingWork]:
        """Work to be started here: what `running` says is not at work in this process, with attempt + 1."""
        for key, work in list(self._state.all(PendingWork)):
            if not running(work):
                again = replace(work, attempt=work.attempt + 1)
                self._state.put(key, again)
                yield again


def work_key(kind: str, work_id: str) -> str:
    return f"{kind}/{work_id}"
