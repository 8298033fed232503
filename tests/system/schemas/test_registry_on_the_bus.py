"""Where a schema registry is set, everything that is said on a real broker is framed by it, and everybody reads it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.system.bus_bench import Bench
from tests.system.schemas.registry_server import Registry, serve

from ai_infra.client import Client
from ai_infra.events.generated import CanaryStatus, EvaluationRecorded, JobQueued
from ai_infra.settings import Settings


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


@pytest.fixture
def framed(bench: Bench, registry: Registry) -> Settings:
    return bench.stack.settings(SCHEMA_REGISTRY_URL=registry.url)


def test_a_service_hears_both_framings_and_speaks_in_the_registrys(
    bench: Bench, framed: Settings, registry: Registry
) -> None:
    bench.settings = framed
    bench.replica()
    [schema_id] = registry.subjects[f"{CanaryStatus.TOPIC}-value"]
    model = bench.model()
    bench.ask(model, "count")  # by a sender without a registry
    [said] = bench.await_said(1, model)
    assert said.record.value is not None
    assert said.record.value[:5] == b"\0" + schema_id.to_bytes(4, "big")
    [heard] = [r for r in bench.records(EvaluationRecorded.TOPIC) if r.key == model.encode()]
    assert heard.value is not None
    assert heard.value[:2] == b"\xc3\x01"


def test_what_the_sdk_says_is_framed_and_read_by_a_client_without_a_registry(
    settings: Settings, framed: Settings, registry: Registry
) -> None:
    with Client(settings) as reader, reader.subscribe(JobQueued, model="framed", from_="latest") as jobs:
        with Client(framed) as writer:
            code = "git+https://example.org/repo@" + "0" * 40
            writer.submit_job(model="framed", code_ref=code, training_cmd=["python", "train.py"])
        event = next(jobs)
    [schema_id] = registry.subjects[f"{JobQueued.TOPIC}-value"]
    assert event.record.value is not None
    assert event.record.value[:5] == b"\0" + schema_id.to_bytes(4, "big")
    assert event.principal == "orchestrator"
