"""Decides again what a service has decided, from the log alone. Pure: it is given verified events, and asks nobody.

A lane's log has every event, but not the order in which a service heard different topics, nor the answers of what it
asks (a policy, a key). So a decision counts as explained where there is an order of hearing, which keeps each topic's
own order and everything that the decision names as its causes, by which the rules of its version give exactly this
event. Answers from outside are recomputed where the log has what they rest on; else they are taken from the event
itself, which is then said of it (`carried`). State, timers and work of one model touch no other model: each is replayed
by itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import msgspec

from ai_infra.bus.replay.comparing import short, unlike
from ai_infra.bus.replay.search import Model
from ai_infra.bus.replay.words import (
    Answered,
    Asked,
    Difference,
    Disagrees,
    Known,
    Moment,
    Placed,
    Replayed,
    Replayer,
)
from ai_infra.bus.restoring import RESTORE_ACTION
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import OperatorAction

__all__ = [
    "Answered",
    "Asked",
    "Difference",
    "Disagrees",
    "Known",
    "Moment",
    "Placed",
    "Replayed",
    "Replayer",
    "first_difference",
    "replay",
]


_SAID_ANEW: Final = frozenset({"reasons", "policy_version", "policy_sha256", "rules"})
"""In what a step may differ when it is said again after its service's state was lost: it waits for something else, or
by another policy. Not in what was decided."""


def replay(replayer: Replayer, lane: int, placed: Iterable[Placed], known: Known) -> Replayed:
    """Decide again everything that a service has said in a lane. `placed`: the lane's events, in the log's order."""
    report = Replayed(replayer.service, lane)
    inputs: dict[str, list[Placed]] = defaultdict(list)
    outputs: dict[str, list[Placed]] = defaultdict(list)
    causes: dict[str, tuple[Cause, ...]] = {}
    reused: dict[str, tuple[int, int]] = {}
    firsts: dict[tuple[str, str], Placed] = {}
    events = list(placed)
    lost = _lost_at(events)
    for each in (replace(p, cluster=bisect_right(lost, p.position)) for p in events) if lost else events:
        event = each.event
        causes.setdefault(event.id, event.causes)
        own = event.producer == f"{replayer.service}/{lane}" and hasattr(event.body, "rules")
        if not own and not isinstance(event.body, replayer.listens):
            continue
        # Whose id it is: nobody can take away another's decision by saying something under its id before.
        first = firsts.setdefault(("own" if own else "heard", event.id), each)
        if first is each:
            (outputs if own else inputs)[event.model].append(each)
        elif not _said_again(first, each):
            reused[event.id] = (first.position, each.position)
            if own:
                _note_reused(report, replayer, first, each)
    for model in sorted(inputs.keys() | outputs.keys()):
        said = sorted(outputs[model], key=lambda p: (p.event.epoch or 0, p.event.seq or 0))
        Model(replayer, lane, inputs[model], said, causes, known, report, reused).run()
    report.differences.sort(key=lambda d: d.position)
    report.unanswered.sort()
    return report


def _said_again(first: Placed, again: Placed) -> bool:
    """Whether it says the same: its number, time and causes may be others, where state was lost in between."""
    one, other = first.event, again.event
    if (one.type, one.model, one.subject) != (other.type, other.model, other.subject):
        return False
    differing = unlike(one.body, other.body)
    begun_anew = again.cluster > first.cluster or (other.attributes.epoch or 0) > (one.attributes.epoch or 0)
    return not differing or (begun_anew and differing <= _SAID_ANEW)


def _note_reused(report: Replayed, replayer: Replayer, first: Placed, again: Placed) -> None:
    event: Event[Any] = again.event
    report.decisions += 1
    report.differences.append(
        Difference(
            service=replayer.service,
            lane=report.lane,
            position=again.position,
            event_id=event.id,
            event_type=event.type,
            model=event.model,
            rules=event.body.rules,
            said=short(event.body),
            given=f"reused_id: this id is that of {short(first.event.body)} at position {first.position}",
        )
    )


def _lost_at(placed: Iterable[Placed]) -> list[int]:
    """Lengths that the lane's log had when a Kafka was lost and the bus restored from the log."""
    found = set[int]()
    for each in placed:
        body = each.event.body
        if isinstance(body, OperatorAction) and body.action == RESTORE_ACTION:
            with suppress(msgspec.DecodeError, TypeError, KeyError, ValueError):
                found.add(int(msgspec.json.decode(body.arguments_json)["size"]))
    return sorted(found)


def first_difference(reports: Iterable[Replayed]) -> Difference | None:
    """The first in the log of its lane; of several lanes, the lowest."""
    return min((d for r in reports for d in r.differences), key=lambda d: (d.lane, d.position), default=None)
