"""Events of a signer with a valid key that are made to stop or to slow down everybody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.system.test_indexer_log import Town

from ai_infra.devstack import Stack
from ai_infra.events.compose import uuid7
from ai_infra.events.event import Cause
from ai_infra.settings import Settings


@pytest.fixture(scope="module")
def town(stack: Stack, settings: Settings) -> Iterator[Town]:
    town = Town(stack, settings)
    town.start()
    yield town
    town.stop()


def test_a_cause_that_is_missing_and_named_twice_does_not_stop_the_lane(town: Town) -> None:
    world = town.world("named-twice")
    nobody = Cause(uuid7(), world.lane)
    event = world.say("orchestrator", world.queued(), causes=[nobody, nobody])
    town.send(event)
    town.await_final(event)


def test_json_deeper_than_postgres_reads_costs_an_event_its_rows_and_the_lane_nothing(town: Town) -> None:
    world = town.world("deep")
    deep = world.say("orchestrator", world.queued(hyperparams_json="[" * 23_000 + "]" * 23_000))
    after = world.say("orchestrator", world.queued("job-2"))
    town.send(deep, after)
    town.await_final(deep, after)
