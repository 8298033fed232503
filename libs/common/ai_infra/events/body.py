"""The base of all generated bodies: what a class of `ai_infra.events.generated` offers beside its fields.

It must stay free of behaviour: meaning belongs to services, bytes to the codec.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from ai_infra.events.avro import Reader, Writer


class Body:
    """Body of an event: one subclass a topic, never changed, compared by value (`events.values`)."""

    __slots__ = ()

    TOPIC: ClassVar[str]
    """The topic, which is also the event's type."""
    SCHEMA_SHA256: ClassVar[str]
    """Fingerprint of the schema: SHA-256 of its RFC 8785 form, 64 hex digits."""
    CRC64: ClassVar[bytes]
    """CRC-64-AVRO of the schema's parsing canonical form, 8 bytes, little-endian as in single-object framing."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        raise NotImplementedError

    @classmethod
    def read(cls, data: Reader) -> Self:
        """Reads one datum written with this very schema."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: times as RFC 3339 text with milliseconds, enums as their symbols, arrays as lists."""
        raise NotImplementedError
