"""The text of the generated package: shared types, one module a topic, the schemas' own text, and the index of all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ai_infra.events.fingerprint import Schema
from ai_infra.events.generation.sources import Sources, Version, flattened
from ai_infra.events.generation.types import Python, python
from ai_infra.events.rules import SchemaError

_NOTE = "Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file."


def render(sources: Sources) -> dict[str, str]:
    """File name to content, for the whole generated package."""
    types = sources.shared | {name: one for own in sources.own.values() for name, one in own.items()}
    enums = frozenset(name for name, one in types.items() if one["type"] == "enum")
    modules = {"shared.py": _module("Types that several topics use.", sources.shared, None, {}, enums)}
    home = dict.fromkeys(sources.shared, "shared")
    for topic, one in sources.topics.items():
        name = module_name(topic)
        modules[f"{name}.py"] = _module(one.schema["doc"], sources.own[topic], one, home, enums)
    for topic in sources.topics:
        for name in (*sources.own[topic], sources.topics[topic].schema["name"]):
            if name in home:
                raise SchemaError(f"{topic}: the name {name} is taken by {home[name]}")
            home[name] = module_name(topic)
    modules["schemas.py"] = _schemas(sources)
    modules["__init__.py"] = _index(sources, home)
    return modules


def module_name(topic: str) -> str:
    """Python module of a topic."""
    return topic.replace(".", "_").replace("-", "_")


def _module(
    doc: str, own: dict[str, Schema], body: Version | None, shared: dict[str, str], enums: frozenset[str]
) -> str:
    classes = [_enum(one) if one["type"] == "enum" else _record(one, None, enums) for one in own.values()]
    uses = {
        name for one in own.values() for field in one.get("fields", ()) for name in python(field["type"], enums).uses
    }
    if body is not None:
        schema = flattened(body.schema)
        classes.append(_record(schema, body, enums))
        uses |= {name for field in schema["fields"] for name in python(field["type"], enums).uses}
    text = "\n\n\n".join(classes)
    imports = sorted(name for name in uses if name.removesuffix("_INDEX").removesuffix("_SYMBOLS") in shared)
    return "\n".join([f'"""{doc}\n\n{_NOTE}\n"""', "", *_imports(text, imports), "", "", text, ""])


def _imports(text: str, shared: Iterable[str]) -> list[str]:
    lines = ["from __future__ import annotations", ""]
    standard = [
        ("from collections.abc import Mapping", "Mapping["),
        ("from datetime import datetime", "datetime"),
        ("from enum import StrEnum", "StrEnum"),
    ]
    lines += [line for line, sign in standard if sign in text]
    typing = [name for name in ("Any", "ClassVar", "Final") if name in text]
    lines += [f"from typing import {', '.join(typing)}", ""]
    avro = [name for name in ("Reader", "Writer", "rfc3339", "write_record") if name in text]
    if avro:
        lines.append(f"from ai_infra.events.avro import {', '.join(avro)}")
    if "(Body)" in text:
        lines.append("from ai_infra.events.body import Body")
    if shared:
        lines.append(f"from ai_infra.events.generated.shared import {', '.join(shared)}")
    if "@value(" in text:
        lines.append("from ai_infra.events.values import value")
    return lines


def _enum(schema: Schema) -> str:
    name, symbols = schema["name"], schema["symbols"]
    lines = [f"class {name}(StrEnum):", f"    {_doc(schema['doc'])}", ""]
    lines += [f'    {symbol.upper()} = "{symbol}"' for symbol in symbols]
    lines += ["", "", f"{name}_SYMBOLS: Final = tuple({name})"]
    lines += [f"{name}_INDEX: Final[Mapping[object, int]] = {{symbol: i for i, symbol in enumerate({name})}}"]
    return "\n".join(lines)


def _record(schema: Schema, body: Version | None, enums: frozenset[str]) -> str:
    fields = [(field, python(field["type"], enums)) for field in schema["fields"]]
    lines = ["@value(kw_only=True)"]
    lines += [f"class {schema['name']}{'(Body)' if body else ''}:", f"    {_doc(schema['doc'])}", ""]
    if body:
        lines += [
            f'    TOPIC: ClassVar[str] = "{body.topic}"',
            f'    SCHEMA_SHA256: ClassVar[str] = "{body.sha256}"',
            f'    CRC64: ClassVar[bytes] = bytes.fromhex("{body.crc64.hex()}")',
            "",
        ]
    for field, kind in fields:
        lines += [f"    {field['name']}: {kind.annotation}{_default(field, kind)}", f"    {_doc(field['doc'])}"]
    lines += ["", "    def write(self, out: Writer) -> None:", '        """Appends the bare Avro encoding."""']
    lines += ["        " + kind.write.format(value=f"self.{field['name']}") for field, kind in fields]
    lines += ["", "    @classmethod", f"    def read(cls, data: Reader) -> {schema['name']}:"]
    lines += ['        """Reads one datum written with this very schema."""', "        return cls("]
    lines += [f"            {field['name']}={kind.read}," for field, kind in fields]
    lines += [
        "        )",
        "",
        "    def to_dict(self) -> dict[str, Any]:",
        '        """JSON-ready form."""',
        "        return {",
    ]
    lines += [
        f'            "{field["name"]}": {kind.show.format(value="self." + field["name"])},' for field, kind in fields
    ]
    return "\n".join([*lines, "        }"])


def _default(field: dict[str, Any], kind: Python) -> str:
    if "default" not in field:
        return ""
    value = field["default"]
    if isinstance(value, list) and not value:
        return " = ()"
    if isinstance(value, str) and f"{kind.annotation}_INDEX" in kind.uses:
        return f" = {kind.annotation}.{value.upper()}"
    if value is None or isinstance(value, str | int):
        return f" = {value!r}"
    raise SchemaError(f"{field['name']}: a default of {value!r} is not supported; use null, text, a number or []")


def _doc(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"""', r"\"\"\"")
    return f'"""{quoted}{" " if quoted.endswith(chr(34)) else ""}"""'


def _schemas(sources: Sources) -> str:
    versions: dict[str, Version] = {}
    for topic, one in sources.topics.items():
        for known in (*sources.released[topic], one):
            versions[known.sha256] = known
    lines = [f'"""Every schema that a reader must know, present and released, by fingerprint.\n\n{_NOTE}\n"""', ""]
    lines += [
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "from typing import Final",
        "",
    ]
    lines += ["# RFC 8785 form: the SHA-256 of the text is its key.", "SCHEMAS: Final[Mapping[str, str]] = {"]
    lines += [f'    "{sha}": {json.dumps(one.text)},' for sha, one in versions.items()]
    lines += ["}", "", "CRC64S: Final[Mapping[str, bytes]] = {"]
    lines += [f'    "{sha}": bytes.fromhex("{one.crc64.hex()}"),' for sha, one in versions.items()]
    lines += ["}", "", "# The topic that a schema belongs to.", "TOPIC_OF: Final[Mapping[str, str]] = {"]
    lines += [f'    "{sha}": "{one.topic}",' for sha, one in versions.items()]
    return "\n".join([*lines, "}", ""])


def _index(sources: Sources, home: dict[str, str]) -> str:
    by_module: dict[str, list[str]] = {}
    for name, module in home.items():
        by_module.setdefault(module, []).append(name)
    lines = [f'"""The typed body of every topic, and the types inside them.\n\n{_NOTE}\n"""', ""]
    lines += [
        "from __future__ import annotations",
        "",
        "from collections.abc import Mapping",
        "from typing import Final",
        "",
    ]
    lines += ["from ai_infra.events.body import Body"]
    for module in sorted(by_module):
        lines += [f"from ai_infra.events.generated.{module} import {', '.join(sorted(by_module[module]))}"]
    lines += ["from ai_infra.events.generated.schemas import CRC64S, SCHEMAS, TOPIC_OF", ""]
    lines += ["# Body class by topic.", "BODIES: Final[Mapping[str, type[Body]]] = {"]
    lines += [f'    "{topic}": {one.schema["name"]},' for topic, one in sources.topics.items()]
    lines += ["}", "", "__all__ = ["]
    lines += [f'    "{name}",' for name in sorted([*home, "BODIES", "CRC64S", "SCHEMAS", "TOPIC_OF", "Body"])]
    return "\n".join([*lines, "]", ""])
