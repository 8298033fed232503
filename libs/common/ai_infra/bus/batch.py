"""What one Kafka transaction will hold: records to produce, and the input positions that they follow from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter as Metric

from ai_infra.events.values import value

Headers = Sequence[tuple[str, bytes]]


@value()
class Outgoing:
    """A record to produce, byte for byte."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


@dataclass(slots=True)
class Batch:
    """Collected while triggers are decided; one that is aborted is dropped whole.

    `first` and `next` are offsets by (topic, partition): where the batch began, from where its input is read again if
    it is aborted, and where the input goes on after it.
    """

    outgoing: list[Outgoing] = field(default_factory=list)
    first: dict[tuple[str, int], int] = field(default_factory=dict)
    next: dict[tuple[str, int], int] = field(default_factory=dict)
    lanes: set[int] = field(default_factory=set)
    taken: int = 0
    counts: Counter[tuple[Metric, tuple[str, ...]]] = field(default_factory=Counter)

    def count(self, metric: Metric, *labels: str) -> None:
        """Has a counter moved by one when, and only when, the batch is committed."""
        self.counts[(metric, labels)] += 1  # the child of these labels is looked up once a batch, not once an event

    def committed(self) -> None:
        for (metric, labels), by in self.counts.items():
            metric.labels(*labels).inc(by)

    def took(self, topic: str, partition: int, offset: int) -> None:
        self.taken += 1
        self.first.setdefault((topic, partition), offset)
        self.next[(topic, partition)] = offset + 1
        self.lanes.add(partition)

    @property
    def empty(self) -> bool:
        return not self.outgoing and not self.next
