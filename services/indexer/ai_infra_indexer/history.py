"""What a lane has heard already, and what that makes of the next event. Pure: the facts are read by `store.py`.

An event is sequenced once, however often it was delivered. Counted producers are recognised by (producer, epoch, seq),
all others by the event's id. Everything found here follows from the lane's entries alone, so a rebuild finds the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ai_infra.events.event import Event
from ai_infra.events.generated import EventRefused
from ai_infra.events.values import value

Number = tuple[str, int, int]
"""(producer, epoch, seq)"""

# Findings of a kind about one event. Each is an event of its own in the log for ever, and who may say one event names
# 32 causes that never come; or, a thousand times, one that comes at last. `missing_causes` has them all.
NAMED: Final = 4


class Verdict(StrEnum):
    """What an entry means for the projection."""

    PROJECTED = "projected"
    REPEATED = "repeated"
    """The same event id under a new number (state was lost, and said again): its meaning is there already."""
    EQUIVOCATION = "equivocation"
    """Another event under a number that is taken: kept as evidence, never projected."""
    REFUSED = "refused"
    """Its projection contradicts the schema of the projection."""


class Heard(StrEnum):
    """Whether an event is to be sequenced."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """The very same signed event again: dropped."""
    REUSED_ID = "reused_id"
    """Another content under the id of an uncounted event: refused, as every service refuses it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an auditor should know. `about`: the other event or number."""

    position: int
    kind: str
    about: str
    event_id: str
    detail: str
    number: Number | None = None


@value()
class Judgement:
    """What the history makes of one entry."""

    verdict: Verdict
    findings: tuple[Finding, ...] = ()
    missing: tuple[str, ...] = ()
    """Causes that belong to this lane and are not before the entry."""


@dataclass(slots=True)
class Known:
    """The part of a lane's history that concerns a batch. `note` extends it, entry by entry."""

    lane: int
    ids: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Event id to the position and event_hash of its first entry."""
    numbers: dict[Number, tuple[int, str]] = field(default_factory=dict)
    """Number to the position and event_hash of its first entry."""
    awaited: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Cause id to the positions of entries that it was missing for."""

    def copy(self) -> Known:
        """The same, to be extended without this one."""
        return Known(self.lane, dict(self.ids), dict(self.numbers), dict(self.awaited))

    def learn(self, other: Known) -> None:
        """Take in what concerns more events, as of the same moment."""
        self.ids.update(other.ids)
        self.numbers.update(other.numbers)
        self.awaited.update(other.awaited)

    def heard(self, event: Event[Any]) -> Heard:
        """Whether the lane has this event already."""
        number = number_of(event)
        if number is not None:
            twin = self.numbers.get(number)
            return Heard.DUPLICATE if twin is not None and twin[1] == event.hash else Heard.NEW
        known = self.ids.get(event.id)
        if known is None:
            return Heard.NEW
        return Heard.DUPLICATE if known[1] == event.hash else Heard.REUSED_ID

    def judge(self, event: Event[Any], position: int) -> Judgement:
        """Judge the event that is entered at `position`, and take it into what is known."""
        number = number_of(event)
        findings: list[Finding] = []
        verdict = Verdict.PROJECTED
        twin = self.numbers.get(number) if number is not None else None
        if twin is not None and number is not None:
            verdict = Verdict.EQUIVOCATION
            detail = f"{_text(number)} was said at position {twin[0]} (event_hash {twin[1]}) and, differently, here"
            findings.append(Finding(position, "equivocation", _text(number), event.id, detail, number))
        elif event.id in self.ids:
            verdict = Verdict.REPEATED
        # Each once: nothing keeps a sender from naming a cause twice.
        missing = tuple(
            dict.fromkeys(
                cause.id
                for cause in event.causes
                if cause.lane == self.lane
                and cause.id not in self.ids
                and not _broadcast(event)
                and not _refuses(event, cause.id)
            )
        )
        for cause in missing[:NAMED]:
            detail = f"cause {cause} is not in lane {self.lane} before position {position}"
            findings.append(Finding(position, "missing_cause", cause, event.id, detail))
        for effect in self.awaited.pop(event.id, ())[:NAMED]:
            detail = f"this event is a cause of the entry at position {effect}, which was sequenced before it"
            findings.append(Finding(position, "late_cause", str(effect), event.id, detail))
        self.ids.setdefault(event.id, (position, event.hash))
        if number is not None:
            self.numbers.setdefault(number, (position, event.hash))
        for cause in missing:
            if len(effects := self.awaited.get(cause, ())) < NAMED:
                self.awaited[cause] = (*effects, position)
        return Judgement(verdict, tuple(findings), missing)


def number_of(event: Event[Any]) -> Number | None:
    """The number of a counted event."""
    if event.producer is None or event.epoch is None or event.seq is None:
        return None
    return event.producer, event.epoch, event.seq


def _text(number: Number) -> str:
    return f"{number[0]} epoch {number[1]} seq {number[2]}"


def _refuses(event: Event[Any], cause: str) -> bool:
    """A refusal says itself why its cause may not be in the log."""
    return isinstance(event.body, EventRefused) and event.body.event_id == cause


def _broadcast(event: Event[Any]) -> bool:
    """Broadcasts are entered into every lane; their causes are in the lane of the broadcast alone."""
    return event.type in ("signer.changed", "policy.changed")
