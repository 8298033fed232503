"""Every broker was away for a while: who was there before goes on, without a new start."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import Consumer, TopicPartition
from tests.faults.flow import until

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.config import group_config
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.devstack import Stack
from ai_infra.settings import Settings

INPUT, OUTPUT = "job.queued", "canary.retry"


@pytest.fixture
def member(settings: Settings) -> Iterator[Consumer]:
    consumer = Consumer(group_config(settings, "ai-infra.outage"))
    consumer.subscribe([INPUT])
    until(lambda: consumer.poll(0.05) or consumer.assignment(), "it has lanes")
    yield consumer
    consumer.close()


@pytest.fixture
def producers(settings: Settings) -> Iterator[list[TransactionalProducer]]:
    made = [TransactionalProducer(settings, service="canary") for _ in range(3)]
    for producer in made:
        producer.initialise()
    yield made
    for producer in made:
        producer.close()


def test_a_producer_goes_on_after_all_brokers_were_away(
    stack: Stack, member: Consumer, producers: list[TransactionalProducer]
) -> None:
    """By its default librdkafka would wait for ever in the first transaction after the outage."""

    def transact(producer: TransactionalProducer) -> None:
        producer.transact(
            [Outgoing(OUTPUT, 0, None, b"x", ())], [TopicPartition(INPUT, 0, 0)], member.consumer_group_metadata()
        )

    for producer in producers:
        transact(producer)
    stack.kill("kafka")
    stack.start("kafka")  # which takes some seconds: its session from before has to end
    until(lambda: member.poll(0.05) or member.assignment(), "the member is there again")
    with ThreadPoolExecutor(len(producers)) as pool:
        for done in [pool.submit(transact, producer) for producer in producers]:
            done.result()
