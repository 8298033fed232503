"""The order of a lane: causes first, nothing lost, nobody waits for what will never come."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra_indexer.order import Arrival, CauseOrder, Source

TOPICS = ("a", "b", "c")


def arrival(event_id: str, causes: tuple[str, ...] = (), topic: str = "a", offset: int = 0) -> Arrival[str]:
    return Arrival(event_id, causes, (topic, 0), offset, event_id)


@st.composite
def histories(draw: st.DrawFn) -> list[Arrival[str]]:
    """Events in a causal order, each on a topic; some name causes that never come."""
    count = draw(st.integers(1, 14))
    offsets = dict.fromkeys(TOPICS, 0)
    events: list[Arrival[str]] = []
    for n in range(count):
        topic = draw(st.sampled_from(TOPICS))
        causes = draw(st.sets(st.integers(0, max(0, n - 1)), max_size=3)) if n else set()
        ghosts = draw(st.lists(st.just(f"ghost-{n}"), max_size=1))
        events.append(arrival(str(n), (*map(str, causes), *ghosts), topic, offsets[topic]))
        offsets[topic] += 1
    return events


@settings(max_examples=examples(60))
@given(histories(), st.data())
def test_every_event_comes_once_and_after_its_causes(events: list[Arrival[str]], data: st.DataObject) -> None:
    by_topic = {topic: [e for e in events if e.source[0] == topic] for topic in TOPICS}
    ends: Mapping[Source, int] = {(topic, 0): len(found) for topic, found in by_topic.items()}
    order: CauseOrder[str] = CauseOrder()
    read_to: dict[Source, int] = dict.fromkeys(ends, 0)
    log: list[str] = []
    missing: dict[str, tuple[str, ...]] = {}
    while any(by_topic.values()) or len(order):
        batch: list[Arrival[str]] = []
        for topic in data.draw(st.permutations(TOPICS)):
            taken = data.draw(st.integers(0, len(by_topic[topic])))
            if not len(order) and not any(by_topic[t] for t in TOPICS if t != topic):
                taken = len(by_topic[topic])
            batch += by_topic[topic][:taken]
            by_topic[topic] = by_topic[topic][taken:]
            read_to[(topic, 0)] += taken
        for placed in order.place(batch, known=set(log), read_to=read_to, ends=lambda: ends):
            log.append(placed.item)
            missing[placed.item] = placed.missing
    assert sorted(log) == sorted(e.id for e in events)
    position = {event_id: n for n, event_id in enumerate(log)}
    for event in events:
        for cause in event.causes:
            if cause in position:
                assert position[cause] < position[event.id]
            else:
                assert cause in missing[event.id]


def test_an_effect_waits_for_its_cause_and_its_offset_is_kept() -> None:
    order: CauseOrder[str] = CauseOrder()
    ends = {("a", 0): 1, ("b", 0): 1}
    held = order.place([arrival("effect", ("cause",), "b", 0)], known=(), read_to={("b", 0): 1}, ends=lambda: ends)
    assert held == []
    assert order.lowest_held(("b", 0)) == 0
    placed = order.place([arrival("cause")], known=(), read_to=ends, ends=lambda: ends)
    assert [p.item for p in placed] == ["cause", "effect"]
    assert order.lowest_held(("b", 0)) is None


def test_a_cause_that_is_not_there_when_the_topics_were_read_is_given_up_and_named() -> None:
    order: CauseOrder[str] = CauseOrder()
    ends = {("a", 0): 5, ("b", 0): 1}
    assert (
        order.place([arrival("e", ("gone",), "b")], known=(), read_to={("a", 0): 4, ("b", 0): 1}, ends=lambda: ends)
        == []
    )
    [placed] = order.place([], known=(), read_to={("a", 0): 5, ("b", 0): 1}, ends=lambda: {("a", 0): 99})
    assert (placed.item, placed.missing) == ("e", ("gone",))


def test_two_events_that_name_each_other_are_given_up_together() -> None:
    order: CauseOrder[str] = CauseOrder()
    both = [arrival("x", ("y",)), arrival("y", ("x",), offset=1)]
    placed = order.place(both, known=(), read_to={("a", 0): 2}, ends=lambda: {("a", 0): 2})
    assert [(p.item, p.missing) for p in placed] == [("x", ("y",)), ("y", ())]


class Ends:
    """The ends of the topics, which are far; and how often they were asked for."""

    asked = 0

    def __call__(self) -> Mapping[Source, int]:
        self.asked += 1
        return {("a", 0): 10**9, ("b", 0): 1}


def names_what_never_comes(count: int) -> list[Arrival[str]]:
    """A chain, each link of which waits for the one before and for somebody who never comes; and pairs that wait for
    each other."""
    chain = [arrival(f"c{n}", (f"c{n - 1}", f"nobody-{n}"), offset=n) for n in range(count)]
    return chain + [arrival(f"p{n}", (f"p{n ^ 1}",), offset=count + n) for n in range(count)]


class Step(str):
    """The id of an event that counts how often an order looks at it."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Step.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)


def looks(count: int) -> int:
    """How often the ids are looked at until all is placed."""
    Step.looks = 0
    order: CauseOrder[str] = CauseOrder()
    events = [
        Arrival(Step(e.id), tuple(map(Step, e.causes)), e.source, e.offset, e.item)
        for e in names_what_never_comes(count)
    ]
    placed = order.place(events, known=(), read_to={("a", 0): 1}, ends=lambda: {("a", 0): 1})
    assert len(placed) == len(events)
    return Step.looks


def test_causes_that_never_come_chains_and_circles_of_them_cost_some_steps_each() -> None:
    assert looks(2_000) < 2.5 * looks(1_000)


def test_a_source_of_which_much_is_held_is_full_and_what_waits_for_more_of_it_goes_on() -> None:
    order: CauseOrder[str] = CauseOrder(full=3)
    ends, read_to = Ends(), {("a", 0): 3, ("b", 0): 0}
    events = [arrival(f"e{n}", ("nobody",), offset=n) for n in range(3)]
    assert order.place(events, known=(), read_to=read_to, ends=ends) == []
    assert order.full == {("a", 0)}
    placed = order.place([], known=(), read_to={("a", 0): 3, ("b", 0): 1}, ends=ends)
    assert [p.item for p in placed] == ["e0", "e1", "e2"]
    assert (order.full, ends.asked) == (frozenset(), 1)


def test_an_event_that_names_itself_waits_for_nobody() -> None:
    order: CauseOrder[str] = CauseOrder()
    placed = order.place([arrival("x", ("x",))], known=(), read_to={}, ends=dict)
    assert [p.item for p in placed] == ["x"]


def test_a_cause_that_is_in_the_log_already_is_not_waited_for() -> None:
    order: CauseOrder[str] = CauseOrder()
    placed = order.place([arrival("e", ("old",))], known=("old",), read_to={}, ends=dict)
    assert [p.item for p in placed] == ["e"]
