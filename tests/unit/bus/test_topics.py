"""The table of topics, and who listens to what."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import Any

import pytest

from ai_infra.bus.kafka.acls import acls, as_commands, with_principals
from ai_infra.bus.kafka.topics import (
    BROADCAST_TOPICS,
    LANE_TOPICS,
    PLAIN,
    SERVICE_INPUTS,
    SERVICES,
    UNSEQUENCED,
    check_service,
    topic_specs,
)
from ai_infra.errors import ConfigurationError
from ai_infra.events.generated import BODIES
from ai_infra.settings import load_settings


def settings(**variables: Any) -> Any:
    return load_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": "localhost:1", **variables})


def test_every_event_type_has_a_topic_and_every_lane_topic_the_same_partitions() -> None:
    specs = {spec.name: spec for spec in topic_specs(settings(AI_INFRA_LANES="5"))}
    assert set(BODIES) <= set(specs)
    for name in (*LANE_TOPICS, PLAIN, *(f"{s}.{own}" for s in SERVICES for own in ("state", "retry", "dlq"))):
        assert specs[name].partitions == 5, name
    for name in BROADCAST_TOPICS:
        assert (specs[name].partitions, specs[name].config["retention.ms"]) == (1, "-1")


def test_the_broker_sets_the_time_of_every_record() -> None:
    assert {s.config["message.timestamp.type"] for s in topic_specs(settings())} == {"LogAppendTime"}


def test_a_dead_letter_always_fits_where_its_record_did() -> None:
    specs = {spec.name: spec for spec in topic_specs(settings())}
    assert int(specs["trainer.dlq"].config["max.message.bytes"]) > int(specs["job.queued"].config["max.message.bytes"])


def test_outside_dev_three_replicas_of_which_two_must_have_a_record() -> None:
    production = settings(NODE_ENV="production", AI_INFRA_LOG_ORIGIN="log.example.org")
    assert {(s.replicas, s.config["min.insync.replicas"]) for s in topic_specs(production)} == {(3, "2")}
    assert {(s.replicas, s.config["min.insync.replicas"]) for s in topic_specs(settings())} == {(1, "1")}


def test_the_indexer_hears_all_that_is_sequenced() -> None:
    assert set(LANE_TOPICS) - UNSEQUENCED <= set(SERVICE_INPUTS["indexer"])
    assert not UNSEQUENCED & set(SERVICE_INPUTS["indexer"])


@pytest.mark.parametrize("service", [s for s in SERVICES if s != "indexer"])
def test_a_service_listens_to_what_its_group_is_placed_on(service: str) -> None:
    module = importlib.import_module(f"ai_infra_{service}.service")
    tree = ast.parse(inspect.getsource(module))
    named = [k.value for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "listens"]
    listens = eval(ast.unparse(named[0]), vars(module))
    heard = {body.TOPIC for body in listens}
    assert set(SERVICE_INPUTS[service]) == heard | {"operator.action", f"{service}.retry"}


def test_a_service_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="trainer, registry"):
        check_service("trainr")


def test_a_service_may_write_what_it_says_and_read_what_it_hears_and_no_more() -> None:
    granted = acls(["registry"])
    may_write = {a.name for a in granted if a.resource == "topic" and "Write" in a.operations}
    assert may_write == {
        "artifact.registered",
        "artifact.refused",
        "event.refused",
        "producer.heartbeat",
        "registry.state",
        "registry.dlq",
    }
    assert {a.name for a in granted if a.resource == "group"} == {"ai-infra.registry"}
    assert {a.name for a in granted if a.resource == "transactional id"} == {"ai-infra.registry."}


def test_only_operators_may_write_to_retry_topics() -> None:
    writers = {a.role for a in acls() if a.name.endswith(".retry") and "Write" in a.operations}
    assert writers == {"operator"}


def test_acls_come_as_commands_under_the_brokers_own_names() -> None:
    lines = as_commands(with_principals(acls(["approver"]), ["approver=User:CN=an approver"]))
    assert all("--allow-principal 'User:CN=an approver'" in line for line in lines)
    assert any("--operation Write --operation Describe --topic promotion.approval" in line for line in lines)
    with pytest.raises(ConfigurationError, match="ROLE=TYPE:NAME"):
        with_principals((), ["approver"])
    with pytest.raises(ConfigurationError, match="no role"):
        acls(["nobody"])


def test_the_indexer_may_commit_where_it_publishes_and_see_how_long_its_inputs_are_kept() -> None:
    granted = {(a.name, operation) for a in acls(["indexer"]) if a.resource == "topic" for operation in a.operations}
    assert {(PLAIN, "Write"), (PLAIN, "Read")} <= granted
    assert {(topic, "DescribeConfigs") for topic in SERVICE_INPUTS["indexer"]} <= granted
