"""What is missing, equivocal or doubled is found exactly, whatever the order of arrival: against a naive model."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.events.event import Cause
from ai_infra.events.generated import EventRefused, JobStatusKind, ProducerHeartbeat, Reason
from ai_infra_indexer.completeness.ledger import Equivocation, Gap, LaneCompleteness, Ledger, Said
from ai_infra_indexer.completeness.numbers import Numbers
from ai_infra_indexer.completeness.reading import said_in
from ai_infra_indexer.sequence import sequence


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def event(seq: int, *, which: str = "", producer: str = "trainer/0", epoch: int = 1, prev: str | None = None) -> Said:
    """An event of a producer that tells the truth about the one before, unless told otherwise."""
    name = f"{producer}/{epoch}"
    before = prev if prev is not None else (digest(f"{name}/{seq - 1}") if seq > 1 else None)
    own = digest(f"{name}/{seq}{which}")
    return Said(0, "job.status", own, "trainer-1", own, 0, producer, epoch, seq, before)


def ledger_of(said: list[Said], *, settle_ms: int = 0, step_ms: int = 1000) -> LaneCompleteness:
    ledger = Ledger(0)
    for position, item in enumerate(said):
        ledger.take(replace(item, position=position, append_ms=position * step_ms))
    return ledger.report(settle_ms=settle_ms)


@given(st.lists(st.integers(1, 60)), st.integers(0, 70))
def test_a_set_of_numbers_is_the_naive_set(added: list[int], named: int) -> None:
    numbers, model = Numbers(), set[int]()
    for number in added:
        assert numbers.add(number) is (number not in model)
        model.add(number)
    numbers.name(named)
    top = max([*model, named], default=0)
    missing = [n for first, last in numbers.gaps() for n in range(first, last + 1)]
    assert missing == [n for n in range(1, top + 1) if n not in model]
    assert (numbers.count, numbers.last) == (len(model), max(model, default=0))
    assert all((n in numbers) == (n in model) for n in range(62))
    ranges = list(numbers.ranges())
    assert all(a[1] + 1 < b[0] for a, b in pairwise(ranges))
    assert list(Numbers(ranges, named).gaps()) == list(numbers.gaps())


_SAID = st.tuples(
    st.sampled_from(["trainer/0", "registry/0"]), st.integers(1, 2), st.integers(1, 12), st.sampled_from(["", "", "x"])
)


@given(st.lists(_SAID, max_size=40), st.lists(st.tuples(st.integers(1, 2), st.integers(1, 15)), max_size=3))
def test_the_ledger_is_the_naive_model(said: list[tuple[str, int, int, str]], beats: list[tuple[int, int]]) -> None:
    entries = [event(seq, which=which, producer=producer, epoch=epoch) for producer, epoch, seq, which in said]
    high = max((e.seq or 0 for e in entries if (e.producer, e.epoch) == ("trainer/0", 1)), default=0)
    for number, (epoch, seq) in enumerate(beats, start=20 + high):
        # A heartbeat is itself a numbered event of epoch 1; here it may name anything.
        entries.append(replace(event(number), beat=(epoch, seq, "")))
    report = ledger_of(entries)

    first: dict[tuple[str, int, int], str] = {}
    logged, doubled, expected = set(), [], defaultdict[tuple[str, int, int], set[str]](set)
    top: dict[tuple[str, int], int] = defaultdict(int)
    for position, item in enumerate(entries):
        assert item.producer is not None
        assert item.epoch is not None
        assert item.seq is not None
        key = (item.producer, item.epoch, item.seq)
        top[key[:2]] = max(top[key[:2]], item.seq)
        if item.beat is not None:
            beaten = (item.producer, item.beat[0])
            top[beaten] = max(top[beaten], item.beat[1])
        if key not in first:
            first[key] = item.event_hash
            if item.prev is not None and item.seq > 1:
                expected[(item.producer, item.epoch, item.seq - 1)].add(item.prev)
        elif first[key] == item.event_hash:
            doubled.append(position)
        else:
            logged.add((*key, position))
    missing = {(p, e, n) for (p, e), last in top.items() for n in range(1, last + 1) if (p, e, n) not in first}
    broken = {k for k, hashes in expected.items() if len(hashes | ({first[k]} if k in first else set())) > 1}

    assert {(g.producer, g.epoch, n) for g in report.gaps for n in range(g.first, g.last + 1)} == missing
    assert {(e.producer, e.epoch, e.seq, e.position) for e in report.equivocations if e.logged} == logged
    assert {(e.producer, e.epoch, e.seq) for e in report.equivocations if not e.logged} == broken
    assert list(report.doubled) == doubled
    assert report.complete == (not missing and not logged and not broken and not doubled)
    for gap in report.gaps:
        shows = entries[gap.shown_by]
        assert shows.producer == gap.producer
        assert shows.seq == gap.last + 1 or (shows.beat is not None and shows.beat[1] >= gap.last)


@given(st.permutations([event(n) for n in range(1, 9)]))
def test_what_arrives_in_any_order_is_complete_once_all_is_there(said: list[Said]) -> None:
    report = ledger_of(said)
    assert report.complete
    assert [(p.events, p.last, p.missing) for p in report.producers] == [(8, 8, 0)]


def test_a_gap_is_open_until_the_lane_has_gone_on_for_long_enough() -> None:
    said = [event(1), event(3), event(4)]
    assert ledger_of(said, settle_ms=1001).gaps == (Gap("trainer/0", 1, 2, 2, 1, False, False),)
    assert ledger_of(said, settle_ms=1001).complete
    report = ledger_of([*said, event(5)], settle_ms=1001)
    assert [(g.settled, g.withheld) for g in report.gaps] == [(True, 1)]
    assert not report.complete
    assert ledger_of([*said, event(5), event(2)], settle_ms=0).complete


def test_a_heartbeat_that_names_a_later_number_shows_what_is_missing_at_the_end() -> None:
    beat = replace(event(3), beat=(1, 7, digest("trainer/0/1/7")))
    report = ledger_of([event(1), event(2), beat])
    assert [(g.first, g.last, g.shown_by) for g in report.gaps] == [(4, 7, 2)]


def test_a_last_event_that_is_withheld_shows_by_the_heartbeat_of_another_epoch_too() -> None:
    beat = replace(event(1, epoch=2), beat=(1, 3, ""))
    report = ledger_of([event(1), event(2), beat])
    assert [(g.epoch, g.first, g.last) for g in report.gaps] == [(1, 3, 3)]


def test_an_event_that_was_replaced_shows_by_what_its_successor_says_of_it() -> None:
    said = [event(1), event(2, which="another"), event(3)]
    assert ledger_of(said).equivocations == (Equivocation("trainer/0", 1, 2, 2, False),)
    assert not ledger_of(said).complete
    late = [event(1), event(3), event(2, which="another")]
    assert ledger_of(late).equivocations == (Equivocation("trainer/0", 1, 2, 1, False),)


def test_a_number_whose_event_the_log_has_refused_is_not_withheld() -> None:
    refusal = Said(
        0, "event.refused", "r", "indexer-1", digest("r"), 0, "indexer/0", 1, 1, refused=digest("trainer/0/1/2")
    )
    report = ledger_of([event(1), event(3), refusal])
    assert [(g.first, g.last, g.refused, g.withheld) for g in report.gaps] == [(2, 2, True, 0)]
    assert report.complete
    two = ledger_of([event(1), event(4), replace(refusal, refused=digest("trainer/0/1/3"))])
    assert [(g.first, g.last, g.withheld) for g in two.gaps] == [(2, 3, 1)]


def test_outside_events_are_listed_as_uncounted() -> None:
    outside = Said(0, "promotion.requested", "o", "orchestrator-1", digest("o"), 0)
    report = ledger_of([outside, replace(outside, event_id="p", event_hash=digest("p")), event(1)])
    assert report.uncounted == (("orchestrator-1", "promotion.requested", 2),)
    assert report.complete


@pytest.mark.parametrize("order", [(0, 2), (2, 0)])
def test_an_outside_event_that_is_in_the_log_twice_is_named_at_its_later_position(order: tuple[int, int]) -> None:
    outside = Said(0, "promotion.requested", "o", "orchestrator-1", digest("o"), 0)
    ledger = Ledger(0)
    assert [ledger.take(replace(outside, position=position)) for position in order] == [True, False]
    report = ledger.report(settle_ms=0)
    assert report.doubled == (2,)
    assert not report.complete


def test_numbers_far_apart_cost_no_memory_between_them() -> None:
    report = ledger_of([event(1), event(2**62)])
    assert [(g.first, g.last) for g in report.gaps] == [(2, 2**62 - 1)]


@pytest.mark.parametrize("how", ["whole", "one withheld", "last withheld"])
def test_real_entries_are_counted_as_they_say(make_world: Any, how: str) -> None:
    world = make_world()
    records = [world.keyring_record(), *world.story()]
    status = [world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=n)) for n in range(2, 6)]
    if how == "one withheld":
        del status[1]
    records += status
    _, seq, prev = (0, *world.counters[("trainer", world.lane)])
    if how == "last withheld":
        records.pop()
    beat = ProducerHeartbeat(producer=f"trainer/{world.lane}", epoch=1, seq=seq, event_hash=prev)
    records.append(world.say("trainer", beat))
    refused = EventRefused(
        model=world.model,
        event_id="018f0000-0000-7000-8000-000000000000",
        event_type="job.status",
        event_hash="ab" * 32,
        service="indexer",
        signer="trainer-1",
        reasons=(Reason(code="revoked_key", detail="d"),),
        rules="indexer/v1",
    )
    records.append(world.say("indexer", refused, causes=[Cause(refused.event_id, world.lane)]))
    verifier = world.verifier()
    lines, _ = sequence(world.head(), [verifier.verify(record) for record in records], world.chain())
    ledger = Ledger(world.lane)
    for line in lines:
        ledger.take(said_in(line.raw, 4))
    assert said_in(lines[-1].raw, 4).refused == "ab" * 32
    report = ledger.report(settle_ms=0)
    assert report.complete is (how == "whole")
    assert sum(gap.count for gap in report.gaps) == (how != "whole")
    assert {p.producer for p in report.producers} >= {f"trainer/{world.lane}", f"registry/{world.lane}"}
    assert ("operator-1", "signer.changed", 1) in report.uncounted
