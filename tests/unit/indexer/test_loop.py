"""What ends the indexer's loop, and what it leaves to the next start."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException

from ai_infra.bus.kafka.config import MAX_POLL_INTERVAL_MS
from ai_infra.bus.kafka.consume import RestartNeededError
from ai_infra.errors import UnavailableError
from ai_infra.telemetry import metrics
from ai_infra_indexer.finality import Finality, FinalLane
from ai_infra_indexer.lane import Lane
from ai_infra_indexer.loop import Indexer

CONFIG = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}


def nothing(*_: Any) -> Any:
    raise AssertionError("nothing is taken or opened here")


def take(consumer: Consumer, number: int) -> tuple[Lane, FinalLane]:
    raise AssertionError("no lane is assigned")


def test_a_failure_of_the_consumer_asks_for_a_new_start_and_does_not_end_the_process() -> None:
    finality = Finality(nothing, nothing, nothing, interval_s=1)  # type: ignore[arg-type]  # has no lane to publish
    finality.start()

    def each_turn() -> None:
        raise KafkaException(KafkaError(KafkaError._STATE))

    indexer = Indexer(CONFIG, ("a.b",), take, nothing, finality, each_turn)
    with pytest.raises(RestartNeededError, match="consumer of g failed"):
        indexer.run(threading.Event())


def test_the_lag_of_a_lane_that_has_gone_is_shown_no_more() -> None:
    finality = Finality(nothing, nothing, nothing, interval_s=1)  # type: ignore[arg-type]  # has no lane to publish
    indexer = Indexer(CONFIG, ("a.b",), take, nothing, finality, lambda: None)
    metrics.KAFKA_CONSUMER_LAG.labels("g", "a.b", "3").set(7)
    indexer._give_up([("a.b", 3)])
    [shown] = metrics.KAFKA_CONSUMER_LAG.collect()
    assert not [sample for sample in shown.samples if sample.labels["group"] == "g"]


def test_a_lane_that_is_given_and_not_taken_yet_is_not_ready() -> None:
    """Taking one may load a whole archive into a restored database."""
    finality = Finality(nothing, nothing, nothing, interval_s=1)  # type: ignore[arg-type]  # has no lane to publish
    indexer = Indexer(CONFIG, ("a.b",), take, nothing, finality, lambda: None)
    indexer._membership.joined = True
    assert indexer.check_lanes() is None
    indexer._assignment.add([("a.b", 3)])
    assert "lane 3 is being taken" in (indexer.check_lanes() or "")


class Idle:
    """A lane that has nothing to enter."""

    full: frozenset[tuple[str, int]] = frozenset()
    read_to: Mapping[tuple[str, int], int] = MappingProxyType({})


class Severed:
    """A connection to Postgres that is gone."""

    closed = True


def test_all_lanes_are_given_up_with_the_connection_that_they_share_and_not_when_each_has_something_to_enter() -> None:
    finality = Finality(nothing, nothing, nothing, interval_s=1)  # type: ignore[arg-type]  # has no lane to publish
    indexer = Indexer(CONFIG, ("a.b",), take, Severed, finality, lambda: None)  # type: ignore[arg-type]
    indexer._membership.joined = True
    indexer._lanes |= {0: Idle(), 1: Idle()}  # type: ignore[dict-item]  # of a lane only this is asked
    indexer.turn()
    assert indexer.lanes == []
    assert "lane 0 stands still: the connection to Postgres is gone" in (indexer.check_lanes() or "")


def test_a_loop_that_hangs_is_not_alive_and_one_that_fills_up_postgres_is(monkeypatch: pytest.MonkeyPatch) -> None:
    finality = Finality(nothing, nothing, nothing, interval_s=1)  # type: ignore[arg-type]  # has no lane to publish
    indexer = Indexer(CONFIG, ("a.b",), take, nothing, finality, lambda: None)
    assert indexer.check_alive() is None
    indexer._turned -= MAX_POLL_INTERVAL_MS / 1000
    assert "has not turned for 300 s" in (indexer.check_alive() or "")
    taken: list[str | None] = []

    def fill_up(_: Consumer, __: int) -> tuple[Lane, FinalLane]:
        indexer._turned -= 2 * MAX_POLL_INTERVAL_MS / 1000
        taken.append(indexer.check_alive())
        raise UnavailableError("the archive went away in the middle of it")

    monkeypatch.setattr(indexer, "_take", fill_up)
    indexer._assignment.add([("a.b", 3)])
    indexer._take_one()
    assert taken == [None]
    assert indexer.check_alive() is None
