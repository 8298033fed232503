"""Whether every version of a topic's schema can read every other: FULL_TRANSITIVE, judged by Apache Avro's own checker.

Three rules go beyond it, since what we sign must have one reading: a time stays a time (Avro's checker ignores
`logicalType`), two versions with one CRC-64 differ in words only, and symbols and fields stay where older readers
know them by name. It must never fetch anything: the versions are those in the repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from ai_infra.errors import ConfigurationError
from ai_infra.events.generation.sources import Sources, Version

# What a reader of binary data does not need to know about a writer's schema.
_WORDS = frozenset({"doc", "default", "aliases", "order"})


def incompatibilities(sources: Sources) -> list[str]:
    """One sentence for each pair of versions that do not fit; empty where all is well."""
    found: list[str] = []
    for topic, present in sources.topics.items():
        released = [one for one in sources.released[topic] if one.sha256 != present.sha256]
        for old in released:
            found += pair(old, present)
        for one, other in combinations(released, 2):
            found += pair(one, other)
    return found + collisions(sources)


def pair(one: Version, other: Version) -> list[str]:
    """What is wrong between two versions of one topic, in either direction."""
    found = []
    for writer, reader in ((one, other), (other, one)):
        found += [
            f"{one.topic}: {reader.sha256[:12]} can't read what {writer.sha256[:12]} wrote: {reason}"
            for reason in _unreadable(reader.schema, writer.schema)
        ]
    times, other_times = dict(_logical_types(one.schema)), dict(_logical_types(other.schema))
    found += [
        f"{one.topic}: {where} has logicalType {times[where]} in {one.sha256[:12]} and {other_times[where]} in "
        f"{other.sha256[:12]}: one body would have two readings; use a new field"
        for where in sorted(times.keys() & other_times.keys())
        if times[where] != other_times[where]
    ]
    return found


def collisions(sources: Sources) -> list[str]:
    """Versions that share a CRC-64 although their bodies are read differently."""
    by_crc: dict[bytes, Version] = {}
    found = []
    for topic, present in sources.topics.items():
        for one in (*sources.released[topic], present):
            first = by_crc.setdefault(one.crc64, one)
            if wordless(first.schema) != wordless(one.schema):
                found.append(
                    f"{one.topic} ({one.sha256[:12]}) and {first.topic} ({first.sha256[:12]}) share the CRC-64 "
                    f"{one.crc64.hex()} but are read differently: rename or add a field"
                )
    return found


def wordless(schema: Any) -> Any:
    """The schema without what changes no reading of its bodies; `logicalType` stays."""
    if isinstance(schema, list):
        return [wordless(branch) for branch in schema]
    if isinstance(schema, dict):
        return {
            key: value if key == "symbols" else wordless(value) for key, value in schema.items() if key not in _WORDS
        }
    return schema


def _unreadable(reader: dict[str, Any], writer: dict[str, Any]) -> list[str]:
    try:
        from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
        from avro.schema import parse
    except ImportError as error:
        raise ConfigurationError(
            'expected Apache Avro\'s checker; install it with: pip install "ai-infra[dev]"'
        ) from error
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # annotated only in part
    result = checker.get_compatibility(parse(json.dumps(reader)), parse(json.dumps(writer)))
    if result.compatibility is SchemaCompatibilityType.compatible:
        return []
    return [
        f"{kind.value} at {', '.join(sorted(result.locations))}: {', '.join(sorted(result.messages))}"
        for kind in dict.fromkeys(result.incompatibilities)
    ] or [result.compatibility.value]


def _logical_types(schema: Any, where: str = "") -> Iterator[tuple[str, str | None]]:
    """Every integer in a schema, by path, with its logicalType."""
    if isinstance(schema, str):
        if schema in ("int", "long"):
            yield where, None
    elif isinstance(schema, list):
        yield from _logical_types(schema[1], where)
    elif schema["type"] == "record":
        for field in schema["fields"]:
            yield from _logical_types(field["type"], f"{where}.{field['name']}".lstrip("."))
    elif schema["type"] in ("array", "map"):
        yield from _logical_types(schema["items" if schema["type"] == "array" else "values"], where + "[]")
    elif schema["type"] in ("int", "long"):
        yield where, schema.get("logicalType")
