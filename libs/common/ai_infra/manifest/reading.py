"""Reading JSON from the outside, strictly: no repeated name, no unknown field, nothing of the wrong type.

Whoever reads a field says what it must be; the error names the field and what came. Lenience here would let two
readers of one signed document see two things.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ai_infra.manifest.exceptions import ManifestError

SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")
_MAX_INTEGER: Final = 2**53 - 1


def parse_json(data: bytes, error: type[ManifestError], what: str) -> Any:
    """Parse UTF-8 JSON without repeated names, NaN, infinities or U+0000."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            raise error(f"{what}: a name occurs twice in one object")
        return found

    def constant(name: str) -> Any:
        raise error(f"{what}: {name} is no JSON number")

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant, parse_int=_integer)
        if b"\\u" in data and any(_unstorable(text) for text in _texts(value)):
            raise error(f"{what}: U+0000 and lone surrogates are no text")
    except (ValueError, OverflowError, RecursionError) as cause:
        raise error(f"{what} is not JSON: {cause}") from None
    return value


def _integer(digits: str) -> int | float:
    """JSON knows doubles only: 1e17 is written 100000000000000000, and is a double again when it is read."""
    value = int(digits)
    return value if -_MAX_INTEGER <= value <= _MAX_INTEGER else float(value)


def _unstorable(text: str) -> bool:
    return any(char == "\x00" or "\ud800" <= char <= "\udfff" for char in text)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


class Fields:
    """The fields of one JSON object, each read once; `end()` refuses what nobody asked for."""

    def __init__(self, value: object, error: type[ManifestError], what: str) -> None:
        if not isinstance(value, Mapping):
            raise error(f"{what}: expected an object, got {type(value).__name__}")
        self._left = dict(value)
        self._error = error
        self._what = what

    def fail(self, name: str, expected: str, value: object) -> ManifestError:
        """The error for a field that is not what was expected."""
        return self._error(f"{self._what}.{name}: expected {expected}, got {repr(value)[:120]}")

    def value(self, name: str) -> Any:
        """A field of any type; it must be there."""
        if name not in self._left:
            raise self._error(f"{self._what}.{name} is missing")
        return self._left.pop(name)

    def has(self, name: str) -> bool:
        """Whether an optional field is there and not yet read."""
        return name in self._left

    def text(self, name: str, form: re.Pattern[str] | None = None) -> str:
        """Text without U+0000, of the given form."""
        value = self.value(name)
        if not isinstance(value, str) or "\x00" in value:
            raise self.fail(name, "text", value)
        if form is not None and not form.fullmatch(value):
            raise self.fail(name, f"text of the form {form.pattern}", value)
        return value

    def optional_text(self, name: str, form: re.Pattern[str] | None = None) -> str | None:
        """Text or null. The field itself must be there."""
        if self._left.get(name, "") is None:
            del self._left[name]
            return None
        return self.text(name, form)

    def integer(self, name: str, low: int = 0, high: int = _MAX_INTEGER) -> int:
        """An integer in a range."""
        value = self.value(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.fail(name, f"an integer {low}..{high}", value)
        return value

    def optional_integer(self, name: str, low: int = 0, high: int = _MAX_INTEGER) -> int | None:
        """An integer in a range, or null."""
        if self._left.get(name, 0) is None:
            del self._left[name]
            return None
        return self.integer(name, low, high)

    def boolean(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.fail(name, "true or false", value)
        return value

    def time(self, name: str) -> datetime:
        """RFC 3339 in UTC, cut to milliseconds."""
        value = self.text(name, _TIME)
        try:
            found = datetime.fromisoformat(value).astimezone(UTC)
        except ValueError:
            raise self.fail(name, "a time", value) from None
        return found.replace(microsecond=found.microsecond // 1000 * 1000)

    def optional_time(self, name: str) -> datetime | None:
        """A time or null."""
        if self._left.get(name, "") is None:
            del self._left[name]
            return None
        return self.time(name)

    def object(self, name: str) -> dict[str, Any]:
        """A JSON object, as it is."""
        value = self.value(name)
        if not isinstance(value, dict):
            raise self.fail(name, "an object", value)
        return value

    def list(self, name: str, at_most: int) -> list[Any]:
        """A JSON list of bounded length."""
        value = self.value(name)
        if not isinstance(value, list) or len(value) > at_most:
            raise self.fail(name, f"a list of at most {at_most}", value)
        return value

    def fields(self, name: str) -> Fields:
        """The fields of an object inside."""
        return Fields(self.value(name), self._error, f"{self._what}.{name}")

    def end(self) -> None:
        """Raise unless every field has been read."""
        if self._left:
            raise self._error(f"{self._what} has unknown fields: {', '.join(sorted(map(str, self._left)))[:200]}")


def texts(values: list[Any], error: type[ManifestError], what: str) -> tuple[str, ...]:
    """A list of texts."""
    for value in values:
        if not isinstance(value, str) or "\x00" in value:
            raise error(f"{what}: expected texts, got {repr(value)[:120]}")
    return tuple(values)
