"""What one service has heard, in which order: its inputs, topic by topic, as far as it said nothing to them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ai_infra.bus.decision import Decision
from ai_infra.bus.replay.asking import Asking
from ai_infra.bus.replay.here import Here
from ai_infra.bus.replay.words import Moment, Placed, Replayer
from ai_infra.events.event import Cause, Event


class Hearing:
    """The inputs of one service that are about one model, and what is known of when they were heard."""

    def __init__(
        self,
        replayer: Replayer,
        inputs: list[Placed],
        outputs: list[Placed],
        causes: Mapping[str, tuple[Cause, ...]],
        told: Callable[[Event[Any]], Event[Any]],
        asking: Asking,
    ) -> None:
        """`causes`: of every event in the lane, by its id. `told`: the event that carries what one rests on."""
        self._replayer, self._outputs, self._causes, self._told, self._asking = replayer, outputs, causes, told, asking
        self.topics: dict[str, list[Placed]] = defaultdict(list)
        for each in sorted(inputs, key=lambda p: (p.cluster, p.event.record.offset)):
            self.topics[each.event.type].append(each)
        self.where = {p.event.id: (topic, n) for topic, all_ in self.topics.items() for n, p in enumerate(all_)}
        """By an event's id: its topic, and which one of that it is. Nothing for what is no input."""
        self._led_to: dict[str, Event[Any]] = {}
        for each in outputs:
            if each.event.causes:
                self._led_to.setdefault(each.event.causes[0].id, told(each.event))
        self._index = {p.event.id: n for n, p in reversed([*enumerate(outputs)])}
        self._behind: dict[str, int] = {}
        self._meeting: set[str] = set()

    def silent(self, here: Here, wanted: Mapping[str, int]) -> list[Placed]:
        """What is still to be heard of the topics, in the log's order."""
        return sorted(
            (p for topic, upto in wanted.items() for p in self.topics[topic][here.read.get(topic, 0) : upto]),
            key=lambda p: p.position,
        )

    def hear_up_to(self, here: Here, placed: Placed, caps: Mapping[str, int]) -> None:
        """Hear in silence what the log has before this event; a topic ends where an event has an answer of its own."""
        ended: set[str] = set()
        for each in self.silent(here, {t: caps.get(t, len(all_)) for t, all_ in self.topics.items()}):
            topic = each.event.type
            if each.position < placed.position and topic not in ended and not self.take(here, each, placed.event):
                ended.add(topic)

    def hear(self, here: Here, event_id: str, said: Event[Any]) -> bool:
        """Have an event heard in silence, and those before it on its topic. True also for what is no input."""
        topic, number = self.where.get(event_id, ("", -1))
        waiting = self.topics[topic][here.read.get(topic, 0) : number + 1] if topic else []
        return all(self.take(here, each, said) for each in waiting)

    def take(self, here: Here, placed: Placed, said: Event[Any], *, later: bool = False) -> bool:
        """Hear one event, if it is the next of its topic and the rules say nothing to it."""
        event = placed.event
        if self.where[event.id] != (event.type, here.read.get(event.type, 0)):
            return False
        if not later and self._follows(event.id) > self._index[said.id]:
            return False  # it goes back to something that this service had not yet said
        self._hear_what_it_met(here, event, said)
        if self.where[event.id] != (event.type, here.read.get(event.type, 0)):
            return False
        decided = self._asking.decide(here, event, self._heard_at(event, said), said)
        if not isinstance(decided, Decision) or decided.events:
            return False
        here.apply(decided, Cause(event.id, event.lane))
        here.read[event.type] = here.read.get(event.type, 0) + 1
        return True

    def _hear_what_it_met(self, here: Here, event: Event[Any], said: Event[Any]) -> None:
        """What led to a decision was the last that it waited for: hear what that names from other topics first."""
        led_to = self._led_to.get(event.id)
        if led_to is None or event.id in self._meeting:
            return
        self._meeting.add(event.id)
        for cause in led_to.causes[1:]:
            if self.where.get(cause.id, ("", 0))[0] not in ("", event.type):
                self.hear(here, cause.id, said)
        self._meeting.discard(event.id)

    def _heard_at(self, event: Event[Any], said: Event[Any]) -> Moment:
        """When an event was decided on: as what it led to tells; if nothing, as early as it can have been."""
        led_to = self._led_to.get(event.id)
        if led_to is not None:
            return self._replayer.moment(led_to)
        moment, index = self._replayer.moment(self._told(said)), self._index[said.id]
        earliest = max(event.append_time, self._outputs[index - 1].event.time) if index else event.append_time
        return replace(moment, now=min(moment.now, earliest))

    def _follows(self, event_id: str) -> int:
        """How much this service had said at the least when that event could first be heard."""
        waiting = [event_id]
        while waiting:
            each = waiting[-1]
            causes = [c.id for c in self._causes.get(each, ()) if c.id != each]
            unknown = [c for c in causes if c not in self._behind and c not in waiting]
            if unknown:
                waiting += unknown
                continue
            own = self._index.get(each, -1) + 1
            self._behind[waiting.pop()] = max([own, *(self._behind.get(c, 0) for c in causes)])
        return self._behind[event_id]
