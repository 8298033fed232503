"""How near unread input is to being deleted, as the indexer sees it on a real broker."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import REGISTRY

from ai_infra.bus.kafka.topics import INPUT_RETENTION_MS
from ai_infra.client import Client, Job, Resources
from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.lanes import lane_of
from ai_infra.readmodel import ReadModel, connect
from ai_infra.settings import Settings
from ai_infra_indexer.retention import RetentionWatch
from ai_infra_indexer.service import open_connection
from ai_infra_indexer.store import Connection

PATIENCE = 60.0
LATER = 20 * 86_400.0


@pytest.fixture
def job(settings: Settings) -> Iterator[Job]:
    with Client(settings) as client:
        yield client.submit_job(
            model=f"kept-{secrets.token_hex(4)}",
            code_ref="git+file:///nowhere@" + "a" * 40,
            training_cmd=("true",),
            resources=Resources(cpu_millis=1, memory_mib=1),
        )


def no_postgres() -> Connection:
    return connect("postgresql://nobody@127.0.0.1:1/none")


def test_what_nobody_has_read_for_twenty_of_thirty_days_is_an_alarm_until_it_is_read(
    stack: Stack, settings: Settings, job: Job
) -> None:
    lane = lane_of(job.model, settings.log.lanes)
    held = [lane]

    def later() -> float:
        return time.time() + LATER

    def used() -> float | None:
        return REGISTRY.get_sample_value("ai_infra_indexer_retention_used_ratio", {"lane": str(lane)})

    watch = RetentionWatch(settings, lambda: held, lambda: open_connection(settings), clock=later)
    blind = RetentionWatch(settings, lambda: held, no_postgres, clock=later)
    now = RetentionWatch(settings, lambda: held, lambda: open_connection(settings))
    for sees in (watch, blind):
        oldest = sees.look()[lane]
        assert LATER * 1000 / INPUT_RETENTION_MS <= oldest.used < 0.7
        assert used() == oldest.used
        assert f"lane {lane}: the oldest unread record of {oldest.topic} is 20." in (sees.check() or "")
    assert now.look()[lane].used < 0.01
    assert now.check() is None

    stack.start_service("indexer", env={"AI_INFRA_CHECKPOINT_INTERVAL_MS": "200"})
    try:
        with ReadModel(settings.database.url) as model:
            assert job.published is not None
            said = job.published.id
            assert wait_until(lambda: model.event(said) is not None, PATIENCE), "waited in vain for the entry"
        assert wait_until(lambda: watch.look() == {}, PATIENCE), "what is read is in no danger"
        assert (watch.check(), used()) == (None, 0.0)
        url = stack.service_url("indexer")
        assert "retention" in httpx.get(f"{url}/readyz", trust_env=False).json()["checks"]
        shown = f'ai_infra_indexer_retention_used_ratio{{lane="{lane}"}} 0.0'
        assert wait_until(lambda: shown in httpx.get(f"{url}/metrics", trust_env=False).text, PATIENCE)
    finally:
        stack.stop_service("indexer")
    held.clear()
    watch.look()
    assert used() is None, "a lane that moves on is shown by who has it"
