"""Canonical JSON (RFC 8785) and SHA-256: the bytes that two parties must recompute alike.

`canonical_json` is for what we sign: strings, integers, null, objects, arrays. It must never emit a floating-point
number or a bool, nor accept what orjson would quietly convert (datetimes, dataclasses, UUIDs).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import Any, Final

import orjson
import rfc8785

from ai_infra.events.exceptions import CanonicalError

# RFC 8785 takes numbers as IEEE doubles, so larger integers would not survive other people's parsers (RFC 7493, 2.2).
MAX_INTEGER: Final = 2**53 - 1


def canonical_json(value: object) -> bytes:
    """RFC 8785 bytes of strings, integers (|n| < 2^53), None, lists, and objects with ASCII keys."""
    _check(value)
    try:
        # orjson sorts keys by code point, RFC 8785 by UTF-16 unit: the same for ASCII keys, which `_check` ensures.
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise CanonicalError(f"no canonical JSON form: {error}") from error


def canonical_json_numbers(value: Any) -> bytes:
    """RFC 8785 bytes of any JSON value, fractions and bools included. For manifests, never for what is signed bare."""
    try:
        if _without_fractions(value):  # nearly everything, and ten times as fast
            with suppress(orjson.JSONEncodeError):  # nested deeper than orjson goes, or with a lone surrogate
                return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, TypeError) as error:
        raise CanonicalError(f"no canonical JSON form: {error}") from error


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lowercase hex digits."""
    return hashlib.sha256(data).hexdigest()


def _check(value: object) -> None:
    if value is None or isinstance(value, str):
        return
    if isinstance(value, bool):
        raise CanonicalError("expected text, integers, null, lists or objects; got a bool: say it as text or 0/1")
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise CanonicalError(f"expected an integer within ±(2^53-1); got {value}: send it as text")
        return
    if isinstance(value, list | tuple):
        for item in value:
            _check(item)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise CanonicalError(f"expected ASCII text as object key; got {key!r}")
            if type(item) is not str:  # most are
                _check(item)
        return
    raise CanonicalError(f"expected text, integers, null, lists or objects; got {type(value).__name__}")


def _without_fractions(value: Any) -> bool:
    """Whether orjson writes it as RFC 8785 does: no fraction, no key beyond ASCII, no integer that is too large."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return abs(int(value)) <= MAX_INTEGER
    if kind is list or kind is tuple:
        return all(map(_without_fractions, value))
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str or not key.isascii() or not (type(item) is str or _without_fractions(item)):
                return False
        return True
    return False
