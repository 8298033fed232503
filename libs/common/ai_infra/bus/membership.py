"""A replica in its service's group: which partitions it is given, and which of them are not to be read now.

What is given is paused at once: nothing of a lane is read before whoever works it has placed it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from ai_infra.bus.assignment import Assignment
from ai_infra.bus.kafka.config import opened
from ai_infra.telemetry import metrics

Place = tuple[str, int]


class Membership:
    """Use from one thread; `joined` and `assignment` may be read from any."""

    def __init__(
        self,
        service: str,
        consumer_config: dict[str, Any],
        assignment: Assignment,
        give_up: Callable[[list[Place]], None],
    ) -> None:
        """`give_up` is told what is taken away, while it is still held; only within a call of the consumer."""
        self.group = str(consumer_config["group.id"])
        self.consumer = opened(Consumer, consumer_config)
        self.assignment = assignment
        self.joined = False
        self.paused: set[Place] = set()
        self._service = service
        self._incremental = consumer_config.get("group.protocol") == "consumer"
        self._give_up = give_up

    def join(self) -> None:
        """From the next call of the consumer on."""
        self.consumer.subscribe(
            list(self.assignment.inputs),
            on_assign=self._on_assign,
            on_revoke=lambda _, partitions: self._gone("revoked", partitions),
            on_lost=lambda _, partitions: self._gone("lost", partitions),
        )

    def hold(self, wanted: set[Place]) -> None:
        """Has just these paused, of what is held."""
        held = {(p.topic, p.partition) for p in self.consumer.assignment()}
        wanted &= held
        if to_pause := wanted - self.paused:
            self.consumer.pause([TopicPartition(*place) for place in sorted(to_pause)])
        if to_resume := (self.paused & held) - wanted:
            self.consumer.resume([TopicPartition(*place) for place in sorted(to_resume)])
        self.paused = wanted

    def seek(self, place: Place, offset: int) -> None:
        self.consumer.seek(TopicPartition(*place, offset))

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.joined = True
        metrics.BUS_REBALANCES.labels(self._service, "assigned").inc()
        if not self._incremental:
            consumer.assign(partitions)
        elif partitions:
            consumer.incremental_assign(partitions)
        if partitions:
            consumer.pause(partitions)
        places = _places(partitions)
        self.paused.update(places)
        self.assignment.add(places)

    def _gone(self, how: str, partitions: list[TopicPartition]) -> None:
        metrics.BUS_REBALANCES.labels(self._service, how).inc()
        places = _places(partitions)
        self.assignment.remove(places)
        self.paused.difference_update(places)
        self._give_up(places)
        if not self._incremental:
            self.consumer.unassign()
        elif partitions:
            self.consumer.incremental_unassign(partitions)


def _places(partitions: list[TopicPartition]) -> list[Place]:
    return [(p.topic, p.partition) for p in partitions]
