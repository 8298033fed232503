"""A dead letter: the record that could not be accepted, byte for byte, with where it came from and why.

Kept in `<service>.dlq`. Headers that begin with `dlq_` are ours; all others are the record's own. A record whose own
headers begin with `dlq_` keeps them too: readers take the last one of a name.
"""

from __future__ import annotations

from typing import Final

from ai_infra.bus.batch import Outgoing
from ai_infra.events.event import Record

REASON_LIMIT: Final = 2_000  # characters: a reason is for people, and a header is no place for a body


def dead_letter(record: Record, *, service: str, code: str, reason: str, now_ms: int) -> Outgoing:
    """The dead letter of `record`, in the partition of its lane. `now_ms`: when it was written, ms since the epoch."""
    headers = list(record.headers)
    headers += [
        ("dlq_topic", record.topic.encode()),
        ("dlq_partition", str(record.partition).encode()),
        ("dlq_offset", str(record.offset).encode()),
        ("dlq_append_time_ms", str(record.append_time_ms).encode()),
        ("dlq_error", code.encode()),
        ("dlq_reason", reason[:REASON_LIMIT].encode("utf-8", "replace")),
        ("dlq_service", service.encode()),
        ("dlq_time", str(now_ms).encode()),
    ]
    return Outgoing(f"{service}.dlq", record.partition, record.key, record.value, headers)
