"""Bodies to bytes and back, bare and in the framings that stock Avro readers know.

A body written with another known version of the schema is resolved to the present class by Avro's rules. This module
must never guess a framing or a schema: the value and the signed header name them. A schema registry's id names a schema
to stock readers only, since it means nothing without that registry and is not signed.
"""

from __future__ import annotations

from typing import Final, TypeVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.exceptions import BodyTooLarge, UndecodableBody, UnknownSchema
from ai_infra.events.generated import BODIES
from ai_infra.events.schemas import by_crc64, resolved

B = TypeVar("B", bound=Body)

# With headers and signature a record stays far below Kafka's 1 MiB default, and a Postgres page chain stays short.
MAX_BODY_BYTES: Final = 48 * 1024

SINGLE_OBJECT: Final = b"\xc3\x01"
CONFLUENT: Final = b"\x00"
_CRC_END: Final = 2 + 8
_CONFLUENT_END: Final = 1 + 4


def encode_body(body: Body) -> bytes:
    """Bare Avro. Raises BadText, UndecodableBody (a value does not fit) or BodyTooLarge."""
    out = Writer()
    try:
        body.write(out)
    except (AttributeError, TypeError) as error:
        raise UndecodableBody(f"{body.TOPIC}: a value does not fit the schema: {error}") from error
    if len(out) > MAX_BODY_BYTES:
        raise BodyTooLarge(
            f"{body.TOPIC}: expected a body of at most {MAX_BODY_BYTES} bytes; got {len(out)}: "
            "put large things into the object store and send URI and SHA-256"
        )
    return bytes(out)


def decode_body(topic: str, data: bytes, schema_sha256: str | None = None) -> Body:
    """The typed body of bare Avro bytes, written with the present schema or with the one that is named.

    Raises UnknownSchema, UndecodableBody, BadText or BodyTooLarge.
    """
    if len(data) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"{topic}: expected a body of at most {MAX_BODY_BYTES} bytes; got {len(data)}")
    cls = body_class(topic)
    if schema_sha256 is not None and schema_sha256 != cls.SCHEMA_SHA256:
        data = resolved(topic, data, schema_sha256, cls.SCHEMA_SHA256)
    reader = Reader(data)
    body = cls.read(reader)
    reader.end()
    return body


def body_class(topic: str) -> type[Body]:
    """The class of a topic's bodies; raises UnknownSchema."""
    try:
        return BODIES[topic]
    except KeyError:
        raise UnknownSchema(f"expected one of our topics; got {topic!r}") from None


def frame(body: Body) -> bytes:
    """Avro single-object encoding: 0xC3 0x01, CRC-64-AVRO little-endian, body."""
    return SINGLE_OBJECT + body.CRC64 + encode_body(body)


def registry_framing(schema_id: int) -> bytes:
    """The framing of a body whose schema has this id in a schema registry: 0x00, then the id, 4 bytes big-endian."""
    return CONFLUENT + schema_id.to_bytes(_CONFLUENT_END - 1, "big")


def registry_id(value: bytes | None) -> int | None:
    """The schema registry's id in a value that is framed with one, else None."""
    if value is None or value[:1] != CONFLUENT or len(value) < _CONFLUENT_END:
        return None
    return int.from_bytes(value[1:_CONFLUENT_END], "big")


def unframe(topic: str, value: bytes) -> tuple[str | None, bytes]:
    """(schema's SHA-256, bare body) of a record's value in either framing. Raises UnknownSchema or BodyTooLarge.

    No SHA-256 for a schema registry's framing: there, the signed header alone says which schema it is.
    """
    sha256: str | None
    if value[:2] == SINGLE_OBJECT and len(value) >= _CRC_END:
        sha256, body = by_crc64(topic, value[2:_CRC_END]), value[_CRC_END:]
    elif value[:1] == CONFLUENT and len(value) >= _CONFLUENT_END:
        sha256, body = None, value[_CONFLUENT_END:]
    else:
        raise UnknownSchema(
            "expected a value that starts with C3 01 (single-object) or 00 (registry); "
            f"got {value[:10].hex() or 'nothing'}"
        )
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"{topic}: expected a body of at most {MAX_BODY_BYTES} bytes; got {len(body)}")
    return sha256, body
