"""A lane of a service as it was before Kafka was lost: its state, from the log alone, signed by the service itself.

What a service has said is in the log, and its state follows from that: each service says how (`Restorer.recall`). What
it was told and has not answered yet is then decided on as if it had come just now, by its own rules. So nothing that
the log knows is decided differently, and nothing that waits is forgotten.

The lane speaks in a new epoch: under the old one it may have said what never reached the log, and whoever heard that
must not find another event under the same number. What is lost is lost with the old cluster: what was not yet in the
log, halts, dead letters, redriven input, and the progress of work, which begins again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import msgspec

from ai_infra.bus.agenda import work_key
from ai_infra.bus.batch import Batch, Outgoing
from ai_infra.bus.decision import Put
from ai_infra.bus.hearing import FORGET_IDS_AFTER
from ai_infra.bus.lane import Lane
from ai_infra.bus.service import Service
from ai_infra.bus.voice import Surroundings
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event
from ai_infra.events.generated import EventRefused, OperatorAction

RESTORE_ACTION: Final = "restore"


class NotRestorable(AiInfraError):
    """A lane cannot be brought back as it was."""

    code = "not_restorable"


@dataclass(frozen=True, slots=True)
class Past:
    """What one service has heard and said in a lane, as far as the log has it. Each event once."""

    said: Sequence[Event[Any]]
    """In the order in which it was said."""
    heard: Mapping[str, Event[Any]]
    """By id, in the order of the log."""
    refused: Collection[str]
    """Ids of what the service has refused for good."""
    caused: Mapping[str, Sequence[Event[Any]]]
    """By the id of an event: what was said with it as the first cause."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """State that follows from what was said, and the ids of what needs no answer any more. What was refused needs none
    anyway. Everything else that was heard is decided on again: by rules that see this state."""

    records: Sequence[Put]
    settled: Collection[str]


@dataclass(frozen=True, slots=True)
class Restorer:
    """How a service remembers. Services have it as `RESTORER` in a module `restoring`. Pure."""

    service: str
    events: frozenset[type]
    """What it hears and says, but for refusals, heartbeats and what operators do."""
    recall: Callable[[Past], Recalled]


@dataclass(frozen=True, slots=True)
class RestoredLane:
    """A lane's state, ready to be written in one transaction, and what people should know of it."""

    lane: int
    records: tuple[Outgoing, ...] = field(repr=False)
    state: int
    """Records of state."""
    epoch: int
    """Of what the service says from now on."""
    last: tuple[int, int] | None
    """Epoch and number of the last event of the service that is in the log."""
    again: tuple[str, ...]
    """Ids of events that were not answered, and lead to something now."""
    pending: tuple[str, ...]
    """Work that begins again when the service starts: `<kind>/<id>`."""
    said: int
    """Events that it says with this."""


def past_of(service: Service, lane: int, log: Sequence[Event[Any]]) -> Past:
    """What a service has to do with in a lane's log (in its order)."""
    producer, ids, numbers = f"{service.name}/{lane}", set[str](), set[tuple[str | None, int | None, int | None]]()
    said: list[Event[Any]] = []
    heard: dict[str, Event[Any]] = {}
    for event in log:
        number = (event.producer, event.epoch, event.seq)
        if event.id in ids or (event.seq is not None and number in numbers):
            continue  # said again after state was lost, or a second event under one number: the first one counts
        ids.add(event.id)
        numbers.add(number)
        if event.producer == producer:
            said.append(event)
        elif isinstance(event.body, service.listens):
            heard[event.id] = event
    said.sort(key=lambda e: (e.epoch or 0, e.seq or 0))
    caused: dict[str, list[Event[Any]]] = {}
    for event in said:
        if event.causes:
            caused.setdefault(event.causes[0].id, []).append(event)
    return Past(said, heard, _refused(service.name, producer, log), caused)


def _refused(service: str, producer: str, log: Sequence[Event[Any]]) -> set[str]:
    """Ids of events whose refusal stands; not of one that was redriven since, unless it was refused again."""
    refused: set[str] = set()
    for event in log:
        match event.body:
            case EventRefused(event_id=about) if event.producer == producer:
                refused.add(about)
            case OperatorAction(action="dlq.redrive", target=target) if target == service:
                with suppress(msgspec.DecodeError, KeyError, TypeError):
                    refused.discard(str(msgspec.json.decode(event.body.arguments_json)["event_id"]))
            case _ if event.producer == producer and event.causes:
                refused.discard(event.causes[0].id)
    return refused


def restore_lane(
    restorer: Restorer, surroundings: Surroundings, number: int, log: Sequence[Event[Any]]
) -> RestoredLane | None:
    """The lane, from the log's events in their order (those that the service hears or says; others do no harm). None
    where the log has nothing for this service. Raises NotRestorable."""
    service = surroundings.service
    past = past_of(service, number, log)
    numbers = [
        (e.epoch or 0, e.seq or 0) for e in log if e.producer == f"{service.name}/{number}" and e.seq is not None
    ]
    if not past.heard and not numbers:
        return None
    now_ms = int(surroundings.clock().timestamp() * 1000)
    last = max(numbers, default=None)
    epoch = max(now_ms, last[0] + 1 if last else 0)
    lane, batch = Lane(number, surroundings), Batch()
    spoken = max((int(e.time.timestamp() * 1000) for e in past.said), default=0)
    lane.begin(epoch, now_ms=max(now_ms, spoken))
    recalled = restorer.recall(past)
    for put in recalled.records:
        lane.state.put(put.id, put.record)
    settled = {*recalled.settled, *past.refused}
    again: list[str] = []
    for event in _by_number([event for event in past.heard.values() if event.id not in settled]):
        before = len(batch.outgoing), len(lane.to_start)
        lane.event(event, batch)
        if before != (len(batch.outgoing), len(lane.to_start)):
            again.append(event.id)
        if lane.halted is not None:
            raise NotRestorable(
                f"{service.name} fails in lane {number} on what it had not answered ({lane.halted.reason}): restore it "
                "with the version that wrote the log, or with one that has the fault mended"
            )
    since_ms = now_ms - FORGET_IDS_AFTER // timedelta(milliseconds=1)
    for event in past.heard.values():
        if event.id in settled and (event.seq is not None or event.record.append_time_ms >= since_ms):
            lane.recall(event, failed=event.id in past.refused)
    records = lane.state_records()
    return RestoredLane(
        lane=number,
        records=(*batch.outgoing, *records),
        state=len(records),
        epoch=epoch,
        last=last,
        again=tuple(again),
        pending=tuple(key for work in lane.to_start if lane.waits_for(key := work_key(work.kind, work.work_id))),
        said=sum(1 for o in batch.outgoing if not o.topic.endswith(".dlq")),
    )


def _by_number(events: Sequence[Event[Any]]) -> list[Event[Any]]:
    """In the order of the log, but each producer's events of a topic by their numbers: the log may have had one wait
    for its cause, and what comes behind a later number would count as heard before."""
    places: dict[tuple[str, str], list[int]] = {}
    for at, event in enumerate(events):
        if event.producer is not None:
            places.setdefault((event.type, event.producer), []).append(at)
    ordered = list(events)
    for found in places.values():
        mine = sorted((events[at] for at in found), key=lambda e: (e.epoch or 0, e.seq or 0))
        for at, event in zip(found, mine, strict=True):
            ordered[at] = event
    return ordered
