"""A dead letter: the record that could not be accepted, byte for byte, with where it came from and why.

Kept in `<service>.dlq`. Headers that begin with `dlq_` are ours; all others are the record's own. A record whose own
headers begin with `dlq_` keeps them too: readers take the last one of a name.

A record that is larger than any event may be is junk, and a compressed one can be far larger than what its topic takes:
of such a one the head is kept, with its whole length and SHA-256, so that a dead letter can always be written. Nothing
that was cut can be redriven.
"""

from __future__ import annotations

from typing import Final

from ai_infra.bus.batch import Outgoing
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Record

WHOLE_LIMIT: Final = 512 * 1024  # bytes of key, value and headers: ten times what an event may have
KEPT_BYTES: Final = 4 * 1024  # of the key and of the value, where the record is larger
REASON_LIMIT: Final = 2_000  # characters: a reason is for people, and a header is no place for a body


def dead_letter(record: Record, *, service: str, code: str, reason: str, now_ms: int) -> Outgoing:
    """The dead letter of `record`, in the partition of its lane. `now_ms`: when it was written, ms since the epoch."""
    key, value, headers = record.key, record.value, list(record.headers)
    if (size := _size(record)) > WHOLE_LIMIT:
        digest = sha256_hex(value or b"")
        headers = [("dlq_cut", f"{size} bytes in all; value {len(value or b'')} bytes, SHA-256 {digest}".encode())]
        key, value = (key or b"")[:KEPT_BYTES], (value or b"")[:KEPT_BYTES]
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
    return Outgoing(f"{service}.dlq", record.partition, key, value, headers)


def _size(record: Record) -> int:
    named = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + named
