"""A log entry holds the whole record and comes back byte for byte."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.events.event import Event
from ai_infra_indexer.entry import MAX_ENTRY_BYTES, decode
from ai_infra_indexer.exceptions import EntryTooLarge, MalformedEntry
from ai_infra_indexer.sequence import Line, sequence


@pytest.fixture
def lines(world: Any) -> list[Line]:
    verifier = world.verifier()
    events = [verifier.verify(record) for record in (world.keyring_record(), *world.story())]
    return sequence(world.head(), events, world.chain())[0]


def test_an_entry_gives_back_the_record_that_it_holds(world: Any, lines: list[Line]) -> None:
    for line in lines:
        entry = decode(line.raw)
        record = entry.record()
        assert (record.topic, record.partition, record.offset) == entry.kafka
        assert (record.key, record.value) == (line.event.record.key, line.event.record.value)
        assert sorted(record.headers) == sorted(line.event.record.headers)
        assert entry.event_hash == line.event.hash
        assert world.verifier().verify(record) == replace(line.event, record=record)


def test_entries_chain_in_position_time_and_hash(lines: list[Line]) -> None:
    links = [decode(line.raw).link for line in lines]
    assert [decode(line.raw).position for line in lines] == list(range(len(lines)))
    assert [link.prev_hash for link in links] == [None, *(link.hash for link in links[:-1])]
    assert all(a.ts_us < b.ts_us for a, b in pairwise(links))


def test_times_go_forward_when_the_brokers_clock_goes_back(world: Any) -> None:
    verifier = world.verifier()
    events: list[Event[Any]] = [verifier.verify(record) for record in world.story()]
    early = [replace(e, record=replace(e.record, append_time_ms=1_000 - n)) for n, e in enumerate(events)]
    lines, head = sequence(world.head(), early, world.chain())
    assert [line.link.ts_us for line in lines] == [1_000_000 + n for n in range(len(lines))]
    assert head.last_ts_us == lines[-1].link.ts_us


def test_the_largest_event_fits_and_a_larger_entry_is_refused(world: Any) -> None:
    text = "x" * 47_000
    record = world.say("orchestrator", world.queued(hyperparams_json=text))
    [line], _ = sequence(world.head(), [world.verifier().verify(record)], world.chain())
    assert len(line.raw) < MAX_ENTRY_BYTES
    event = world.verifier().verify(record)
    inflated = replace(event, record=replace(event.record, value=(event.record.value or b"") + bytes(20_000)))
    with pytest.raises(EntryTooLarge):
        sequence(world.head(), [inflated], world.chain())


def test_two_spellings_of_one_entry_are_not_accepted(lines: list[Line]) -> None:
    head, _, body = lines[1].raw.partition(b"\n")
    spaced = head.replace(b'"lane":', b'"lane": ', 1)
    with pytest.raises(MalformedEntry, match="canonical"):
        decode(spaced + b"\n" + body)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedEntry):
        decode(raw)
