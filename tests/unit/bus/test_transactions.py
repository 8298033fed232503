"""What each kind of error of a transaction's calls asks for. The producer here injects them; what a broker does with
transactions is for the system tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ai_infra.bus import transactions
from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.consume import RestartNeededError
from ai_infra.bus.transactions import AbortNeededError, TransactionalProducer
from ai_infra.settings import load_settings

STEPS = ("begin_transaction", "produce", "send_offsets_to_transaction", "commit_transaction")
RECORD = Outgoing("t", 0, None, b"x", ())


def passing() -> KafkaException:
    return KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "again", False, True, False))


def abortable() -> KafkaException:
    return KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, "abort", False, False, True))


def fatal() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._FENCED, "fenced", True, False, False))


class Faulty:
    """A producer whose calls fail as they are told to; `calls` is what was called."""

    def __init__(self, **faults: list[Any]) -> None:
        self.calls: list[str] = []
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> None:
            self.calls.append(name)
            faults = self._faults.get(name)
            fault = faults.pop(0) if faults else None
            if isinstance(fault, threading.Event):
                fault.wait(30)
            elif fault is not None:
                raise fault

        return call


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    made: list[TransactionalProducer] = []
    settings = load_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, directory=tmp_path)

    def producer(**faults: list[Any]) -> tuple[TransactionalProducer, Faulty]:
        made.append(TransactionalProducer(settings, service="x"))
        faulty = Faulty(**faults)
        made[-1]._producer = faulty  # type: ignore[assignment]  # injects the faults
        return made[-1], faulty

    yield producer
    for one in made:
        one.close()


def transact(producer: TransactionalProducer) -> None:
    producer.transact([RECORD], [TopicPartition("i", 0, 0)], None)


@pytest.mark.parametrize("step", [s for s in STEPS if s != "produce"])
def test_the_same_call_is_made_again_where_its_error_passes(make: Any, step: str) -> None:
    producer, faulty = make(**{step: [passing(), passing()]})
    transact(producer)
    assert [c for c in faulty.calls if c != "poll"] == [s for s in STEPS for _ in range(3 if s == step else 1)]


@pytest.mark.parametrize("step", STEPS)
def test_an_error_that_asks_for_it_aborts_the_transaction(make: Any, step: str) -> None:
    producer, faulty = make(**{step: [abortable()]})
    with pytest.raises(AbortNeededError) as caught:
        transact(producer)
    assert caught.value.code == "illegal_generation"
    assert faulty.calls == [*STEPS[: STEPS.index(step) + 1], "abort_transaction"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("error", [fatal(), KafkaException(KafkaError(KafkaError._STATE))])
def test_any_other_error_gives_the_producer_up(make: Any, step: str, error: KafkaException) -> None:
    producer, faulty = make(**{step: [error]})
    with pytest.raises(RestartNeededError, match="goes on from what was committed"):
        transact(producer)
    assert faulty.calls[-1] == step


def test_an_abort_that_fails_gives_the_producer_up(make: Any) -> None:
    producer, _ = make(commit_transaction=[abortable()], abort_transaction=[fatal()])
    with pytest.raises(RestartNeededError, match="abort_transaction"):
        transact(producer)


def test_an_error_that_does_not_pass_in_time_gives_the_producer_up(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "CALL_DEADLINE_SECONDS", 0.0)
    producer, _ = make(commit_transaction=[passing()])
    with pytest.raises(RestartNeededError, match="commit_transaction"):
        transact(producer)


@pytest.mark.parametrize("step", [s for s in STEPS if s != "produce"])
def test_a_call_that_never_returns_is_left_behind(make: Any, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    monkeypatch.setattr(transactions, "CALL_DEADLINE_SECONDS", 0.0)
    monkeypatch.setattr(transactions, "STUCK_SECONDS", 0.05)
    never = threading.Event()
    producer, _ = make(**{step: [never]})
    try:
        with pytest.raises(RestartNeededError, match="has not returned"):
            transact(producer)
    finally:
        never.set()


def test_a_queue_that_stays_full_aborts_the_transaction(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "CALL_DEADLINE_SECONDS", 0.0)
    producer, faulty = make(produce=[BufferError(), BufferError()])
    with pytest.raises(AbortNeededError, match="queue has been full"):
        transact(producer)
    assert faulty.calls[-1] == "abort_transaction"


def test_a_producer_that_is_broken_for_good_is_closed_without_a_further_error(make: Any) -> None:
    producer, faulty = make(flush=[fatal()])
    producer.close()
    assert faulty.calls == ["flush"]
