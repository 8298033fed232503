"""Reads committed answers as a subscriber gets them, and notes when each arrived.

Latency is from the append of the question (the broker's clock) to the arrival of the answer at a reader that sees
committed records only, on the same machine: what an orchestrator that waits would see, the commit included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.config import reader_config
from ai_infra.bus.kafka.consume import record_from_message
from ai_infra.events.event import Unverified
from ai_infra.events.parse import read
from ai_infra.settings import Settings

ANSWER_SECONDS = 30.0


class Answers:
    """Everything that is said on these topics from now on."""

    def __init__(self, settings: Settings, topics: tuple[str, ...]) -> None:
        self._lanes = settings.log.lanes
        places = [(t, p) for t in topics for p in range(self._lanes)]
        ends = KafkaAdmin(settings).watermarks(places)
        self._consumer = Consumer(reader_config(settings, "bench", **{"enable.partition.eof": False}))
        self._consumer.assign([TopicPartition(t, p, ends[t, p].high) for t, p in places])

    def wait(self, wanted: Callable[[Unverified, Any], str | None], number: int = 1) -> dict[str, float]:
        """Arrival times (seconds since the epoch) by what `wanted` names an answer, until there are so many."""
        found: dict[str, float] = {}
        deadline = time.monotonic() + ANSWER_SECONDS
        while len(found) < number:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(found)} of {number} answers came within {ANSWER_SECONDS:.0f} s")
            message = self._consumer.poll(0.2)
            if message is None or message.error() is not None:
                continue
            arrived = time.time()
            unverified = read(record_from_message(message), self._lanes)
            name = wanted(unverified, unverified.decode())
            if name is not None:
                found.setdefault(name, arrived)
        return found

    def close(self) -> None:
        self._consumer.close()
