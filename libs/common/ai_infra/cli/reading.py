"""Reading topics for a command: ranges of partitions as they are in Kafka, each record with the verdict on it.

Committed records only, on a reader's own account: no group is joined, no position is moved.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ai_infra.bus.kafka.admin import KafkaAdmin, Partition
from ai_infra.bus.kafka.config import no_broker, opened, reader_config, unavailable
from ai_infra.bus.kafka.consume import check_reader_error, record_from_message
from ai_infra.client.gate import Gate
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import TrustError

_BATCH: Final = 1000
_POLL: Final = 0.2
_SILENCE: Final = 20.0  # seconds without a word from the broker, after which a bounded read gives up


@dataclass(frozen=True, slots=True)
class Judged:
    """A record and what is to be thought of it: an `event`, or the `error` that says why it is none."""

    record: Record
    event: Event[Any] | None
    error: EventError | TrustError | None


def judge(gate: Gate, record: Record) -> Judged:
    """Verifies a record."""
    try:
        return Judged(record, gate.verify(record), None)
    except (EventError, TrustError) as error:
        return Judged(record, None, error)


class LogReader:
    """Reads records of given partitions, bounded or for ever."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.admin = KafkaAdmin(settings)

    def whole(self, partitions: Iterable[Partition]) -> Iterator[Record]:
        """Everything that is there now, partition by partition in order, partitions mixed."""
        marks = self.admin.watermarks(partitions)
        return self.between({p: m.low for p, m in marks.items()}, {p: m.high for p, m in marks.items()})

    def since(self, partitions: Iterable[Partition], time_ms: int) -> Iterator[Record]:
        """What was appended at or after a time and is there now."""
        wanted = list(partitions)
        ends = {p: m.high for p, m in self.admin.watermarks(wanted).items()}
        return self.between(self.admin.offsets_at(wanted, time_ms), ends)

    def last(self, partitions: Iterable[Partition], count: int, keep: Callable[[Record], bool]) -> list[Record]:
        """The newest `count` records that `keep` lets through, in order of append time; looks further back as needed.

        Offsets are no count of records (transactions take some, `keep` drops others), so each partition is read
        backwards in growing steps until enough are found or its start is reached.
        """
        marks = {p: m for p, m in self.admin.watermarks(partitions).items() if m.high > m.low}
        bounds = {p: m.high for p, m in marks.items()}
        found: list[Record] = []
        step = max(64, 2 * count // max(1, len(marks)))
        while bounds:
            starts = {p: max(marks[p].low, end - step) for p, end in bounds.items()}
            found = heapq.nlargest(
                count, [*found, *filter(keep, self.between(starts, bounds))], key=lambda r: r.append_time_ms
            )
            # A partition can hold nothing newer than its oldest record read, once enough newer ones are known.
            bounds = {p: start for p, start in starts.items() if start > marks[p].low}
            if len(found) >= count and step >= count:
                break
            step *= 4
        return sorted(found, key=lambda r: (r.append_time_ms, r.topic, r.partition, r.offset))

    def between(self, starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[Record]:
        """Records from `starts` up to, without, `ends`."""
        open_ends = {p: end for p, end in ends.items() if starts[p] < end}
        if not open_ends:
            return
        with self._consumer({p: starts[p] for p in open_ends}) as consumer:
            heard = time.monotonic()
            while open_ends:
                messages = _consume(consumer)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENCE:
                    raise no_broker(self._settings, "reading the log")
                for message in messages:
                    place = (message.topic(), message.partition())
                    if place not in open_ends:
                        continue
                    error = message.error()
                    if error is None:
                        record = record_from_message(message)
                        if record.offset < open_ends[place]:
                            yield record
                        if record.offset + 1 < open_ends[place]:
                            continue
                    elif error.code() != KafkaError._PARTITION_EOF:
                        check_reader_error(error, "this command")
                        continue
                    elif message.offset() < open_ends[place]:
                        continue
                    del open_ends[place]

    def follow(self, starts: Mapping[Partition, int]) -> Iterator[Record | None]:
        """Records as they come, for ever; None now and then when nothing has come."""
        with self._consumer(starts) as consumer:
            while True:
                messages = _consume(consumer)
                for message in messages:
                    error = message.error()
                    if error is None:
                        yield record_from_message(message)
                    elif error.code() != KafkaError._PARTITION_EOF:
                        check_reader_error(error, "this command")
                yield None

    @contextmanager
    def _consumer(self, starts: Mapping[Partition, int], **options: Any) -> Iterator[Consumer]:
        consumer = opened(Consumer, reader_config(self._settings, "cli", **options))
        try:
            consumer.assign([TopicPartition(t, p, offset) for (t, p), offset in starts.items()])
            yield consumer
        except KafkaException as error:
            raise unavailable("reading the log", error) from None
        finally:
            consumer.close()


def partitions_of(topics: Sequence[str], lanes: Iterable[int]) -> list[Partition]:
    """Partitions of lane topics in these lanes."""
    return [(topic, lane) for topic in topics for lane in lanes]


def _consume(consumer: Consumer) -> list[Any]:
    """What has come; returns as soon as something has, since `consume` alone would wait for its whole time."""
    first = consumer.poll(_POLL)
    return [] if first is None else [first, *consumer.consume(_BATCH - 1, timeout=0)]
