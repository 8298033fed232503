"""What the indexer says under its own numbers: when a heartbeat is due, and what is remembered of it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition

from ai_infra.events.generated import ProducerHeartbeat
from ai_infra_indexer.publish import Position, Publisher, read_position

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def publisher(world: Any, clock: list[datetime]) -> Publisher:
    return Publisher(world._session("indexer"), clock=lambda: clock[0])


def test_a_heartbeat_is_due_after_something_new_and_at_most_each_ten_minutes(world: Any) -> None:
    clock = [START]
    says = publisher(world, clock)
    assert not says._beat_due(Position(10)), "nothing was said"
    said = Position(10, seq=4, prev="ab" * 32)
    assert says._beat_due(said)
    after, message = says._say_heartbeat(world.lane, said)
    assert message.topic == ProducerHeartbeat.TOPIC
    assert (after.seq, after.beat_seq) == (5, 5)
    clock[0] += timedelta(hours=1)
    assert not says._beat_due(after), "a heartbeat alone is nothing new"
    clock[0] = START + timedelta(minutes=9)
    newer = Position(11, seq=6, prev="cd" * 32, beat_seq=after.beat_seq, beat_ms=after.beat_ms)
    assert not says._beat_due(newer)
    clock[0] += timedelta(minutes=1)
    assert says._beat_due(newer)
    clock[0] = START - timedelta(hours=1)
    assert says._beat_due(newer), "a clock that was put back keeps nobody silent"


def test_the_numbering_is_kept_with_the_offset_and_older_metadata_is_read(world: Any) -> None:
    position = Position(3, epoch=2, seq=9, prev="ab" * 32, beat_seq=8, beat_ms=1_700_000_000_000)
    assert Position(size=3, **orjson.loads(position.metadata())) == position
    assert Position(size=3, **orjson.loads(b'{"epoch":2,"prev":null,"seq":9}')) == Position(3, epoch=2, seq=9)


class Forgetful:
    """A Kafka that has lost the group's offsets."""

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition, OFFSET_INVALID) for place in places]


class Rows:
    """A database that answers these rows one after the other."""

    def __init__(self, *rows: tuple[int | None]) -> None:
        self.rows = list(rows)

    def execute(self, *_: Any) -> Any:
        return SimpleNamespace(fetchone=lambda: self.rows.pop(0))


@pytest.mark.parametrize("known", [None, 1, 2**52])
def test_where_kafka_lost_its_offsets_the_numbering_goes_on_in_an_epoch_that_nobody_can_have_heard(
    known: int | None,
) -> None:
    """Not even one of which all that was said was lost with Kafka; whatever Postgres remembers to have published."""
    for published in (0, 7):
        before = time.time_ns() // 1_000_000
        position = read_position(Forgetful(), Rows((published,), (known,)), 0, 4, timeout=1.0)  # type: ignore[arg-type]  # stand-ins
        assert (position.size, position.seq, position.prev) == (published, 0, None)
        assert position.epoch > (known or 0)
        assert position.epoch >= before
