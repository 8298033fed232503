"""What is said between the replay of decisions and the services that plug in theirs. Pure types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ai_infra.bus.decision import PolicyView, WorkError
from ai_infra.bus.service import Decide
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Cause, Event
from ai_infra.trust.keyrings import Keyrings


@dataclass(frozen=True, slots=True)
class Placed:
    """An event and where it is in the lane's log."""

    position: int
    event: Event[Any]
    cluster: int = 0
    """Which Kafka it came from, counted from 0: offsets begin anew after one was lost."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the lane's log says to everybody: its keyrings, and its policies by version."""

    keyrings: Keyrings
    policies: Mapping[int, PolicyView]


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was decided that an event tells of, and by which keyring and policy."""

    now: datetime
    keyring: int
    policy: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """Work that waits for its answer."""

    kind: str
    id: str
    args: Any
    cause: Cause


@dataclass(frozen=True, slots=True)
class Answered:
    """What the work ended in. `carried` names what was taken from the event that is being explained."""

    result: Any
    error: WorkError | None = None
    carried: tuple[str, ...] = ()


class Disagrees(AiInfraError):
    """What an event carries is not the answer to what the rules asked: raised by `Replayer.answers`."""

    code = "disagrees"


@dataclass(frozen=True, slots=True)
class Replayer:
    """A service, as its decisions are made again. Services plug these in by the entry point `ai_infra.replays`."""

    service: str
    listens: tuple[type, ...]
    versions: Callable[[Known], Mapping[str, Decide]]
    """`decide` by the name of the rules that events carry."""
    moment: Callable[[Event[Any]], Moment]
    """When the decision that an event tells of was made: before the event, where it had to be signed first."""
    answers: Callable[[Asked, Event[Any], Event[Any], Known], Iterable[Answered]] = lambda *_: ()
    """What a piece of work may have ended in, if it was for this event; nothing where it was not. Then the event that
    tells what it rests on. Raises Disagrees."""
    ticks: Callable[[str, datetime, Event[Any]], bool] = lambda *_: False
    """Whether the timer of that key and time may have led to this event."""
    tells: Callable[[Sequence[Event[Any]]], Mapping[str, Event[Any]]] = lambda _: {}
    """Of all events of a model, in their order: by the id of one that does not itself carry what it rests on, the later
    one that does."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A decision that the rules don't give."""

    service: str
    lane: int
    position: int
    event_id: str
    event_type: str
    model: str
    rules: str
    said: str
    given: str


@dataclass(slots=True)
class Replayed:
    """One service's decisions in one lane."""

    service: str
    lane: int
    decisions: int = 0
    recomputed: int = 0
    """From the log alone."""
    checked: int = 0
    """Against what they carry of answers from outside; `carried` says what."""
    carried: dict[str, int] = field(default_factory=dict)
    before_rules: int = 0
    """Refusals of events whose signature or form the service did not accept: no rules were asked."""
    unexamined: int = 0
    """After a difference, of the same model: what they rest on is not known any more."""
    unanswered: list[int] = field(default_factory=list)
    """Positions of events that the rules answer and that no decision answers: on its way, or withheld."""
    differences: list[Difference] = field(default_factory=list)
