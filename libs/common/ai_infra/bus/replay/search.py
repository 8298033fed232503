"""The search for an order of hearing by which the rules give what one service said about one model. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Final

from ai_infra.bus.decision import Decision, Done, Refuse, Say, Tick, Trigger
from ai_infra.bus.fitting import fitting_subject
from ai_infra.bus.refusing import Sender, refusal
from ai_infra.bus.replay.asking import Asking, GivenUp
from ai_infra.bus.replay.comparing import different, runtime_codes, short, unfounded
from ai_infra.bus.replay.hearing import Hearing
from ai_infra.bus.replay.here import Here
from ai_infra.bus.replay.words import Difference, Disagrees, Known, Moment, Placed, Replayed, Replayer
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import EventRefused

_ORDERS: Final = 1_024  # orders of hearing that are tried for one decision, before it counts as unexplained
_BACK: Final = 8  # decisions that are taken back to look for another order
_VARIANTS: Final = 64  # ways to explain one of those that are tried
_DEPTH: Final = 8  # triggers in silence between a cause and what it led to: the longest chain of the rules is four


@dataclass(frozen=True, slots=True)
class _Explained:
    here: Here
    said: int
    """How many events the decision said."""
    carried: frozenset[str]


_Trail = list[tuple[int, Here]]
"""Indexes of events, and where the service stood before it said them."""


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
        reused: Mapping[str, tuple[int, int]],
    ) -> None:
        """`causes`: of every event in the lane, by its id. `reused`: ids of two different events, and where."""
        self._replayer, self._lane, self._known, self._report = replayer, lane, known, report
        self._outputs, self._reused = outputs, reused
        self._asking = Asking(replayer, lane, known)
        self._tells = replayer.tells([p.event for p in outputs])
        """By the id of an event: the one that carries what it rests on, which is mostly itself."""
        self._hearing = Hearing(replayer, inputs, outputs, causes, self._told, self._asking)
        self._topics, self._where = self._hearing.topics, self._hearing.where
        self._given: list[tuple[int, str]] = []
        self._refused: set[str] = set()

    def _told(self, said: Event[Any]) -> Event[Any]:
        return self._tells.get(said.id, said)

    def run(self) -> None:
        """Explain decision after decision, up to the first that no order of hearing explains."""
        here, index, before = Here(), 0, list[tuple[int, Here]]()
        while index < len(self._outputs):
            said = self._outputs[index].event
            self._given = []
            if self._before_rules(said):
                if why := self._unfounded(said):
                    self._given = [(0, f"no refusal: {why}")]
                    self._differs(index)
                    return
                self._report.before_rules += 1
                self._report.decisions += 1
                index += 1
                continue
            self._asking.begin()
            trail: _Trail = [(index, here)]
            try:
                found = self._explain(here, index, {})
                if found is None and (other := self._otherwise(before, index)) is not None:
                    found, trail = other
            except GivenUp:
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
        if not said.causes or said.body.rules not in self._asking.versions:
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
                self._hearing.hear_up_to(ahead, self._outputs[start], {})
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
            if not self._hearing.hear(must, cause.id, placed.event):
                return
        eager = must.copy()
        self._hearing.hear_up_to(eager, placed, caps)
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
            for each in self._hearing.silent(here, wanted):
                self._hearing.take(here, each, placed.event)
            if all(here.read.get(t, 0) == n for t, n in wanted.items()):
                yield here

    def _chain(self, here: Here, index: int, depth: int) -> _Explained | None:
        """From the first cause of an event to the event, over what was asked and answered in between."""
        said = self._outputs[index].event
        for after, trigger, carried in self._triggers(here, said):
            cause = said.causes[0]
            moment = self._replayer.moment(self._told(said))
            for now in dict.fromkeys((moment.now, said.time)):
                decided = self._asking.decide(after, trigger, Moment(now, moment.keyring, moment.policy), said)
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
            if again or number == 0 or self._hearing.hear(after, self._topics[topic][number - 1].event.id, said):
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
                decided = self._asking.decide(after, done, self._replayer.moment(self._told(said)), said)
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

    def _unfounded(self, said: Event[Any]) -> str:
        """Why what was refused before any rules can't have been refused; nothing where it may have been."""
        topic, number = self._where.get(said.body.event_id, ("", -1))
        refused = self._topics[topic][number].event if topic else None
        if refused is None or refused.hash != said.body.event_hash:
            return ""
        return unfounded(said, refused, self._known)

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
        if event.body.rules not in self._asking.versions:
            given = f"unknown: there are no rules {event.body.rules!r}, only {', '.join(sorted(self._asking.versions))}"
        elif (twice := self._reused.get(event.causes[0].id if event.causes else "")) is not None:
            given = f"unknown: under the id of its cause two things were said, at positions {twice[0]} and {twice[1]}"
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
        self._asking.begin(sum(map(len, self._topics.values())))
        for topic, all_ in self._topics.items():
            for each in all_[here.read.get(topic, 0) :]:
                if not self._hearing.take(here, each, rules.event, later=True):
                    self._report.unanswered.append(each.position)
                    here.read[topic] = here.read.get(topic, 0) + 1
