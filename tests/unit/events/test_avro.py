"""Strict Avro: each deviation from the one reading is an error, also where other libraries let it pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.exceptions import BadText, UndecodableBody
from ai_infra.events.strict import check_datum

ENUM = {"type": "enum", "name": "E", "symbols": ["unknown", "a"], "default": "unknown"}


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_long_comes_back(n: int) -> None:
    out = Writer()
    out.int64(n)
    reader = Reader(bytes(out))
    assert reader.int64() == n
    reader.end()


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"\x00", 0), (b"\x01", -1), (b"\x02", 1), (b"\x80\x01", 64), (b"\xff" * 9 + b"\x01", -(2**63))],
)
def test_integers_are_zigzag_varints(raw: bytes, value: int) -> None:
    assert Reader(raw).int64() == value


@pytest.mark.parametrize("length", [0, 1, 63, 64, 8191, 8192, 40_000])
def test_strings_of_every_length_come_back(length: int) -> None:
    out = Writer()
    out.text("x" * length)
    reader = Reader(bytes(out))
    assert reader.text() == "x" * length
    reader.end()


@pytest.mark.parametrize(
    ("schema", "raw"),
    [
        ("long", b""),
        ("long", b"\xff" * 10 + b"\x01"),
        ("long", b"\xff" * 9 + b"\x02"),
        ("long", b"\x80"),
        ("int", b"\xff\xff\xff\xff\x1f"),
        ("string", b"\x01abc"),
        ("string", b"\x03abc"),
        ("string", b"\x08abc"),
        ("string", b"\x81\x80\x80\x01abc"),
        ("string", b"\xff" * 9 + b"\x01abc"),
        ("string", b"\x80"),
        ("boolean", b"\x02"),
        (ENUM, b"\x01"),
        (ENUM, b"\x04"),
        (["null", "string"], b"\x01\x06abc"),
        (["null", "string"], b"\x04\x06abc"),
        ({"type": "array", "items": "string"}, b"\x80\x80\x80\x80\x80\x80\x02"),
        ({"type": "array", "items": "string"}, b"\x01\x7f\x00\x00"),
        ({"type": "array", "items": "long"}, b"\x02\x02"),
        ({"type": "map", "values": "long"}, b"\x04\x02a\x02\x02a\x04\x00"),
        ({"type": "long", "logicalType": "timestamp-millis"}, b"\xfe" + b"\xff" * 8 + b"\x01"),
        ("long", b"\x02\x02"),
    ],
)
def test_malformed_bytes_are_refused(schema: Any, raw: bytes) -> None:
    with pytest.raises(UndecodableBody):
        check_datum(schema, raw)


@pytest.mark.parametrize("raw", [b"\x06a\x00b", b"\x06\xed\xa0\x80", b"\x04\xc0\x80", b"\x02\xff"])
def test_bad_text_is_refused(raw: bytes) -> None:
    with pytest.raises(BadText):
        check_datum("string", raw)  # type: ignore[arg-type]  # a bare type is a schema too


def test_a_block_with_its_size_is_read_as_the_specification_allows() -> None:
    # Two items in a block of 4 bytes, then one more block, then the end: what writers that skip blocks produce.
    assert Reader(b"\x03\x08\x02a\x02b\x02\x02c\x00").array(Reader.text) == ("a", "b", "c")


def test_a_count_that_the_body_cannot_hold_is_refused_before_anything_is_read() -> None:
    calls: list[int] = []

    def item(reader: Reader) -> None:
        calls.append(reader.pos)

    reader_of_many: Callable[[], object] = lambda: Reader(b"\xfe\xff\xff\xff\xff\x01\x00").array(item)  # noqa: E731
    with pytest.raises(UndecodableBody):
        reader_of_many()
    assert calls == []
