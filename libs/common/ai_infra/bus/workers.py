"""The work of a service: bounded slots beside the lanes, results as triggers, nothing slow in the transaction loop.

Work may be run again (a takeover, an aborted transaction), so it is idempotent by (kind, id). This room runs it and
hands results over; it never changes state and never decides what a result means.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import structlog

from ai_infra.bus.decision import WorkError, WorkItem
from ai_infra.bus.records import PendingWork
from ai_infra.bus.service import Service
from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.event import Cause
from ai_infra.events.text import sayable
from ai_infra.telemetry import metrics

log = structlog.get_logger(__name__)

ORPHAN_SECONDS: Final = 15.0  # a lane that goes and comes back within this keeps its running work


# Of an error's message. It may quote foreign files and programs, and decisions say it: what no event can carry would
# halt the lane.
MESSAGE_BYTES: Final = 4_000


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a piece of work, for the lane that asked for it."""

    lane: int
    work: PendingWork
    result: Any
    error: WorkError | None


@dataclass(slots=True)
class _Running:
    lane: int
    work: PendingWork
    cancelled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    orphan_since: float | None = None
    again: PendingWork | None = None  # asked for anew while the cancelled run is still ending


_Token = tuple[int, str, str, str]


def _token(lane: int, work: PendingWork) -> _Token:
    return (lane, work.kind, work.work_id, work.asked_by)


class Workers:
    """Runs pending work on threads, at most `WorkKind.slots` of a kind at once. All methods are for one thread."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._slots = {name: _Slots(name, kind.slots) for name, kind in service.work.items()}
        self._running: dict[_Token, _Running] = {}
        self._finished: queue.SimpleQueue[tuple[_Token, Finished]] = queue.SimpleQueue()

    def start(self, lane: int, work: PendingWork) -> None:
        """Begins work in a free slot; does nothing where the same is under way already."""
        token = _token(lane, work)
        known = self._running.get(token)
        if known is not None:
            known.orphan_since = None
            if known.cancelled.is_set():
                known.again = work  # what it ends with was made to end, and is no result
            return
        running = self._running[token] = _Running(lane, work)
        self._slots[work.kind].submit(lambda: self._run(token, running))
        self._show_depth(work.kind)

    def is_running(self, lane: int, work: PendingWork) -> bool:
        """Whether this process is at it; then it belongs to the lane again."""
        running = self._running.get(_token(lane, work))
        if running is None or running.cancelled.is_set():
            return False
        running.orphan_since = None
        return True

    def get(self, timeout: float = 0.0) -> Finished | None:
        """The next finished work, waiting up to `timeout` seconds for it. What was cancelled has no result: it ends
        unheard, or begins anew where it was asked for again meanwhile."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            try:
                token, finished = self._finished.get(timeout=left) if left > 0 else self._finished.get_nowait()
            except queue.Empty:
                return None
            running = self._running.pop(token)
            self._show_depth(finished.work.kind)
            if not running.cancelled.is_set():
                return finished
            if running.again is not None:
                self.start(running.lane, running.again)

    def cancel(self, lane: int, key: str) -> None:
        """Tells the work `<kind>/<id>` of a lane that its result is no longer wanted."""
        for running in self._running.values():
            if running.lane == lane and f"{running.work.kind}/{running.work.work_id}" == key:
                self._cancel(running)

    def orphan(self, lane: int) -> None:
        """The lane has gone: its work ends unless the lane is back soon."""
        now = time.monotonic()
        for running in self._running.values():
            if running.lane == lane:
                running.orphan_since = now
                running.again = None

    def cancel_orphans(self) -> None:
        now = time.monotonic()
        for running in self._running.values():
            if running.orphan_since is not None and now - running.orphan_since > ORPHAN_SECONDS:
                self._cancel(running)

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def close(self, timeout: float) -> None:
        """Cancels all work and waits up to `timeout` seconds for it to end."""
        for running in self._running.values():
            self._cancel(running)
        deadline = time.monotonic() + timeout
        for running in self._running.values():
            if not running.ended.wait(max(0.0, deadline - time.monotonic())):
                log.warning("work did not end in time", kind=running.work.kind, work_id=running.work.work_id)

    @staticmethod
    def _cancel(running: _Running) -> None:
        running.cancelled.set()
        running.again = None

    def _run(self, token: _Token, running: _Running) -> None:
        try:
            finished = self._outcome(running)
        finally:
            running.ended.set()
        self._finished.put((token, finished))

    def _outcome(self, running: _Running) -> Finished:
        work = running.work
        if running.cancelled.is_set():  # before it had a slot
            return Finished(running.lane, work, None, None)
        kind = self._service.work[work.kind]
        began = time.monotonic()
        result: Any = None
        error: WorkError | None = None
        try:
            item = WorkItem(
                kind=work.kind,
                id=work.work_id,
                args=msgspec.json.decode(work.args, type=kind.args),
                attempt=work.attempt,
                model=work.model,
                lane=running.lane,
                cause=Cause(work.cause_id, work.cause_lane),
                cancelled=running.cancelled,
            )
            result = kind.run(item)
            if not isinstance(result, kind.result):
                raise TypeError(f"work {work.kind} returned {type(result).__name__}, not {kind.result.__name__}")
        except AiInfraError as known:
            retriable = isinstance(known, UnavailableError) or bool(getattr(known, "retriable", False))
            error = WorkError(code=known.code, message=sayable(str(known), MESSAGE_BYTES), retriable=retriable)
        except Exception as unknown:
            log.exception("work failed", kind=work.kind, work_id=work.work_id)
            message = sayable(f"{type(unknown).__name__}: {unknown}", MESSAGE_BYTES)
            error = WorkError(code="work_failed", message=message, retriable=False)
        outcome = "cancelled" if running.cancelled.is_set() else "error" if error else "done"
        metrics.BUS_WORK.labels(self._service.name, work.kind, outcome).observe(time.monotonic() - began)
        return Finished(running.lane, work, None if error else result, error)

    def _show_depth(self, kind: str) -> None:
        depth = sum(1 for r in self._running.values() if r.work.kind == kind)
        metrics.QUEUE_DEPTH.labels(self._service.name, kind).set(depth)


class _Slots:
    """Threads that run what is submitted, in order. They are daemons: work that does not heed its cancellation must
    not keep a process from ending."""

    def __init__(self, kind: str, size: int) -> None:
        self._kind = kind
        self._size = size
        self._threads = 0
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def submit(self, run: Callable[[], None]) -> None:
        self._waiting.put(run)
        if self._threads < self._size:
            self._threads += 1
            threading.Thread(target=self._serve, name=f"work-{self._kind}-{self._threads}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._waiting.get()()
