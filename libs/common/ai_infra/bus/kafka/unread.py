"""What of a topic is unread, and how near it is to being deleted.

Offsets do not say whether anything is unread (transaction markers take some), nor how old it is; so the next record at
each position is looked at. On a reader's own account: no group is joined, no position is moved.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ai_infra.bus.kafka.admin import KafkaAdmin, Partition
from ai_infra.bus.kafka.config import no_broker, opened, reader_config, unavailable
from ai_infra.bus.kafka.consume import check_reader_error, record_from_message
from ai_infra.events.event import Record
from ai_infra.settings import Settings

RETENTION_ALARM: Final = 0.5
"""Share of a topic's retention at which somebody must know: what is deleted before it was read is lost to the log."""

_POLL: Final = 0.2
_SILENCE: Final = 20.0  # seconds without a word from the broker, after which looking is given up


def first_unread(
    settings: Settings, admin: KafkaAdmin, positions: Mapping[Partition, int], what: str
) -> dict[Partition, Record]:
    """The next record at each position, for partitions that have one. `what` names the reader to the broker.

    Raises UnavailableError where the broker does not answer.
    """
    marks = admin.watermarks(positions)
    behind = {p: max(o, marks[p].low) for p, o in positions.items() if o < marks[p].high}
    found: dict[Partition, Record] = {}
    if not behind:
        return found
    waiting = set(behind)
    consumer = opened(Consumer, reader_config(settings, what, **{"queued.max.messages.kbytes": 4096}))
    try:
        consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in behind.items()])
        heard = time.monotonic()
        while waiting:
            message = consumer.poll(_POLL)
            if message is None:
                if time.monotonic() - heard > _SILENCE:
                    raise no_broker(settings, "looking for unread records")
                continue
            place, error = (message.topic() or "", message.partition() or 0), message.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                check_reader_error(error, f"the reader {what}")
                continue
            heard = time.monotonic()
            if place in waiting:
                if error is None:
                    found[place] = record_from_message(message)
                waiting.discard(place)
                consumer.incremental_unassign([TopicPartition(*place)])
    except KafkaException as error:
        raise unavailable("looking for unread records", error) from None
    finally:
        consumer.close()
    return found


def retentions(admin: KafkaAdmin, topics: Iterable[str]) -> dict[str, int | None]:
    """How long each topic keeps a record, as it is set on the broker, milliseconds; None: for ever."""
    configs = admin.configs(sorted(set(topics)))
    kept = {topic: int(config.get("retention.ms") or -1) for topic, config in configs.items()}
    return {topic: ms if ms >= 0 else None for topic, ms in kept.items()}


def retention_used(age_seconds: float, retention_ms: int | None) -> float:
    """The share of its retention that an unread record of this age has used up; 1 and more: it may be deleted now."""
    if retention_ms is None:
        return 0.0
    return max(0.0, age_seconds) * 1000 / max(1, retention_ms)
