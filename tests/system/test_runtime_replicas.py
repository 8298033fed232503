"""Replicas that come, go and die: each event is decided once, in order, by one of them."""

from __future__ import annotations

import signal
import time

import pytest
from tests.system.bus_bench import GROUP, NAME, RETRY, SECONDS, Bench, check_sequences, until
from tests.system.bus_service import service

from ai_infra.bus import gauges, runtime
from ai_infra.bus.kafka.consume import LostOffsetsError
from ai_infra.events.event import Record
from ai_infra.events.generated import EvaluationRecorded, PromotionRequested
from ai_infra.telemetry import metrics


def test_two_replicas_count_each_event_once_while_a_third_comes_and_is_killed(bench: Bench) -> None:
    models = [bench.model(lane % bench.lanes) for lane in range(2 * bench.lanes)]
    rounds = 40
    asked: list[str] = []

    def ask(number: int) -> None:
        for _ in range(number):
            records = [bench.sign(model) for model in models]
            bench.send(*records)
            asked.extend(record.id for record in records)

    one, two = bench.replica(), bench.replica()
    bench.working(one, two)
    ask(rounds)
    third = bench.process()
    until(lambda: len(bench.lanes_of_members()) == 3, "the third replica has lanes too")
    ask(rounds)
    bench.await_said(len(models) * rounds)
    third.kill()
    third.wait()
    ask(rounds)
    said = bench.await_said(len(asked))
    assert len(said) == len(asked)
    assert {event.causes[0].id for event in said} == set(asked)
    for model in models:
        assert [e.body.phase for e in said if e.model == model] == list(range(1, 3 * rounds + 1))
    check_sequences(said)


def test_a_group_without_positions_stops_the_service_and_skips_nothing(bench: Bench) -> None:
    bench.forget_positions()
    replica = bench.replica()
    replica.join()
    assert isinstance(replica.error, LostOffsetsError)
    assert "groups seek" in str(replica.error)


def test_a_position_that_its_topic_no_longer_has_stops_the_service(bench: Bench) -> None:
    junk = Record(RETRY, 0, 0, 0, b"m", b"junk", ())
    bench.send(junk, junk, junk)
    bench.delete_records(RETRY)
    replica = bench.replica()
    replica.join()
    assert isinstance(replica.error, LostOffsetsError)
    assert "Nothing was skipped" in str(replica.error)


def test_a_replica_with_a_part_of_a_lane_stands_still_there_and_says_so(bench: Bench) -> None:
    old = bench.replica()
    bench.working(old)
    new = bench.replica(service(listens=(EvaluationRecorded, PromotionRequested)))  # a rolling upgrade adds an input
    until(lambda: len(bench.lanes_of_members()) == 2, "both have something")
    _, text = until(lambda: (a := new.ready())[0] == 503 and a, "the new one has parts, and says so")
    assert "stands still on" in text
    assert EvaluationRecorded.TOPIC in text
    models = [bench.model(lane) for lane in range(bench.lanes)]
    for model in models:
        bench.ask(model)
    partial = set(new.runtime._assignment.partial_lanes())
    assert not partial & set(new.lanes)
    bench.await_said(len(set(old.lanes) | set(new.lanes)))
    old.stop()
    bench.replicas.remove(old)
    bench.working(new)
    until(lambda: new.ready()[0] == 200, "it is ready once the lanes are whole")
    assert len(bench.await_said(len(models))) == len(models)


def test_of_lanes_that_have_gone_a_process_shows_nothing_any_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a halt that was resumed elsewhere would alarm for ever, and so would an old lag."""
    monkeypatch.setattr(gauges, "LAG_SECONDS", 0.1)
    monkeypatch.setattr(runtime, "HOUSEKEEPING_SECONDS", 0.1)

    def shown() -> set[str]:
        return {
            sample.name
            for gauge in (metrics.BUS_LANE_HALTED, metrics.BUS_LANE_DELAY, metrics.BUS_STATE_RECORDS)
            for sample in next(iter(gauge.collect())).samples
            if sample.labels["service"] == NAME
        } | {
            sample.name
            for sample in next(iter(metrics.KAFKA_CONSUMER_LAG.collect())).samples
            if sample.labels["group"] == GROUP
        }

    replica = bench.replica()
    bench.working(replica)
    bench.ask(bench.model(), "count")
    until(lambda: len(shown()) == 4, "all of them are shown")
    replica.stop()
    bench.replicas.remove(replica)
    assert shown() == set()


def test_a_signal_ends_the_batch_commits_it_and_leaves_the_group_at_once(bench: Bench) -> None:
    process = bench.process()
    model = bench.model()
    bench.ask(model, *["count"] * 50)
    bench.await_said(50, model)
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0
    assert bench.members() == 0  # a session that has to time out would still be there
    ends = bench.admin.watermarks(bench.positions())
    assert bench.positions() == {place: mark.high for place, mark in ends.items()}


def test_a_second_signal_ends_the_process_at_once(bench: Bench) -> None:
    process = bench.process()
    model = bench.model()
    bench.ask(model, "work:deaf", "count")
    bench.await_said(1, model)
    began = time.monotonic()

    def ended() -> bool:
        process.send_signal(signal.SIGTERM)
        return process.poll() is not None

    until(ended, "the process ends")
    assert process.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 8  # the first one alone would have waited for the work
