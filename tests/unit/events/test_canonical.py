"""Canonical JSON: what we sign is byte for byte what RFC 8785 asks for, and has one reading."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from decimal import Decimal

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.events.canonical import MAX_INTEGER, canonical_json, canonical_json_numbers, sha256_hex
from ai_infra.events.exceptions import CanonicalError

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_keys = st.text(st.characters(max_codepoint=0x7F))
_integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
_values = st.recursive(
    st.none() | _texts | _integers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=12,
)

_any_json = st.recursive(
    st.none() | st.booleans() | _texts | _integers | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)


@given(_values)
def test_canonical_json_agrees_with_an_independent_implementation_of_rfc_8785(value: object) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


@given(_any_json)
def test_any_json_is_written_as_an_independent_implementation_of_rfc_8785_writes_it(value: object) -> None:
    assert canonical_json_numbers(value) == rfc8785.dumps(value)  # type: ignore[arg-type]


def test_what_is_nested_deeply_has_a_form_too() -> None:
    nested: object = "x"
    for _ in range(300):
        nested = [nested]
    assert canonical_json_numbers(nested) == b"[" * 300 + b'"x"' + b"]" * 300


def test_control_characters_quotes_and_other_scripts_are_escaped_as_the_rfc_says() -> None:
    assert canonical_json('\x00\x08\t\n\x0c\r\x1b"\\/\x7fé😀') == rb'"\u0000\b\t\n\f\r\u001b\"\\/' + '\x7fé😀"'.encode()


def test_keys_come_in_order_and_without_spaces() -> None:
    assert canonical_json({"b": [1, None], "a": {"z": "x", "B": -1}}) == b'{"a":{"B":-1,"z":"x"},"b":[1,null]}'


@pytest.mark.parametrize(
    "value",
    [
        1.0,
        float("nan"),
        True,
        MAX_INTEGER + 1,
        -MAX_INTEGER - 1,
        Decimal(1),
        b"x",
        datetime(2026, 1, 1, tzinfo=UTC),
        {"é": 1},
        {1: 2},
        {"a": [{"b": 0.5}]},
        {"a": object()},
    ],
)
def test_what_has_no_one_form_is_refused(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonical_json(value)


@pytest.mark.parametrize("value", ["\ud800", ["a\udfff"], {"k": "\ud83d"}])
def test_lone_surrogates_are_refused(value: object) -> None:
    with pytest.raises(CanonicalError):
        canonical_json(value)
    with pytest.raises(CanonicalError):
        canonical_json_numbers(value)


def test_fractions_are_written_as_ecmascript_does_where_they_are_allowed() -> None:
    assert canonical_json_numbers({"b": [1e21, 0.1, -0.0, True], "a": 5e-324}) == b'{"a":5e-324,"b":[1e+21,0.1,0,true]}'
    for none in (float("inf"), MAX_INTEGER + 1, {1: "x"}, [b"x"], {"a": datetime(2026, 1, 1, tzinfo=UTC)}):
        with pytest.raises(CanonicalError):
            canonical_json_numbers(none)


def test_sha256_is_lowercase_hex() -> None:
    assert sha256_hex(b"abc") == hashlib.sha256(b"abc").hexdigest()
