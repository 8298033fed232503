"""Topics and groups on a real broker: made, checked, moved."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, KafkaError

from ai_infra.bus.kafka.admin import GroupActiveError, KafkaAdmin
from ai_infra.bus.kafka.config import KafkaUnavailableError, group_config
from ai_infra.bus.kafka.topics import TopicsError, check_topics, correct_settings, create_topics
from ai_infra.settings import Settings, load_settings


@pytest.fixture
def admin(settings: Settings) -> KafkaAdmin:
    return KafkaAdmin(settings)


@contextmanager
def member(settings: Settings, group: str, protocol: str) -> Iterator[Consumer]:
    """A process in a group that has got its partitions."""
    consumer = Consumer(group_config(settings, group, protocol=protocol))
    consumer.subscribe(["job.queued"])
    deadline = time.monotonic() + 30
    while not consumer.assignment():
        assert time.monotonic() < deadline, "the group gave no partitions"
        consumer.poll(0.1)
    try:
        yield consumer
    finally:
        consumer.close()


def test_a_furnished_stack_has_nothing_to_complain_of_and_creating_again_changes_nothing(settings: Settings) -> None:
    again = create_topics(settings)
    assert (again.topics, again.offsets) == ((), {})
    # How long the broker keeps offsets is the stack's business and said as a remark of its own.
    assert [p for p in check_topics(settings) if not p.subject.startswith("broker")] == []


def test_a_setting_that_was_changed_is_named_and_can_be_set_right(settings: Settings, admin: KafkaAdmin) -> None:
    admin.set_topic_config("canary.retry", {"retention.ms": "1000"})
    problem = next(p for p in check_topics(settings) if p.subject == "canary.retry")
    assert problem.what == "retention.ms is 1000, expected 2592000000"
    assert problem.fix == "ai-infra topics check --fix"
    assert correct_settings(settings) == ("canary.retry",)
    assert not [p for p in check_topics(settings) if p.subject == "canary.retry"]


def test_topics_with_another_number_of_lanes_are_refused(settings: Settings) -> None:
    with pytest.raises(TopicsError, match="AI_INFRA_LANES"):
        create_topics(settings.model_copy(update={"log": settings.log.model_copy(update={"lanes": 5})}))


def test_a_group_that_was_never_placed_cannot_skip_anything(settings: Settings) -> None:
    group = f"test.{secrets.token_hex(4)}"
    consumer = Consumer(group_config(settings, group))
    consumer.subscribe(["job.queued"])
    try:
        deadline = time.monotonic() + 30
        error: KafkaError | None = None
        while error is None and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            error = message.error() if message is not None else None
        assert error is not None
        assert error.code() == KafkaError._AUTO_OFFSET_RESET
    finally:
        consumer.close()


@pytest.mark.parametrize("protocol", ["consumer", "classic"])
def test_a_group_with_members_cannot_be_moved_and_one_without_can(
    settings: Settings, admin: KafkaAdmin, protocol: str
) -> None:
    group = f"test.{secrets.token_hex(4)}"
    place = ("job.queued", 0)
    lanes = [("job.queued", lane) for lane in range(settings.log.lanes)]
    admin.set_offsets(group, dict.fromkeys(lanes, 0))
    with member(settings, group, protocol):
        described = admin.group(group)
        assert (described.state, len(described.members)) == ("stable", 1)
        assert described.members[0].partitions == tuple(lanes)
        with pytest.raises(GroupActiveError, match="stop every replica"):
            admin.set_offsets(group, {place: 0})
    high = admin.watermarks([place])[place].high
    admin.set_offsets(group, {place: high})
    assert admin.committed(group, [place, ("job.queued", 1)]) == {place: high, ("job.queued", 1): 0}


def test_a_group_that_does_not_exist_has_no_members_and_no_position(admin: KafkaAdmin) -> None:
    group = f"test.{secrets.token_hex(4)}"
    assert admin.group(group).members == ()
    assert admin.committed(group, [("job.queued", 0)]) == {("job.queued", 0): None}


def test_a_broker_that_is_not_there_is_said_with_what_to_do() -> None:
    nowhere = load_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    with pytest.raises(KafkaUnavailableError, match="ai-infra dev up"):
        KafkaAdmin(nowhere, timeout=2).topics()
