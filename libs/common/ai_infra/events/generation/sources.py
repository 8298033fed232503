"""The schemas of the repository, present and released, read and checked against the rules of the house.

One name has one definition, however many topics use it. It must never repair a schema silently, nor change or remove
what was released.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ai_infra.events.fingerprint import Schema, parsed, schema_crc64, schema_sha256, schema_text
from ai_infra.events.rules import SchemaError, check_schema

REPOSITORY = Path(__file__).parents[5]
SCHEMAS = REPOSITORY / "schemas"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a topic's schema."""

    topic: str
    schema: Schema
    text: str
    sha256: str
    crc64: bytes


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that the generator reads."""

    topics: dict[str, Version]
    released: dict[str, tuple[Version, ...]]
    shared: dict[str, Schema]
    """Named types that more than one topic uses, by name, each with its one definition."""
    own: dict[str, dict[str, Schema]]
    """Named types that only one topic uses: topic, name, definition."""


def load(directory: Path = SCHEMAS) -> Sources:
    """Reads and checks all schemas; raises SchemaError."""
    if not directory.is_dir():
        raise SchemaError(f"expected schemas in {directory}; run this in a checkout of the repository")
    topics = {path.stem: version(path.stem, path) for path in sorted(directory.glob("*.avsc"))}
    released = {
        topic: tuple(version(topic, path) for path in sorted((directory / "released" / topic).glob("*.avsc")))
        for topic in topics
    }
    definitions: dict[str, Schema] = {}
    used_by: dict[str, set[str]] = {}
    for topic, one in topics.items():
        check_schema(topic, one.schema)
        for name, definition in named_types(one.schema):
            flat = flattened(definition)
            if definitions.setdefault(name, flat) != flat:
                raise SchemaError(f"{topic}: {name} is defined differently in {sorted(used_by[name])}; make them equal")
            used_by.setdefault(name, set()).add(topic)
    return Sources(
        topics=topics,
        released=released,
        shared={name: one for name, one in definitions.items() if len(used_by[name]) > 1},
        own={topic: {name: one for name, one in definitions.items() if used_by[name] == {topic}} for topic in topics},
    )


def version(topic: str, path: Path) -> Version:
    """One schema file."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        parsed(schema)
    except Exception as error:
        raise SchemaError(f"{path}: expected an Avro schema; {error}") from error
    return Version(topic, schema, schema_text(schema), schema_sha256(schema), schema_crc64(schema))


def release(directory: Path = SCHEMAS) -> list[Path]:
    """Remembers the present schemas as shipped; returns the files that are new. What is there is never changed."""
    new = []
    for topic, one in load(directory).topics.items():
        path = directory / "released" / topic / f"{one.sha256}.avsc"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(one.schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            new.append(path)
    return new


def named_types(schema: Any, *, top: bool = True) -> Iterator[tuple[str, Schema]]:
    """Named types defined inside a topic's record, inner ones first; the record itself is not among them."""
    if isinstance(schema, list):
        for branch in schema:
            yield from named_types(branch, top=False)
    elif isinstance(schema, dict):
        if isinstance(schema["type"], dict | list):
            yield from named_types(schema["type"], top=False)
        for key in ("items", "values"):
            if key in schema:
                yield from named_types(schema[key], top=False)
        for field in schema.get("fields", ()):
            yield from named_types(field["type"], top=False)
        if not top and schema["type"] in ("record", "enum"):
            yield schema["name"], schema


def flattened(schema: Any, *, top: bool = True) -> Any:
    """The definition with inner definitions replaced by their names: the same wherever the first use happens to be."""
    if isinstance(schema, list):
        return [flattened(branch, top=False) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if not top and schema.get("type") in ("record", "enum"):
        return schema["name"]
    flat = dict(schema)
    if "fields" in flat:
        flat["fields"] = [dict(field, type=flattened(field["type"], top=False)) for field in flat["fields"]]
    for key in ("items", "values"):
        if key in flat:
            flat[key] = flattened(flat[key], top=False)
    return flat
