"""A dead letter can always be written, and says where its record came from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ai_infra.bus.deadletters import KEPT_BYTES, WHOLE_LIMIT, dead_letter
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Record

LARGEST = 1_000_000  # what a dead-letter topic surely takes


@given(
    key=st.none() | st.binary(max_size=100),
    value=st.none() | st.binary(max_size=1_000),
    headers=st.lists(st.tuples(st.text(max_size=10), st.binary(max_size=50)), max_size=5),
)
def test_what_an_event_could_be_is_kept_byte_for_byte(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    record = Record("job.queued", 3, 17, 1_700_000_000_000, key, value, tuple(headers))
    letter = dead_letter(record, service="trainer", code="bad", reason="why", now_ms=1)
    assert (letter.topic, letter.partition, letter.key, letter.value) == ("trainer.dlq", 3, key, value)
    assert list(letter.headers)[: len(headers)] == headers
    ours = dict(list(letter.headers)[len(headers) :])
    assert ours["dlq_topic"] == b"job.queued"
    assert ours["dlq_offset"] == b"17"
    assert ours["dlq_error"] == b"bad"


def test_a_record_larger_than_any_event_is_cut_and_named_by_its_hash() -> None:
    value = b"z" * (50 * WHOLE_LIMIT)  # a compressed batch of zeros is small on the wire
    record = Record("job.queued", 0, 0, 0, b"k" * WHOLE_LIMIT, value, tuple(("h", bytes(1_000)) for _ in range(1_000)))
    letter = dead_letter(record, service="trainer", code="body_too_large", reason="x" * 10_000, now_ms=1)
    written = len(letter.key or b"") + len(letter.value or b"") + sum(len(n) + len(v) for n, v in letter.headers)
    assert written < LARGEST
    assert letter.value == value[:KEPT_BYTES]
    assert sha256_hex(value).encode() in dict(letter.headers)["dlq_cut"]
