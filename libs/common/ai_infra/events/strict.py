"""Whether bytes are exactly one datum of a schema: for bodies that an older schema wrote.

The generated classes read the present schema strictly; older ones go through a general Avro library, which is
lenient (negative indexes, trailing bytes), so this walk comes first. It must accept just what `avro.Reader` does.
"""

from __future__ import annotations

from typing import Any

from ai_infra.events.avro import Reader
from ai_infra.events.fingerprint import Schema


def check_datum(schema: Schema, data: bytes) -> None:
    """Raises UndecodableBody or BadText where `data` is not exactly one datum of `schema`."""
    reader = Reader(data)
    _walk(schema, reader, {})
    reader.end()


def _walk(schema: Any, data: Reader, names: dict[str, Any]) -> None:
    if isinstance(schema, list):
        data.optional(lambda inner: _walk(schema[1], inner, names))
    elif isinstance(schema, str):
        if schema in names:
            _walk(names[schema], data, names)
        else:
            _primitive(schema, data)
    elif schema["type"] == "record":
        names[schema["name"]] = schema
        for field in schema["fields"]:
            _walk(field["type"], data, names)
    elif schema["type"] == "enum":
        names[schema["name"]] = schema
        data.enum(tuple(schema["symbols"]))
    elif schema["type"] == "array":
        data.array(lambda inner: _walk(schema["items"], inner, names))
    elif schema["type"] == "map":
        data.mapping(lambda inner: _walk(schema["values"], inner, names))
    elif schema.get("logicalType") == "timestamp-millis":
        data.millis()
    else:
        _walk(schema["type"], data, names)


def _primitive(name: str, data: Reader) -> None:
    if name == "string":
        data.text()
    elif name == "int":
        data.int32()
    elif name == "long":
        data.int64()
    elif name == "boolean":
        data.boolean()
    else:
        raise AssertionError(f"{name} does not occur in a checked schema")
