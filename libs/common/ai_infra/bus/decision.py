"""What a service's `decide` is given and what it answers: the words between the runtime and every service.

Pure types only. `decide(state, trigger, context) -> Decision` has no I/O, clock or randomness: what it needs to know is
in its arguments, and what it wants done is in its answer.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypeVar

from ai_infra.errors import AiInfraError
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import Reason

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Say:
    """An event to say. Its id follows from the trigger, its type, `kind` and `subject`, so a retry says the same event.

    `kind` tells two events of one type and subject apart. `causes` are added after the trigger, which comes first.
    """

    body: Any
    subject: str | None = None
    kind: str | None = None
    causes: tuple[Cause, ...] = ()


@dataclass(frozen=True, slots=True)
class Put:
    """Write a state record: a frozen dataclass of a type that the service has declared in `Service.records`."""

    id: str
    record: Any


@dataclass(frozen=True, slots=True)
class Delete:
    """Forget a state record; forgetting what is not there is no error."""

    record_type: type
    id: str


@dataclass(frozen=True, slots=True)
class Timer:
    """Ask for a `Tick` at a time (UTC); a second one with the same key moves it, `at=None` cancels it."""

    key: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Work:
    """Something slow or outside to be done, identified by (kind, id). Asking again while it is pending changes nothing.

    `args` is an instance of the kind's `args` dataclass; it is remembered in the lane's state until the work is done.
    """

    kind: str
    id: str
    args: Any


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one trigger. `cancel` names pending work as (kind, id); its `Done` will not come."""

    events: tuple[Say, ...] = ()
    state: tuple[Put | Delete, ...] = ()
    timers: tuple[Timer, ...] = ()
    work: tuple[Work, ...] = ()
    cancel: tuple[tuple[str, str], ...] = ()


NOTHING = Decision()


@dataclass(frozen=True, slots=True)
class Tick:
    """A timer has come due. `cause` is the event that was the trigger when it was set."""

    id: str
    key: str
    at: datetime
    model: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class WorkError:
    """Why work failed. `retriable` is true where something outside did not answer, and trying again may help."""

    code: str
    message: str
    retriable: bool


@dataclass(frozen=True, slots=True)
class Done:
    """Work has ended: `result` (of the kind's result type) or `error`, never both."""

    id: str
    kind: str
    work_id: str
    args: Any
    result: Any
    error: WorkError | None
    attempt: int
    model: str
    cause: Cause


Trigger = Event[Any] | Tick | Done


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The policy in force. Version 0 with an empty document is the built-in policy."""

    version: int
    sha256: str
    document: Mapping[str, Any]


NO_POLICY = PolicyView(
    version=0, sha256="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", document={}
)


@dataclass(frozen=True, slots=True)
class Context:
    """What else `decide` may know. `now` is read once a trigger, whole milliseconds, never backwards within a lane."""

    now: datetime
    lane: int
    service: str
    rules: str
    keyring: int
    policy: PolicyView = NO_POLICY


class StateView(Protocol):
    """A lane's state, as `decide` reads it."""

    def get(self, record_type: type[R], record_id: str, /) -> R | None:
        """The record of that type and id, or None."""

    def all(self, record_type: type[R], /) -> Iterator[tuple[str, R]]:
        """All records of that type in the lane with their ids, in the order of their ids."""


class Refuse(AiInfraError):
    """Raised by `decide`: this event is refused for these reasons. It changes nothing, and its sender is told."""

    code = "refused"

    def __init__(self, *reasons: Reason) -> None:
        if not reasons:
            raise ValueError("Refuse needs at least one Reason(code=…, detail=…)")
        super().__init__("; ".join(f"{r.code}: {r.detail}" for r in reasons), code=reasons[0].code)
        self.reasons = reasons


@dataclass(frozen=True, slots=True)
class WorkItem:
    """What a work function is given. It may be run again with the same (kind, id): it must be idempotent by id.

    `attempt` counts takeovers from 1. `cancelled` is set when the result is no longer wanted; check it in long work.
    """

    kind: str
    id: str
    args: Any
    attempt: int
    model: str
    lane: int
    cause: Cause
    cancelled: threading.Event = field(compare=False)
