"""Somebody has spoken under a service's name in a newer epoch: nobody hears the service, until it numbers anew."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.commands import run_command
from tests.system.bus_bench import read
from tests.unit.indexer.voices import worlds

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.client import Client
from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.generated import PromotionDecided, PromotionStatus
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings

PATIENCE = 90.0
SERVICES = ("promoter", "canary")


@pytest.fixture
def client(stack: Stack, settings: Settings) -> Iterator[Client]:
    for service in SERVICES:
        stack.start_service(service)
    with Client(settings) as client:
        yield client
    for service in SERVICES:
        stack.stop_service(service)


def test_a_service_that_nobody_hears_any_more_is_renumbered_by_an_operator(
    client: Client, stack: Stack, settings: Settings
) -> None:
    model = f"renumbered-{secrets.token_hex(4)}"
    lane = lane_of(model, settings.log.lanes)

    def decided() -> Any:
        """The promoter's answer to a new request, verified; one that it rejects without waiting for facts."""
        promotion = client.request_promotion(model=model, artifact_id="none", env="dev", reason="r", traffic_percent=50)
        assert promotion.published is not None
        return client.wait_for(
            promotion.published,
            lambda e: e if isinstance(e.body, PromotionDecided) and e.body.status.value == "rejected" else None,
            timeout=PATIENCE,
        )

    def put_aside(event: Any) -> bool:
        place = ("canary.dlq", lane)
        mark = KafkaAdmin(settings).watermarks([place])[place]
        found = [dict(r.headers) for r in read(settings, {place: (mark.low, mark.high)})]
        return (event.id, "duplicate") in {(h.get("ce_id", b"").decode(), h["dlq_error"].decode()) for h in found}

    def renumber() -> tuple[int, Any]:
        command = ["groups", "renumber", "promoter", "--lane", str(lane), "--reason", "a tool had its key", "--json"]
        done = run_command(stack, *command)
        return done.returncode, json.loads(done.stdout if done.returncode == 0 else done.stderr)

    decided()
    code, answer = renumber()
    if code == 0:  # another test has spoken for the promoter in this lane
        code, answer = renumber()
    assert (code, answer["error"]["code"]) == (1, "not_needed")
    first = decided()

    later = max(first.epoch, time.time_ns() // 1_000_000) + 3_600_000
    say_as_promoter(settings, model, later)
    unheard = decided()
    assert unheard.epoch == first.epoch
    assert wait_until(lambda: put_aside(unheard), PATIENCE), "the canary takes it for an old one"

    code, answer = renumber()
    assert (code, answer["epochs"], answer["unheard"]) == (0, {str(lane): later + 1}, [])
    heard = decided()
    assert (heard.epoch, heard.attributes.prev is None) == (later + 1, heard.seq == 1)
    code, answer = renumber()
    assert (code, answer["error"]["code"]) == (1, "not_needed")
    assert not put_aside(heard)


def say_as_promoter(settings: Settings, model: str, epoch: int) -> None:
    world = worlds(settings.keys.dir)(model=model, epoch=epoch)
    record = world.say("promoter", world.decided(PromotionStatus.REJECTED))
    producer = Producer(settings.kafka.client_config())
    producer.produce(
        record.topic, partition=record.partition, key=record.key, value=record.value, headers=list(record.headers)
    )
    assert producer.flush(30) == 0
