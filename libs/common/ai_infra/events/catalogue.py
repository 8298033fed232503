"""Writes docs/topics.md: every topic, who may say it, under which key, and every field with its meaning.

    python -m ai_infra.events.catalogue            # write
    python -m ai_infra.events.catalogue --check    # exit 1 where the page is stale

Runs where the repository is. It must never know more than the schemas and the key rules say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from ai_infra.events.fingerprint import Schema
from ai_infra.events.generation.sources import REPOSITORY, Sources, load
from ai_infra.events.keys import BROADCAST_TOPICS, EITHER_TOPICS, MODEL_TOPICS

PAGE = REPOSITORY / "docs" / "topics.md"

_HEAD = """# Topics

*Generated from `schemas/` by `python -m ai_infra.events.catalogue`; a test fails where it is stale.*

Each topic carries one type of event, whose body is one Avro record. How an event looks on the wire, how it is signed
and in which partition it belongs, is in [event-format.md](event-format.md). Beside these topics there are
`audit-events` (plain JSON for the Kernel) and, for each service, `<service>.state`, `<service>.retry` and
`<service>.dlq`, which are the runtime's own.

Times are milliseconds since 1970-01-01T00:00:00Z. Fractions are scaled integers, with the scale in the name:
`score_e6` is millionths, `alpha_e9` billionths. A symbol that a reader does not know reads as `unknown`.
"""


def render(sources: Sources) -> str:
    """The whole page."""
    lines = [_HEAD, "| topic | key | carries |", "|---|---|---|"]
    lines += [
        f"| [{topic}](#{_anchor(topic)}) | {_key(topic)} | {_cell(one.schema['doc'])} |"
        for topic, one in sources.topics.items()
    ]
    if sources.shared:
        lines += ["", "Types that several topics use are [at the end](#shared-types)."]
    for topic, one in sources.topics.items():
        versions = len(sources.released[topic])
        lines += ["", f"## {topic}", "", one.schema["doc"], ""]
        lines += [f"Key: {_key(topic)}. Record `{one.schema['namespace']}.{one.schema['name']}`, in"]
        lines[-1] += f" [`schemas/{topic}.avsc`](../schemas/{topic}.avsc); released versions: {versions}."
        lines += ["", *_fields(one.schema)]
        for name, own in sources.own[topic].items():
            lines += ["", f"### {topic}: {name}", "", *_type_section(own)]
    if sources.shared:
        lines += ["", "## Shared types"]
        for name, shared in sources.shared.items():
            lines += ["", f"### {name}", "", *_type_section(shared)]
    return "\n".join([*lines, ""])


def _type_section(schema: Schema) -> Iterator[str]:
    yield schema["doc"]
    yield ""
    if schema["type"] == "enum":
        yield "One of " + ", ".join(f"`{symbol}`" for symbol in schema["symbols"]) + "."
    else:
        yield from _fields(schema)


def _fields(schema: Schema) -> Iterator[str]:
    yield "| field | type | meaning |"
    yield "|---|---|---|"
    for field in schema["fields"]:
        default = "" if field.get("default") is None else f" Default: `{field['default']!r}`."
        yield f"| `{field['name']}` | {_type(field['type'])} | {_cell(field['doc'])}{default} |"


def _type(schema: Any) -> str:
    if isinstance(schema, str):
        return schema
    if isinstance(schema, list):
        return f"{_type(schema[1])} or null"
    if schema["type"] == "array":
        return f"array of {_type(schema['items'])}"
    if schema["type"] == "map":
        return f"map of {_type(schema['values'])}"
    if schema.get("logicalType"):
        return "time (ms)"
    return str(schema.get("name", schema["type"]))


def _key(topic: str) -> str:
    if topic in BROADCAST_TOPICS:
        return "`_broadcast`"
    if topic in MODEL_TOPICS:
        return "the model"
    return "`_lane/<p>` or the model" if topic in EITHER_TOPICS else "`_lane/<p>`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _anchor(topic: str) -> str:
    return topic.replace(".", "")


def stale(sources: Sources) -> bool:
    """Whether the page is not what the schemas say."""
    return not PAGE.exists() or PAGE.read_text(encoding="utf-8") != render(sources)


def write(sources: Sources) -> None:
    """Brings the page up to date."""
    PAGE.write_text(render(sources), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `python -m ai_infra.events.catalogue`."""
    parser = argparse.ArgumentParser(description="Generate docs/topics.md from schemas/.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is stale; exit 1 if it is")
    options = parser.parse_args(arguments)
    sources = load()
    if not stale(sources):
        print("docs/topics.md is up to date")
        return 0
    if options.check:
        print("stale: docs/topics.md; run python -m ai_infra.events.catalogue", file=sys.stderr)
        return 1
    write(sources)
    print("docs/topics.md written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
