"""Strict reading and writing of Avro's binary encoding, for the generated classes.

Why not a general library on this path: a signed body must mean one thing to every reader. General readers accept a
negative union or enum index (Python then counts from the end), wrap integers that are too long, and ignore trailing
bytes; and going through dicts costs several times as much. Here every deviation is an error. Must never guess.
Format: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeVar

from ai_infra.events.exceptions import BadText, UndecodableBody

T = TypeVar("T")

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MIN_MILLIS: Final = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MILLISECOND
_MAX_MILLIS: Final = (datetime.max.replace(tzinfo=UTC) - EPOCH) // _MILLISECOND


def _varint(n: int) -> bytes:
    z = (n << 1) ^ (n >> 63)
    out = bytearray()
    while z > 0x7F:
        out.append(z & 0x7F | 0x80)
        z >>= 7
    out.append(z)
    return bytes(out)


# Nearly every number written is the length of a string: those come from a table.
_SHORT: Final = tuple(_varint(n) for n in range(2048))


class Record(Protocol):
    """What a generated record offers to a container of records."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""


def write_record(out: Writer, value: Record) -> None:
    """A record as an item of a container."""
    value.write(out)


def rfc3339(value: datetime) -> str:
    """UTC with exactly three fraction digits and Z: the one form of a time in JSON and in headers."""
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat(timespec="milliseconds")[:23] + "Z"


class Writer(bytearray):
    """Bytes of one datum, growing."""

    __slots__ = ()

    def text(self, value: str) -> None:
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise BadText(f"expected text that is valid Unicode; got a lone surrogate at {error.start}") from error
        except AttributeError as error:
            raise UndecodableBody(f"expected text; got {type(value).__name__}") from error
        if 0 in raw:
            raise BadText("expected text without U+0000; Postgres cannot hold it")
        n = len(raw)
        self += _SHORT[n] if n < 2048 else _varint(n)
        self += raw

    def boolean(self, value: bool) -> None:
        if value is True:
            self.append(1)
        elif value is False:
            self.append(0)
        else:
            raise UndecodableBody(f"expected a bool; got {type(value).__name__}")

    def int32(self, value: int) -> None:
        if value.__class__ is not int or not -0x80000000 <= value <= 0x7FFFFFFF:
            raise UndecodableBody(f"expected a 32-bit integer; got {value!r}")
        self += _SHORT[value] if 0 <= value < 2048 else _varint(value)

    def int64(self, value: int) -> None:
        if value.__class__ is not int or not -0x8000000000000000 <= value <= 0x7FFFFFFFFFFFFFFF:
            raise UndecodableBody(f"expected a 64-bit integer; got {value!r}")
        self += _SHORT[value] if 0 <= value < 2048 else _varint(value)

    def millis(self, value: datetime) -> None:
        """timestamp-millis; what is finer than a millisecond is cut off."""
        try:
            n = (value - EPOCH) // _MILLISECOND
        except TypeError as error:
            raise UndecodableBody(f"expected a datetime with a time zone; got {value!r}") from error
        self += _varint(n)

    def enum(self, value: object, index: Mapping[object, int]) -> None:
        try:
            self += _SHORT[index[value]]
        except (KeyError, TypeError) as error:
            raise UndecodableBody(f"expected one of {[str(x) for x in index]}; got {value!r}") from error

    def optional(self, value: T | None, write: Callable[[Writer, T], None]) -> None:
        if value is None:
            self.append(0)
        else:
            self.append(2)
            write(self, value)

    def array(self, values: Sequence[T], write: Callable[[Writer, T], None]) -> None:
        if values.__class__ is str or values.__class__ is bytes:
            raise UndecodableBody(f"expected a sequence of items; got {type(values).__name__}")
        if values:
            self += _varint(len(values))
            for value in values:
                write(self, value)
        self.append(0)

    def mapping(self, values: Mapping[str, T], write: Callable[[Writer, T], None]) -> None:
        """Entries in the order of their keys, so that equal bodies have equal bytes."""
        if values:
            self += _varint(len(values))
            for key in sorted(values):
                self.text(key)
                write(self, values[key])
        self.append(0)


class Reader:
    """A position in the bytes of one datum."""

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.pos = 0

    def end(self) -> None:
        """Raises where bytes are left over."""
        if self.pos != len(self.data):
            raise UndecodableBody(f"expected the body to end after {self.pos} bytes; {len(self.data)} came")

    def _byte(self) -> int:
        try:
            b = self.data[self.pos]
        except IndexError:
            raise UndecodableBody(f"expected more than {len(self.data)} bytes: the body is cut short") from None
        self.pos += 1
        return b

    def int64(self) -> int:
        data, at = self.data, self.pos
        try:
            b = data[at]
            at += 1
            z = b & 0x7F
            shift = 7
            while b > 0x7F:
                if shift > 63:
                    raise UndecodableBody(f"expected an integer of at most 10 bytes; it goes on at byte {at}")
                b = data[at]
                at += 1
                z |= (b & 0x7F) << shift
                shift += 7
        except IndexError:
            raise UndecodableBody(f"expected more than {len(data)} bytes: the body is cut short") from None
        self.pos = at
        if z > 0xFFFFFFFFFFFFFFFF:
            raise UndecodableBody(f"expected an integer of 64 bits; more before byte {at}")
        return (z >> 1) ^ -(z & 1)

    def int32(self) -> int:
        n = self.int64()
        if not -0x80000000 <= n <= 0x7FFFFFFF:
            raise UndecodableBody(f"expected an integer of 32 bits; got {n}")
        return n

    def text(self) -> str:
        data = self.data
        start = self.pos + 1
        try:
            # One or two bytes of length (up to 8 KiB) cover nearly every string: read them here, without a call.
            n = data[start - 1]
            if n > 0x7F:
                high = data[start]
                start += 1
                n = n & 0x7F | high << 7 if high < 0x80 else -1
        except IndexError:
            raise UndecodableBody(f"expected more than {len(data)} bytes: the body is cut short") from None
        if n < 0:
            n = self.int64() << 1
            start = self.pos
        end = start + (n >> 1)
        # An odd number is a negative length.
        if n & 1 or n < 0 or end > len(data):
            raise UndecodableBody(f"expected a string of 0..{len(data) - start} bytes at byte {start}; there is none")
        self.pos = end
        raw = data[start:end]
        if 0 in raw:
            raise BadText(f"expected text without U+0000; found it in the string at byte {start}")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise BadText(f"expected UTF-8 in the string at byte {start}: {error.reason}") from error

    def boolean(self) -> bool:
        b = self._byte()
        if b > 1:
            raise UndecodableBody(f"expected 0 or 1 for a boolean; got {b}")
        return b == 1

    def millis(self) -> datetime:
        n = self.int64()
        if not _MIN_MILLIS <= n <= _MAX_MILLIS:
            raise UndecodableBody(f"expected a time in the years 1 to 9999; got {n} ms")
        return EPOCH + timedelta(milliseconds=n)

    def enum(self, symbols: tuple[T, ...]) -> T:
        n = self.int64()
        if not 0 <= n < len(symbols):
            raise UndecodableBody(f"expected an enum index below {len(symbols)}; got {n}")
        return symbols[n]

    def optional(self, read: Callable[[Reader], T]) -> T | None:
        data, at = self.data, self.pos
        branch = data[at] if at < len(data) else -1
        # Nearly every branch is one byte: it is read here, without a call.
        if branch == 0:
            self.pos = at + 1
            return None
        if branch == 2:
            self.pos = at + 1
            return read(self)
        n = self.int64()
        if n == 0:
            return None
        if n == 1:
            return read(self)
        raise UndecodableBody(f"expected union branch 0 or 1; got {n}")

    def _count(self) -> int:
        """Items in the next block; 0 ends. A negative count is followed by the block's size in bytes."""
        n = self.int64()
        if n < 0:
            n = -n
            size = self.int64()
            if not 0 <= size <= len(self.data) - self.pos:
                raise UndecodableBody(f"expected a block of at most {len(self.data) - self.pos} bytes; got {size}")
        # Every item here takes at least one byte, so a larger count is a lie that would only cost memory.
        if n > len(self.data) - self.pos:
            raise UndecodableBody(f"expected at most {len(self.data) - self.pos} items; the block says {n}")
        return n

    def array(self, read: Callable[[Reader], T]) -> tuple[T, ...]:
        if self.data[self.pos : self.pos + 1] == b"\0":
            self.pos += 1
            return ()
        n = self._count()
        items: list[T] = []
        while n:
            items += [read(self) for _ in range(n)]
            n = self._count()
        return tuple(items)

    def mapping(self, read: Callable[[Reader], T]) -> dict[str, T]:
        entries: dict[str, T] = {}
        while n := self._count():
            for _ in range(n):
                key = self.text()
                if key in entries:
                    raise UndecodableBody(f"expected each key of a map once; {key!r} came twice")
                entries[key] = read(self)
        return entries
