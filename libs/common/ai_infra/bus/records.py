"""What the runtime itself remembers of a lane, beside the service's own records.

Their names begin with an underscore, so that a service's record can never be taken for one of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Final

SELF: Final = "self"  # id of records of which a lane has one


@dataclass(frozen=True, slots=True)
class Head:
    """How far this lane has spoken: the producer sequence (docs/event-format.md, "Complete").

    `epoch` is the time (ms) at which the lane first had state: it grows when state is lost, and when an operator says
    that the numbering is (`groups renumber`).
    `counter` numbers the state records written, so that an old one replayed into the topic is recognised.
    """

    STATE_NAME: ClassVar[str] = "_head"
    epoch: int
    seq: int = 0
    prev: str | None = None
    now_ms: int = 0
    counter: int = 0
    beat_seq: int = 0
    beat_ms: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """The last number heard of a counted producer on one topic; id: `<topic>/<producer>`."""

    STATE_NAME: ClassVar[str] = "_seen"
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class SeenId:
    """An uncounted event that was heard, or any event that failed; id: the event's id.

    A failed one may be redriven; an accepted one never again. Forgotten when the topics have forgotten the event.
    """

    STATE_NAME: ClassVar[str] = "_seen_id"
    hash: str
    at_ms: int
    failed: bool


@dataclass(frozen=True, slots=True)
class PendingTimer:
    STATE_NAME: ClassVar[str] = "_timer"
    at: datetime
    model: str
    cause_id: str
    cause_lane: int
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Work that has been asked for and not yet decided on; id: `<kind>/<work id>`. `asked_by` is the trigger's id."""

    STATE_NAME: ClassVar[str] = "_work"
    kind: str
    work_id: str
    args: str
    attempt: int
    model: str
    cause_id: str
    cause_lane: int
    asked_by: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Halt:
    """The lane stands still until an operator resumes it."""

    STATE_NAME: ClassVar[str] = "_halt"
    since: datetime
    code: str
    reason: str
    failures: int


RUNTIME_RECORDS: Final = (Head, Seen, SeenId, PendingTimer, PendingWork, Halt)
