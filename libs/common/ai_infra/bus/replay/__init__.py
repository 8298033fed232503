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

import msgspec

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
from ai_infra.events.event import Cause
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


def replay(replayer: Replayer, lane: int, placed: Iterable[Placed], known: Known) -> Replayed:
    """Decide again everything that a service has said in a lane. `placed`: the lane's events, in the log's order."""
    report = Replayed(replayer.service, lane)
    inputs: dict[str, list[Placed]] = defaultdict(list)
    outputs: dict[str, list[Placed]] = defaultdict(list)
    causes: dict[str, tuple[Cause, ...]] = {}
    events = list(placed)
    lost = _lost_at(events)
    for each in (replace(p, cluster=bisect_right(lost, p.position)) for p in events) if lost else events:
        event = each.event
        if event.id in causes:
            continue  # said again after its state was lost: what it means is known
        causes[event.id] = event.causes
        if event.producer == f"{replayer.service}/{lane}" and hasattr(event.body, "rules"):
            outputs[event.model].append(each)
        elif isinstance(event.body, replayer.listens):
            inputs[event.model].append(each)
    for model in sorted(inputs.keys() | outputs.keys()):
        said = sorted(outputs[model], key=lambda p: (p.event.epoch or 0, p.event.seq or 0))
        Model(replayer, lane, inputs[model], said, causes, known, report).run()
    report.differences.sort(key=lambda d: d.position)
    report.unanswered.sort()
    return report


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
