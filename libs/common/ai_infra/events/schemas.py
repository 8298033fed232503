"""The schemas that this process can read: present and released ones, and those that it has learned.

A schema may be learned from anywhere (registry, archive), since what is signed names it by the SHA-256 of its whole
text: a wrong text has another name. So an older reader follows a newer writer by Avro's resolution. It must never
learn what breaks the rules of the house, nor a schema of another topic's record.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException

from ai_infra.events.exceptions import UndecodableBody, UnknownSchema
from ai_infra.events.fingerprint import schema_crc64, schema_sha256, schema_text
from ai_infra.events.generated import BODIES, CRC64S, SCHEMAS, TOPIC_OF
from ai_infra.events.rules import SchemaError, check_schema
from ai_infra.events.strict import check_datum

MAX_SCHEMA_BYTES: Final = 256 * 1024

_texts: Final[dict[str, str]] = dict(SCHEMAS)
_topics: Final[dict[str, str]] = dict(TOPIC_OF)
_crcs: Final[dict[str, bytes]] = dict(CRC64S)
# Versions of one topic that differ in words only share a CRC; the present one stands for all, as they decode alike.
_by_crc: Final[dict[tuple[str, bytes], str]] = {
    **{(TOPIC_OF[sha256], crc): sha256 for sha256, crc in CRC64S.items()},
    **{(topic, body.CRC64): body.SCHEMA_SHA256 for topic, body in BODIES.items()},
}
_learning: Final = threading.Lock()

KNOWN: Final[Mapping[str, str]] = MappingProxyType(_texts)
"""Text (RFC 8785 form) of every known schema by its SHA-256: what is archived as `schemas/<sha256>.avsc`."""


def topic_of(sha256: str) -> str | None:
    """The topic whose bodies a known schema describes."""
    return _topics.get(sha256)


def crc64_of(sha256: str) -> bytes:
    """CRC-64-AVRO of a known schema, little-endian."""
    return _crcs[sha256]


def by_crc64(topic: str, crc64: bytes) -> str:
    """SHA-256 of a topic's schema with this CRC; raises UnknownSchema."""
    sha256 = _by_crc.get((topic, crc64))
    if sha256 is None:
        raise UnknownSchema(
            f"expected the fingerprint of a schema of {topic}; got CRC-64 {crc64.hex()}: "
            "this reader may be older than the writer"
        )
    return sha256


def learn(topic: str, text: str) -> str:
    """Makes a schema known that came from outside; returns its SHA-256. Raises UnknownSchema where it can't be ours."""
    if len(text) > MAX_SCHEMA_BYTES:
        raise UnknownSchema(f"{topic}: expected a schema of at most {MAX_SCHEMA_BYTES} characters; got {len(text)}")
    if topic not in BODIES:
        raise UnknownSchema(f"expected one of our topics; got {topic!r}")
    try:
        schema = json.loads(text)
        check_schema(topic, schema)
        _checked_name(topic, schema)
        parse_schema(json.loads(text))
        sha256, crc64, canonical = schema_sha256(schema), schema_crc64(schema), schema_text(schema)
    except (SchemaError, SchemaParseException, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UnknownSchema(f"{topic}: expected a schema of this topic: {error}") from error
    with _learning:
        _topics[sha256] = topic
        _crcs[sha256] = crc64
        _by_crc.setdefault((topic, crc64), sha256)
        _texts[sha256] = canonical
    return sha256


def resolved(topic: str, data: bytes, writer_sha256: str, reader_sha256: str) -> bytes:
    """A body of another version as the reader's would have written it: strict reading, then Avro's resolution."""
    if topic_of(writer_sha256) != topic:
        raise UnknownSchema(
            f"expected a schema of {topic} that this reader knows; got {writer_sha256}: it may be older than the writer"
        )
    check_datum(_loaded(writer_sha256), data)
    reader = _parsed(reader_sha256)
    try:
        value = schemaless_reader(io.BytesIO(data), _parsed(writer_sha256), reader)
        out = io.BytesIO()
        schemaless_writer(out, reader, value)
    except (SchemaResolutionError, ValueError, TypeError, KeyError, IndexError, EOFError, OverflowError) as error:
        raise UndecodableBody(f"{topic}: can't be read as the present version: {error}") from error
    return out.getvalue()


def _checked_name(topic: str, schema: dict[str, Any]) -> None:
    present = json.loads(SCHEMAS[BODIES[topic].SCHEMA_SHA256])
    ours, theirs = ((one.get("namespace"), one["name"]) for one in (present, schema))
    if ours != theirs:
        raise SchemaError(f"expected the record {'.'.join(map(str, ours))}; got {'.'.join(map(str, theirs))}")


@lru_cache(maxsize=512)
def _loaded(sha256: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(_texts[sha256])
    return schema


@lru_cache(maxsize=512)
def _parsed(sha256: str) -> Any:
    return parse_schema(json.loads(_texts[sha256]))
