"""What Kafka's clients are told, whatever an operator sets."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from ai_infra.bus.kafka.config import (
    client_config,
    group_config,
    opened,
    producer_config,
    reader_config,
    transactional_config,
)
from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings, load_settings

CONFIGS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "client": lambda s: client_config(s, "x"),
    "reader": lambda s: reader_config(s, "x"),
    "group": lambda s: group_config(s, "x"),
    "producer": lambda s: producer_config(s, "x"),
    "transactional": lambda s: transactional_config(s, "x", "x"),
}


@pytest.fixture
def careless(tmp_path: Path) -> Settings:
    """An operator who sets what correctness rests on."""
    wishes = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "KAFKA_ALLOW_AUTO_CREATE_TOPICS": "true",
        "KAFKA_ENABLE_AUTO_COMMIT": "true",
        "KAFKA_ENABLE_AUTO_OFFSET_STORE": "true",
        "KAFKA_ISOLATION_LEVEL": "read_uncommitted",
        "KAFKA_AUTO_OFFSET_RESET": "latest",
        "KAFKA_ENABLE_IDEMPOTENCE": "false",
        "KAFKA_ACKS": "0",
        "KAFKA_GROUP_REMOTE_ASSIGNOR": "uniform",
        "KAFKA_TRANSACTION_TIMEOUT_MS": "900000",
    }
    return load_settings(environ=wishes, directory=tmp_path)


@pytest.mark.parametrize("kind", CONFIGS)
def test_no_client_makes_topics_by_naming_them(careless: Settings, kind: str) -> None:
    assert CONFIGS[kind](careless)["allow.auto.create.topics"] is False


@pytest.mark.parametrize("kind", ["reader", "group"])
def test_who_reads_commits_nothing_by_itself_skips_nothing_and_sees_committed_records_only(
    careless: Settings, kind: str
) -> None:
    config = CONFIGS[kind](careless)
    assert config["enable.auto.commit"] is False
    assert config["enable.auto.offset.store"] is False
    assert config["isolation.level"] == "read_committed"
    assert config["auto.offset.reset"] == "error"


def test_lanes_stay_whole_under_either_group_protocol(careless: Settings) -> None:
    assert group_config(careless, "x")["group.remote.assignor"] == "range"
    assert group_config(careless, "x", protocol="classic")["partition.assignment.strategy"] == "range"


@pytest.mark.parametrize("kind", ["producer", "transactional"])
def test_what_is_said_is_acknowledged_by_all_and_not_doubled(careless: Settings, kind: str) -> None:
    config = CONFIGS[kind](careless)
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"


def test_a_dead_process_holds_readers_back_for_ten_seconds(careless: Settings) -> None:
    assert transactional_config(careless, "x", "x")["transaction.timeout.ms"] == 10_000


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KAFKA_SASL_MECHANSM", "PLAIN", 'KAFKA_SASL_MECHANSM: No such configuration property: "sasl.mechansm"'),
        ("KAFKA_SECURITY_PROTOCOL", "hunter2", "KAFKA_SECURITY_PROTOCOL: Invalid value"),
        ("KAFKA_SSL_CA_LOCATION", "/nowhere.pem", "ssl.ca.location failed"),
    ],
)
@pytest.mark.parametrize("kind", [Consumer, Producer, AdminClient])
def test_a_setting_that_the_client_does_not_take_is_named_without_its_value(
    tmp_path: Path, kind: Any, name: str, value: str, said: str
) -> None:
    wishes = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_SECURITY_PROTOCOL": "SSL", name: value}
    settings = load_settings(environ=wishes, directory=tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(said)) as caught:
        opened(kind, client_config(settings, "x", **({"group.id": "x"} if kind is Consumer else {})))
    assert "docs/configuration.md" in str(caught.value)
    assert value == "PLAIN" or value not in str(caught.value)
