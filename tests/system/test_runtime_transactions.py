"""Fencing, aborts and takeovers (specs of Kafka's traps): what a transaction holds happens once, or not at all."""

from __future__ import annotations

import signal
import threading

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.system.bus_bench import GROUP, NAME, STATE, Bench, Interrupted, check_sequences, until

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka import config as kafka_config
from ai_infra.bus.kafka.config import group_config
from ai_infra.bus.transactions import AbortNeededError, TransactionalProducer
from ai_infra.events.generated import EvaluationRecorded
from ai_infra.telemetry import metrics


def test_a_batch_whose_lane_has_moved_meanwhile_is_not_committed(bench: Bench) -> None:
    stopped = bench.process()
    model = bench.model()
    bench.ask(model, "hold")
    held = bench.directory / f"held-{stopped.pid}"
    until(held.exists, "the process decides on the event")
    stopped.send_signal(signal.SIGSTOP)  # to the broker it is dead, to itself it is not
    bench.replica()
    bench.await_said(1, model)
    (bench.directory / "open").touch()
    stopped.send_signal(signal.SIGCONT)
    log = bench.directory / "process-0.log"
    until(lambda: "transaction aborted" in log.read_text(), "its commit is refused")
    until(lambda: len(bench.lanes_of_members()) == 2, "it comes back to the group")
    bench.ask(model, "count", "count")
    assert [e.body.phase for e in bench.await_said(3, model)] == [1, 2, 3]
    check_sequences(bench.said())


def test_metadata_from_the_batch_is_fenced_where_fresh_metadata_and_empty_offsets_are_not(bench: Bench) -> None:
    group = f"{GROUP}.fencing"
    one, two = (Consumer(group_config(bench.settings, group)) for _ in range(2))
    producer = TransactionalProducer(bench.settings, service=NAME)
    producer.initialise()
    try:
        one.subscribe([EvaluationRecorded.TOPIC])
        until(lambda: one.poll(0.05) or len(one.assignment()) == bench.lanes, "one has all lanes")
        taken = one.consumer_group_metadata()
        two.subscribe([EvaluationRecorded.TOPIC])
        until(lambda: (one.poll(0.05), two.poll(0.05)) and two.assignment(), "two has lanes")
        until(lambda: (one.poll(0.05), two.poll(0.05)) and len(one.assignment()) < bench.lanes, "which one has not")
        moved = [TopicPartition(p.topic, p.partition, 0) for p in two.assignment()]
        with pytest.raises(AbortNeededError):
            producer.transact([], moved, taken)
        # The two traps, so that this test says when Kafka closes them: neither of these is fenced.
        producer.transact([], moved, one.consumer_group_metadata())
        producer.transact([Outgoing(f"{NAME}.retry", 0, None, b"", ())], [], taken)
    finally:
        one.close()
        two.close()
        producer.close()


def test_transactions_of_ticks_and_results_send_the_position_of_every_input_of_their_lane(bench: Bench) -> None:
    producer = Interrupted(bench.settings, lambda: None)
    replica = bench.replica(producer=producer)
    model = bench.model(0)
    bench.working(replica)
    bench.ask(model, "work:bread", "timer:0.5")
    bench.await_said(2, model)
    inputs = {(EvaluationRecorded.TOPIC, 0), ("operator.action", 0), (f"{NAME}.retry", 0)}
    assert len(producer.offsets) >= 3
    for offsets in producer.offsets:
        assert inputs <= {(p.topic, p.partition) for p in offsets}
        assert all(p.offset >= 0 for p in offsets)


def test_an_aborted_transaction_leaves_no_hole_and_no_trace_in_the_state(bench: Bench) -> None:
    aborts = iter([False, True, True, False, True])

    def before_commit() -> None:
        if next(aborts, False):
            raise AbortNeededError("the test wants it so")

    model = bench.model()
    bench.ask(model, "count", "refuse", "count", "fail")
    bench.replica(producer=Interrupted(bench.settings, before_commit))
    bench.await_said(2, model)
    bench.ask(model, "count", "work:bread", "refuse")
    bench.await_said(4, model)
    bench.ask(model)
    said = bench.await_said(5, model)
    assert [e.body.phase for e in said] == [1, 2, 3, 4, 5]
    assert [code for code, _ in bench.letters(model)] == ["not_today", "decide_failed", "not_today"]
    check_sequences(all_said(bench))


def test_a_service_whose_transactions_abort_again_and_again_is_not_ready_and_counts_nothing(bench: Bench) -> None:
    broken = threading.Event()
    broken.set()

    def before_commit() -> None:
        if broken.is_set():
            raise AbortNeededError("the dead letters cannot be written")

    def decided() -> float:
        return metrics.BUS_RECORDS.labels(NAME, EvaluationRecorded.TOPIC, "decided")._value.get()

    before = decided()
    model = bench.model()
    bench.ask(model, "count", "count")
    replica = bench.replica(producer=Interrupted(bench.settings, before_commit))
    status, text = until(lambda: "aborted" in (a := replica.ready())[1] and a, "readiness says so")
    assert status == 503
    assert "the dead letters cannot be written" in text
    assert decided() == before
    broken.clear()  # only now is there an end to read to: each turn until here has added an aborted transaction
    assert [e.body.phase for e in bench.await_said(2, model)] == [1, 2]
    until(lambda: replica.ready()[0] == 200, "it is ready again")
    assert decided() == before + 2


def test_a_lane_that_halts_in_a_batch_that_is_aborted_skips_nothing(bench: Bench) -> None:
    aborts = iter([True])

    def before_commit() -> None:
        if next(aborts, False):
            raise AbortNeededError("the test wants it so")

    model = bench.model()
    bench.ask(model, *["count"] * 3, *["fail"] * 20, *["count"] * 2)
    replica = bench.replica(producer=Interrupted(bench.settings, before_commit))
    until(lambda: "halted" in (replica.runtime.check_halts() or ""), "the lane halts")
    assert [e.body.phase for e in bench.await_said(3, model)] == [1, 2, 3]
    resumed = bench.cli("groups", "resume", NAME, "--reason", "mended")
    assert resumed.returncode == 0, resumed.stderr
    assert [e.body.phase for e in bench.await_said(5, model)] == [1, 2, 3, 4, 5]
    assert len(bench.letters(model)) == 20


def test_a_takeover_waits_for_the_transaction_that_the_one_before_has_open(bench: Bench) -> None:
    model = bench.model()
    armed, left, commit = threading.Event(), threading.Event(), threading.Event()

    def before_commit() -> None:
        if armed.is_set() and not left.is_set():
            one.runtime._consumer.close()  # gone for the group, but not for its own transaction
            left.set()
            assert commit.wait(30)

    one = bench.replica(producer=Interrupted(bench.settings, before_commit))
    bench.ask(model, "count", "count")
    bench.await_said(2, model)
    armed.set()
    bench.ask(model, "count")
    until(left.is_set, "a transaction is open")
    two = bench.replica()
    until(lambda: bench.lanes_of_members() == [set(range(bench.lanes))], "the group gives all lanes to the other")
    until(lambda: two.runtime.check_lanes() is None, "which has heard of it")
    assert not two.lanes
    commit.set()
    one.join()
    bench.working(two)
    bench.ask(model, "count")
    # Its end read too early would have shown the new offsets and the old state: two events with the number 3.
    assert [e.body.phase for e in bench.await_said(4, model)] == [1, 2, 3, 4]
    check_sequences(bench.said())
    bench.replicas.remove(one)


def test_the_open_transaction_of_a_dead_producer_is_waited_for_and_its_work_done_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_config, "TRANSACTION_TIMEOUT_MS", 3_000)
    armed, died = threading.Event(), threading.Event()

    def before_commit() -> None:
        if armed.is_set():
            died.set()
            raise RuntimeError("the process dies here")

    one = bench.replica(producer=Interrupted(bench.settings, before_commit))
    model = bench.model()
    bench.ask(model)
    bench.await_said(1, model)
    armed.set()
    bench.ask(model, "count", "work:bread")
    until(died.is_set, "a transaction is left open")
    one.join()
    assert str(one.error) == "the process dies here"
    bench.replica()
    assert [e.body.phase for e in bench.await_said(3, model)] == [1, 2, 3]
    check_sequences(bench.said())
    assert bench.records(STATE)


def all_said(bench: Bench) -> list:  # type: ignore[type-arg]  # events of both types
    from ai_infra.events.generated import CanaryStatus, EventRefused

    return [*bench.said(CanaryStatus), *bench.said(EventRefused)]
