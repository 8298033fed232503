"""What a process shows of the lanes that it works: how late they are, how far behind.

Only of those that it works now: what a gauge said last of a lane that has moved would be believed beside what its new
owner says, and a halt that was resumed elsewhere would alarm for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, TopicPartition
from prometheus_client import Gauge

from ai_infra.telemetry import metrics

LAG_SECONDS: Final = 5.0  # how often the lag is shown

Place = tuple[str, int]


class LaneGauges:
    """The gauges of one service's lanes in this process. Use from the loop's thread."""

    def __init__(self, service: str, group: str) -> None:
        self._service = service
        self._group = group
        self._appended: dict[int, int] = {}  # append time (ms) of the last record that this turn took, by lane
        self._lag_at = 0.0

    def took(self, lane: int, append_time_ms: int) -> None:
        """Notes a record that was taken."""
        self._appended[lane] = append_time_ms

    def show_delay(self, now: datetime) -> None:
        """How late the lanes are of which this turn took something, by the last that it took."""
        for number, append_time_ms in self._appended.items():
            delay = max(0.0, now.timestamp() - append_time_ms / 1000)
            metrics.BUS_LANE_DELAY.labels(self._service, str(number)).set(delay)
        self._appended.clear()

    def show_lag(self, consumer: Consumer, positions: Callable[[], Mapping[Place, int]]) -> None:
        """Ends, as far as the consumer has heard of them, minus positions."""
        now = time.monotonic()
        if now < self._lag_at:
            return
        self._lag_at = now + LAG_SECONDS
        for (topic, partition), position in positions().items():
            marks = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            if marks is not None and marks[1] >= 0:
                lag = max(0, marks[1] - position)
                metrics.KAFKA_CONSUMER_LAG.labels(self._group, topic, str(partition)).set(lag)

    def gone(self, lane: int, places: Iterable[Place]) -> None:
        """The lane is somebody else's now."""
        self._appended.pop(lane, None)
        for gauge in (metrics.BUS_LANE_HALTED, metrics.BUS_LANE_DELAY, metrics.BUS_STATE_RECORDS):
            _forget(gauge, self._service, str(lane))
        for topic, partition in places:
            _forget(metrics.KAFKA_CONSUMER_LAG, self._group, topic, str(partition))


def _forget(gauge: Gauge, *labels: str) -> None:
    with contextlib.suppress(KeyError):  # it was never set
        gauge.remove(*labels)
