"""Where a lane goes on reading, in a real database: behind everything that it has done with, whatever held it back."""

from __future__ import annotations

from typing import Any

import pytest
from tests.system.surroundings import Around, turn
from tests.unit.indexer.voices import LANES, worlds

from ai_infra.events.event import Cause, Record
from ai_infra.events.generated import JobStatusKind
from ai_infra.readmodel import connect, migrate
from ai_infra.settings import Settings
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.lane import Lane
from ai_infra_indexer.replay import LaneVerifier
from ai_infra_indexer.store import ensure_lane, read_head, read_offsets


@pytest.fixture
def place(settings: Settings, database: str) -> Any:
    """(world, around, connection, lane): a lane that has read nothing."""
    world, around = worlds(settings.keys.dir)(), Around()
    origin = f"example.org/log/lanes/{world.lane}"
    migrate(database)
    with connect(database, autocommit=True) as connection:
        ensure_lane(connection, world.lane, origin)
        verifier = LaneVerifier(Keyrings(world.roots), LANES)
        handover = Handover(world.lane, origin, 1 << 20)
        head = read_head(connection, world.lane)
        yield world, around, connection, Lane(head, {}, verifier, lambda _: world.chain(), around, handover)


def places(connection: Any, world: Any) -> dict[str, int]:
    return {topic: offset for (topic, _), offset in read_offsets(connection, world.lane).items()}


def behind(records: list[Record]) -> dict[str, int]:
    return {record.topic: record.offset + 1 for record in records}


def test_what_was_read_before_the_keyring_is_behind_once_it_is_sequenced(place: Any) -> None:
    world, around, connection, lane = place
    keyring = world.keyring_record()
    story = world.story()
    around.broadcast = [keyring]
    for record in story:
        lane.offer(record)
    while turn(connection, lane):
        pass
    assert lane.head.size == 1 + len(story)
    assert places(connection, world) == behind([keyring, *story])


def test_what_waited_for_its_cause_is_behind_once_it_is_sequenced(place: Any) -> None:
    world, around, connection, lane = place
    around.broadcast = [world.keyring_record()]
    turn(connection, lane)
    cause = world.say("orchestrator", world.queued())
    cause_id = dict(cause.headers)["ce_id"].decode()
    effect = world.say("trainer", world.status(JobStatusKind.QUEUED), causes=[Cause(cause_id, world.lane)])
    around.end = {(cause.topic, world.lane): cause.offset + 1, (effect.topic, world.lane): effect.offset + 1}
    lane.offer(effect)
    turn(connection, lane)
    assert (lane.head.size, lane.waiting) == (1, 1)
    assert places(connection, world).get(effect.topic, 0) <= effect.offset  # a restart reads it again
    lane.offer(cause)
    turn(connection, lane)
    assert (lane.head.size, lane.waiting) == (3, 0)
    held = places(connection, world)
    assert (held[cause.topic], held[effect.topic]) == (cause.offset + 1, effect.offset + 1)
