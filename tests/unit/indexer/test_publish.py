"""What the indexer says under its own numbers: when a heartbeat is due, and what is remembered of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from ai_infra.events.generated import ProducerHeartbeat
from ai_infra_indexer.publish import Position, Publisher

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
