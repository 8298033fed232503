"""What the house allows in a schema, so that a signed body has one reading everywhere.

Forbidden: float, double and bytes (two parties must recompute what is signed), `decimal` (one body, two readings),
unions other than "null or one type", a field without a doc string. It must never repair a schema.
"""

from __future__ import annotations

from typing import Any, Final

from ai_infra.errors import ConfigurationError

_PRIMITIVES: Final = frozenset({"boolean", "int", "long", "string"})
# Deeper than any body needs, and far below Python's recursion limit.
_MAX_DEPTH: Final = 16


class SchemaError(ConfigurationError):
    """A schema breaks a rule of the house; says which and where."""

    code = "bad_schema"


def check_schema(topic: str, schema: Any) -> None:
    """Raises SchemaError where a topic's schema breaks a rule."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise SchemaError(f"{topic}: expected a record")
    _check(schema, topic, set(), 0)


def _check(schema: Any, where: str, known: set[str], depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise SchemaError(f"{where}: expected at most {_MAX_DEPTH} levels")
    if isinstance(schema, str):
        if schema in ("float", "double", "bytes"):
            raise SchemaError(f"{where}: {schema} is not used here; say numbers as scaled integers (score_e6)")
        if schema not in _PRIMITIVES and schema not in known:
            raise SchemaError(f"{where}: {schema} is not defined before its use")
    elif isinstance(schema, list):
        if len(schema) != 2 or schema[0] != "null" or isinstance(schema[1], list):
            raise SchemaError(f'{where}: expected a union of "null" and one type, null first; got {schema}')
        _check(schema[1], where, known, depth + 1)
    elif isinstance(schema, dict):
        _check_complex(schema, where, known, depth)
    else:
        raise SchemaError(f"{where}: expected a type; got {schema!r}")


def _check_complex(schema: dict[str, Any], where: str, known: set[str], depth: int) -> None:
    kind, logical = schema["type"], schema.get("logicalType")
    if logical is not None and (kind, logical) != ("long", "timestamp-millis"):
        raise SchemaError(f"{where}: logicalType {logical} on {kind} is not used here; only timestamp-millis on long")
    if kind == "array":
        _check(schema["items"], f"{where}[]", known, depth + 1)
    elif kind == "map":
        _check(schema["values"], f"{where}{{}}", known, depth + 1)
    elif kind == "enum":
        _check_doc(schema, where)
        if schema["symbols"][0] != "unknown" or schema.get("default") != "unknown":
            raise SchemaError(f"{where}: enum {schema['name']} needs 'unknown' as first symbol and as default")
        known.add(schema["name"])
    elif kind == "record":
        _check_doc(schema, where)
        if not schema["fields"]:
            raise SchemaError(f"{where}: expected at least one field, so that every item of an array takes a byte")
        for field in schema["fields"]:
            _check_doc(field, f"{where}.{field['name']}")
            _check(field["type"], f"{where}.{field['name']}", known, depth + 1)
        known.add(schema["name"])
    elif isinstance(kind, str):
        _check(kind, where, known, depth + 1)
    else:
        raise SchemaError(f"{where}: expected a type's name; got {kind!r}")


def _check_doc(schema: dict[str, Any], where: str) -> None:
    if not str(schema.get("doc", "")).strip():
        raise SchemaError(f"{where}: expected a doc string, with the unit where there is one")
