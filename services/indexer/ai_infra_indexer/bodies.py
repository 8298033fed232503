"""A body as its writer's schema has it: bare bytes out of a framing, and the JSON form that the Kernel's payload holds.

The payload is hashed for ever, so it must not change when a schema gets a new field: what an older schema wrote is
shown by that schema, never resolved to the present one.
"""

from __future__ import annotations

import io
import json
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader

from ai_infra.events.avro import rfc3339
from ai_infra.events.body import Body
from ai_infra.events.codec import SINGLE_OBJECT
from ai_infra.events.schemas import KNOWN
from ai_infra_indexer.exceptions import MalformedEntry

_SINGLE_OBJECT_HEADER: Final = 10  # C3 01 and a CRC-64
_CONFLUENT_HEADER: Final = 5  # 00 and a schema id


def bare(value: bytes) -> bytes:
    """The Avro body of a record's value, whose framing has been verified already."""
    return value[_SINGLE_OBJECT_HEADER:] if value[:2] == SINGLE_OBJECT else value[_CONFLUENT_HEADER:]


def as_written(body: Body, schema_sha256: str, data: bytes) -> dict[str, Any]:
    """JSON-ready form of a body by the schema that wrote it; `body` is the same, read by the present schema."""
    if schema_sha256 == body.SCHEMA_SHA256:
        return body.to_dict()
    written = schemaless_reader(io.BytesIO(data), _schema(schema_sha256), None)
    said = _plain(written)
    if not isinstance(said, dict):
        raise MalformedEntry(f"expected a record by schema {schema_sha256}; got {type(said).__name__}")
    return said


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


@lru_cache(maxsize=512)
def _schema(sha256: str) -> Any:
    try:
        return parse_schema(json.loads(KNOWN[sha256]))
    except KeyError:
        raise MalformedEntry(
            f"schema {sha256} is not known here; it is in the archive as schemas/{sha256}.avsc"
        ) from None
