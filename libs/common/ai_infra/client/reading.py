"""Reads topics of the log on a client's own account: assigned partitions, committed records, verified events.

It joins no group and commits nothing; where to begin is always said by who reads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ai_infra.bus.kafka.admin import KafkaAdmin, Partition
from ai_infra.bus.kafka.config import opened, reader_config, unavailable
from ai_infra.bus.kafka.consume import check_reader_error, record_from_message
from ai_infra.client.exceptions import AnswerTimeout, ClientClosed
from ai_infra.client.gate import Gate
from ai_infra.events.event import Event
from ai_infra.events.exceptions import EventError
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import TrustError

log = structlog.get_logger(__name__)

_POLL: Final = 0.2  # how long a read blocks before it looks whether it should end
_BATCH: Final = 200
_QUEUE_KIB: Final = 16 * 1024  # what librdkafka fetches ahead, over all partitions: who reads slowly is not filled up


class Reader:
    """Verified events of some partitions, from given offsets on. Use from one thread; `close` from any."""

    def __init__(
        self, settings: Settings, gate: Gate, offsets: Mapping[Partition, int], closed: threading.Event
    ) -> None:
        self._gate = gate
        self._closed = closed
        self._mine = threading.Event()
        self._lock = threading.Lock()
        self._positions = dict(offsets)
        self.refused = 0
        """Records passed over because they did not verify."""
        self._consumer = opened(
            Consumer,
            reader_config(
                settings,
                "client",
                **{"queued.max.messages.kbytes": _QUEUE_KIB, "queued.min.messages": 1_000},
            ),
        )
        self._consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in offsets.items()])

    def poll(self, timeout: float) -> list[Event[Any]]:
        """What has come within `timeout` seconds; empty when nothing has. Raises ClientClosed after `close`."""
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            messages, taken = self._consume(max(0.0, min(_POLL, left))), time.monotonic()
            events = [event for message in messages if (event := self._event(message, taken)) is not None]
            if events or left <= 0:
                return events
            self._gate.follow()

    def until(self, ends: Mapping[Partition, int], timeout: float) -> Iterator[Event[Any]]:
        """Events up to these offsets (exclusive), then it ends: what was there at one moment. Raises AnswerTimeout."""
        deadline = time.monotonic() + timeout
        while any(self._positions[p] < end for p, end in ends.items()):
            if time.monotonic() > deadline:
                raise AnswerTimeout(f"the log was not read to its end within {timeout:.0f} s; is the broker well?")
            for event in self.poll(_POLL):
                if event.record.offset < ends[event.record.topic, event.record.partition]:
                    yield event

    def close(self) -> None:
        """Ends it; a `poll` in another thread returns with ClientClosed."""
        self._mine.set()
        with self._lock:
            self._consumer.close()

    def _consume(self, timeout: float) -> list[Any]:
        with self._lock:
            if self._mine.is_set() or self._closed.is_set():
                raise ClientClosed("the client was closed while it was reading")
            try:
                return list(self._consumer.consume(_BATCH, timeout=timeout))
            except KafkaException as error:
                raise unavailable("reading the log", error) from None

    def _event(self, message: Any, taken: float) -> Event[Any] | None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                place = message.topic(), message.partition()
                self._positions[place] = max(self._positions[place], message.offset())
            else:
                check_reader_error(error, "this subscription")
            return None
        record = record_from_message(message)
        self._positions[record.topic, record.partition] = record.offset + 1
        try:
            return self._gate.verify(record, taken)
        except (EventError, TrustError) as refused:
            self.refused += 1
            log.warning(
                "record does not verify and is passed over",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                code=refused.code,
                why=str(refused),
            )
            return None


def starts(admin: KafkaAdmin, partitions: list[Partition]) -> dict[Partition, int]:
    """First offsets that are still there."""
    return {p: marks.low for p, marks in admin.watermarks(partitions).items()}


def ends(admin: KafkaAdmin, partitions: list[Partition]) -> dict[Partition, int]:
    """Ends as of now: nothing that is said from now on comes before them."""
    return admin.committed_ends(partitions)
