"""What names a schema: SHA-256 of its whole RFC 8785 form, and Avro's CRC-64 for the single-object framing.

Avro's own canonical form drops `logicalType` and `scale`, so one signed body could be read in two ways; the SHA-256
of the whole text is what is signed. The CRC is only the framing that stock Avro readers know.
"""

from __future__ import annotations

import json
from typing import Any

from fastavro.schema import fingerprint as avro_fingerprint
from fastavro.schema import parse_schema, to_parsing_canonical_form

from ai_infra.events.canonical import canonical_json_numbers, sha256_hex

Schema = dict[str, Any]


def schema_text(schema: Schema) -> str:
    """The schema's RFC 8785 form: the text whose SHA-256 names it."""
    return canonical_json_numbers(schema).decode()


def schema_sha256(schema: Schema) -> str:
    """Fingerprint of the whole schema, 64 hex digits."""
    return sha256_hex(canonical_json_numbers(schema))


def schema_crc64(schema: Schema) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, 8 bytes little-endian, as single-object encoding carries it."""
    return bytes.fromhex(avro_fingerprint(to_parsing_canonical_form(json.loads(json.dumps(schema))), "CRC-64-AVRO"))


def parsed(schema: Schema) -> Any:
    """The schema as fastavro wants it; raises its SchemaParseException where it is no Avro schema."""
    return parse_schema(json.loads(json.dumps(schema)))
