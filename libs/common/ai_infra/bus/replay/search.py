"""The search for an order of hearing by which the rules give what one service said about one model. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any, Final

from ai_infra.bus.decision import NO_POLICY, Context, Decision, Done, Refuse, Say, Tick, Trigger
from ai_infra.bus.fitting import fitting_subject
from ai_infra.bus.refusing import Sender, refusal
from ai_infra.bus.replay.comparing import different, runtime_codes, short
from ai_infra.bus.replay.here import Here
from ai_infra.bus.replay.words import Difference, Disagrees, Known, Moment, Placed, Replayed, Replayer
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import EventRefused

_ORDERS: Final = 1_024  # orders of hearing that are tried for one decision, before it counts as unexplained
_BACK: Final = 8  # decisions that are taken back to look for another order
_VARIANTS: Final = 64  # ways to explain one of those that are tried
_TRIES: Final = 30_000  # calls of `decide` for one decision: some seconds
_DEPTH: Final = 8  # triggers in silence between a cause and what it led to: the longest chain of the rules is four


@dataclass(frozen=True, slots=True)
class _Explained:
    here: Here
    said: int
    """How many events the decision said."""
    carried: frozenset[str]


_Trail = list[tuple[int, Here]]
"""Indexes of events, and where the service stood before it said them."""


class _GivenUp(Exception):
    """As many orders of hearing were tried as there is time for."""


class Model:
    """One service's decisions about one model."""

    def __init__(
        self,
        replayer: Replayer,
        lane: int,
        inputs: list[Placed],
        outputs: list[Placed],
        causes: Mapping[str, tuple[Cause, ...]],
        known: Known,
        report: Replayed,
    ) -> None:
        """`causes`: of every event in the lane, by its id."""
        self._replayer, self._lane, self._known, self._report = replayer, lane, known, report
        self._outputs = outputs
        self._versions = replayer.versions(known)
        self._topics: dict[str, list[Placed]] = defaultdict(list)
        for each in sorted(inputs, key=lambda p: (p.cluster, p.event.record.offset)):
            self._topics[each.event.type].append(each)
        self._where = {p.event.id: (topic, n) for topic, all_ in self._topics.items() for n, p in enumerate(all_)}
        self._tells = replayer.tells([p.event for p in outputs])
        """By the id of an event: the one that carries what it rests on, which is mostly itself."""
        self._led_to: dict[str, Event[Any]] = {}
        for each in outputs:
            if each.event.causes:
                self._led_to.setdefault(each.event.causes[0].id, self._told(each.event))
        self._index = {p.event.id: n for n, p in reversed([*enumerate(outputs)])}
        self._causes = causes
        self._behind: dict[str, int] = {}
        self._given: list[tuple[int, str]] = []
        self._refused: set[str] = set()
        self._meeting: set[str] = set()
        self._tries = _TRIES

    def _told(self, said: Event[Any]) -> Event[Any]:
        return self._tells.get(said.id, said)

    def run(self) -> None:
        """Explain decision after decision, up to the first that no order of hearing explains."""
        here, index, before = Here(), 0, list[tuple[int, Here]]()
        while index < len(self._outputs):
            said = self._outputs[index].event
            self._given = []
            if self._before_rules(said):
                self._report.before_rules += 1
                self._report.decisions += 1
                index += 1
                continue
            self._tries = _TRIES
            trail: _Trail = [(index, here)]
            try:
                found = self._explain(here, index, {})
                if found is None and (other := self._otherwise(before, index)) is not None:
                    found, trail = other
            except _GivenUp:
                found = None
            if found is None:
                self._differs(index)
                return
            before = [*(place for place in before if place[0] < trail[0][0]), *trail][-_BACK:]
            upto = trail[-1][0] + found.said
            self._count(found, upto - index)
            if isinstance(said.body, EventRefused) and said.causes:
                self._refused.add(said.causes[0].id)
            here, index = found.here, upto
        self._note_unanswered(here)

    # -- explaining

    def _explain(self, base: Here, index: int, caps: Mapping[str, int]) -> _Explained | None:
        """The decision that said the event at `index`, and what follows from it."""
        return next(self._explanations(base, index, caps), None)

    def _explanations(self, base: Here, index: int, caps: Mapping[str, int]) -> Iterator[_Explained]:
        """The same by every order of hearing, the likeliest first."""
        said = self._outputs[index].event
        if not said.causes or said.body.rules not in self._versions:
            return
        for here in self._hearings(base, index, caps):
            found = self._chain(here, index, _DEPTH)
            if found is not None:
                yield found

    def _otherwise(self, before: Sequence[tuple[int, Here]], index: int) -> tuple[_Explained, _Trail] | None:
        """With another order of hearing from some decisions ago: this work had ended, or that topic was behind."""
        for start, here in reversed(before):
            for first, ahead, caps in self._others(here, start, index):
                found = self._span(ahead, first, index, caps)
                if found is not None:
                    return found
        return None

    def _others(self, here: Here, start: int, index: int) -> Iterator[tuple[int, Here, Mapping[str, int]]]:
        """Where else the service may have stood before it said the event at `start`, or after it."""
        read = {topic: here.read.get(topic, 0) for topic in self._topics}
        for caps in (read, *({topic: number} for topic, number in read.items())):
            yield start, here, caps
        for lazy, behind in product((True, False), (False, True)):
            ahead = here.copy()
            if not lazy:
                self._hear_up_to(ahead, self._outputs[start], {})
            if behind:  # what was said at `start` had its turn before
                self._advance(ahead, self._outputs[start].event)
            if self._advance(ahead, self._outputs[index].event):
                yield start, ahead, {}
        for other in islice(self._explanations(here, start, {}), _VARIANTS):
            if start + other.said > index:
                continue
            read = {topic: other.here.read.get(topic, 0) for topic in self._topics}
            yield start + other.said, other.here, {}
            yield start + other.said, other.here, read

    def _span(self, here: Here, start: int, index: int, caps: Mapping[str, int]) -> tuple[_Explained, _Trail] | None:
        """From one place over the event at `index`, and where it stood before each decision on the way."""
        trail: _Trail = []
        while True:
            found = self._explain(here, start, caps if start < index else {})
            if found is None:
                return None
            trail.append((start, here))
            if start + found.said > index:
                return found, trail
            here, start = found.here, start + found.said

    def _hearings(self, base: Here, index: int, caps: Mapping[str, int]) -> Iterator[Here]:
        """What may have been heard before: all that the log has up to here first, then less, then more of it."""
        placed = self._outputs[index]
        must = base.copy()
        for cause in placed.event.causes[1:]:
            if not self._hear(must, cause.id, placed.event):
                return
        eager = must.copy()
        self._hear_up_to(eager, placed, caps)
        yield eager
        yield must.copy()
        topics = [t for t, all_ in self._topics.items() if must.read.get(t, 0) < len(all_)]
        ranges = []
        for topic in topics:
            first, upto = must.read.get(topic, 0), eager.read.get(topic, 0)
            more = range(upto + 1, min(len(self._topics[topic]), upto + 3) + 1)
            ranges.append([*range(upto, first - 1, -1), *more] if topic not in caps else [first])
        for counts in islice(product(*ranges), _ORDERS):
            here, wanted = must.copy(), dict(zip(topics, counts, strict=True))
            for each in self._silent(here, wanted):
                self._take(here, each, placed.event)
            if all(here.read.get(t, 0) == n for t, n in wanted.items()):
                yield here

    def _silent(self, here: Here, wanted: Mapping[str, int]) -> list[Placed]:
        """What is still to be heard of the topics, in the log's order."""
        return sorted(
            (p for topic, upto in wanted.items() for p in self._topics[topic][here.read.get(topic, 0) : upto]),
            key=lambda p: p.position,
        )

    def _hear_up_to(self, here: Here, placed: Placed, caps: Mapping[str, int]) -> None:
        """Hear in silence what the log has before this event; a topic ends where an event has an answer of its own."""
        ended: set[str] = set()
        for each in self._silent(here, {t: caps.get(t, len(all_)) for t, all_ in self._topics.items()}):
            topic = each.event.type
            if each.position < placed.position and topic not in ended and not self._take(here, each, placed.event):
                ended.add(topic)

    def _hear(self, here: Here, event_id: str, said: Event[Any]) -> bool:
        """Have an event heard in silence, and those before it on its topic. True also for what is no input."""
        topic, number = self._where.get(event_id, ("", -1))
        waiting = self._topics[topic][here.read.get(topic, 0) : number + 1] if topic else []
        return all(self._take(here, each, said) for each in waiting)

    def _take(self, here: Here, placed: Placed, said: Event[Any], *, later: bool = False) -> bool:
        """Hear one event, if it is the next of its topic and the rules say nothing to it."""
        event = placed.event
        if self._where[event.id] != (event.type, here.read.get(event.type, 0)):
            return False
        if not later and self._follows(event.id) > self._index[said.id]:
            return False  # it goes back to something that this service had not yet said
        self._hear_what_it_met(here, event, said)
        if self._where[event.id] != (event.type, here.read.get(event.type, 0)):
            return False
        decided = self._decide(here, event, self._heard_at(event, said), said)
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
            if self._where.get(cause.id, ("", 0))[0] not in ("", event.type):
                self._hear(here, cause.id, said)
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

    def _chain(self, here: Here, index: int, depth: int) -> _Explained | None:
        """From the first cause of an event to the event, over what was asked and answered in between."""
        said = self._outputs[index].event
        for after, trigger, carried in self._triggers(here, said):
            cause = said.causes[0]
            moment = self._replayer.moment(self._told(said))
            for now in dict.fromkeys((moment.now, said.time)):
                decided = self._decide(after, trigger, Moment(now, moment.keyring, moment.policy), said)
                if decided is None:
                    continue
                speaks = isinstance(decided, Refuse) or bool(decided.events)
                if speaks != (now == said.time) and moment.now != said.time:
                    continue  # what says an event is decided at the event's time, what led to it before
                then = after.copy()
                then.carried[cause] = then.carried.get(cause, frozenset()) | carried
                if isinstance(decided, Decision):
                    then.apply(decided, cause)
                if speaks:
                    count = self._matches(decided, trigger, index)
                    if count:
                        return _Explained(then, count, then.carried.pop(cause))
                elif depth and (found := self._chain(then, index, depth - 1)) is not None:
                    return found
        return None

    def _triggers(self, here: Here, said: Event[Any]) -> Iterator[tuple[Here, Trigger, frozenset[str]]]:
        """What may have been the trigger: the cause itself, work or a timer that goes back to it."""
        cause = said.causes[0]
        topic, number = self._where.get(cause.id, ("", -1))
        if topic and (here.read.get(topic, 0) <= number or cause.id in self._refused):
            after = here.copy()
            again = here.read.get(topic, 0) > number
            if again or number == 0 or self._hear(after, self._topics[topic][number - 1].event.id, said):
                if not again:
                    after.read[topic] = number + 1
                yield after, self._topics[topic][number].event, frozenset()
        for after, done, carried in self._dones(here, said):
            if done.cause == cause:
                yield after, done, carried
        for key, (at, set_by) in here.timers.items():
            if set_by == cause and self._replayer.ticks(key, at, said):
                after = here.copy()
                del after.timers[key]
                yield after, Tick("replayed", key, at, said.model, cause), frozenset()

    def _dones(self, here: Here, said: Event[Any]) -> Iterator[tuple[Here, Done, frozenset[str]]]:
        for key, asked in here.work.items():
            try:
                for answer in self._replayer.answers(asked, said, self._told(said), self._known):
                    after = here.copy()
                    del after.work[key]
                    done = Done(
                        "replayed", asked.kind, asked.id, asked.args, answer.result, answer.error, 1, said.model,
                        asked.cause,
                    )  # fmt: skip
                    yield after, done, frozenset(answer.carried)
            except Disagrees as error:
                self._given.append((1, error.message))

    def _advance(self, here: Here, said: Event[Any]) -> bool:
        """End, in silence, the work that this event needs. False where there is none."""
        ended, kinds = False, {type(said.body)}
        for _ in range(_DEPTH):
            for after, done, carried in self._dones(here, said):
                decided = self._decide(after, done, self._replayer.moment(self._told(said)), said)
                if isinstance(decided, Decision) and decided.events and type(decided.events[0].body) not in kinds:
                    self._given.append((50, f"{short(decided.events[0].body)}, which is no {said.type}"))
                if isinstance(decided, Decision) and not decided.events:
                    after.apply(decided, done.cause)
                    after.carried[done.cause] = after.carried.get(done.cause, frozenset()) | carried
                    here.records, here.work, here.timers, here.carried = (
                        after.records, after.work, after.timers, after.carried,
                    )  # fmt: skip
                    ended = True
                    break
            else:
                break
        return ended

    def _decide(self, here: Here, trigger: Trigger, moment: Moment, said: Event[Any]) -> Decision | Refuse | None:
        self._tries -= 1
        if self._tries < 0:
            raise _GivenUp
        policy = self._known.policies.get(moment.policy, NO_POLICY)
        context = Context(
            now=moment.now,
            lane=self._lane,
            service=self._replayer.service,
            rules=said.body.rules,
            keyring=moment.keyring,
            policy=policy,
        )
        try:
            return self._versions[said.body.rules](here, trigger, context)
        except Refuse as refused:
            return refused
        except (KeyError, ValueError, TypeError, AttributeError):
            return None  # in this order of hearing the rules have no answer

    # -- comparing

    def _matches(self, decided: Decision | Refuse, trigger: Trigger, index: int) -> int:
        """How many events the decision says, if they are those in the log from `index` on; else 0."""
        said = self._outputs[index].event
        cause = said.causes[0]
        if isinstance(decided, Refuse):
            if not isinstance(trigger, Event):
                return 0
            service, rules = self._replayer.service, said.body.rules
            body = refusal(Sender.of(trigger), trigger.type, decided.reasons, service=service, rules=rules)
            says = [Say(body, subject=trigger.id)]
        else:
            says = list(decided.events)
        found = self._outputs[index : index + len(says)]
        for n, say in enumerate(says):
            if n >= len(found):
                self._given.append((0, f"{short(say.body)} after it"))
                return 0
            event = found[n].event
            unequal = different(event.body, say.body)
            if event.causes != (cause, *say.causes):
                unequal.append(f"causes {[c.id for c in (cause, *say.causes)]}, not {[c.id for c in event.causes]}")
            if event.subject != fitting_subject(say.subject):
                unequal.append(f"subject {say.subject!r}, not {event.subject!r}")
            if unequal:
                same = type(event.body) is type(say.body)
                text = "; ".join(unequal) if same else f"{short(say.body)}, which is no {event.type}"
                self._given.append((2 + len(unequal) if same else 100, text))
                return 0
        return len(says)

    def _before_rules(self, said: Event[Any]) -> bool:
        body = said.body
        return isinstance(body, EventRefused) and bool(body.reasons) and body.reasons[0].code in runtime_codes()

    def _count(self, found: _Explained, said: int) -> None:
        self._report.decisions += said
        if found.carried:
            self._report.checked += said
            for name in found.carried:
                self._report.carried[name] = self._report.carried.get(name, 0) + said
        else:
            self._report.recomputed += said

    def _differs(self, index: int) -> None:
        placed = self._outputs[index]
        event = placed.event
        given = "nothing: by no order of hearing do its causes lead to a decision"
        if event.body.rules not in self._versions:
            given = f"unknown: there are no rules {event.body.rules!r}, only {', '.join(sorted(self._versions))}"
        elif self._given:
            given = min(self._given, key=lambda g: g[0])[1]
        self._report.differences.append(
            Difference(
                service=self._replayer.service,
                lane=self._lane,
                position=placed.position,
                event_id=event.id,
                event_type=event.type,
                model=event.model,
                rules=event.body.rules,
                said=short(event.body),
                given=given,
            )
        )
        self._report.decisions += len(self._outputs) - index
        self._report.unexamined += len(self._outputs) - index - 1

    def _note_unanswered(self, here: Here) -> None:
        """What was heard last, or should have been."""
        rules = self._outputs[-1] if self._outputs else None
        if rules is None:
            return  # nothing was ever said of this model, so by no rules
        self._tries = _TRIES + sum(map(len, self._topics.values()))
        for topic, all_ in self._topics.items():
            for each in all_[here.read.get(topic, 0) :]:
                if not self._take(here, each, rules.event, later=True):
                    self._report.unanswered.append(each.position)
                    here.read[topic] = here.read.get(topic, 0) + 1
