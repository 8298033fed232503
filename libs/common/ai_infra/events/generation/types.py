"""What a type of a schema is in Python: its annotation, and the expressions that write, read and show a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_PLAIN = {"string": ("str", "text"), "boolean": ("bool", "boolean"), "int": ("int", "int32"), "long": ("int", "int64")}


@dataclass(frozen=True, slots=True)
class Python:
    """How generated code handles one type."""

    annotation: str
    write: str
    """Statement that writes `{value}` to `out`."""
    writer: str
    """Callable (out, value) for containers."""
    read: str
    """Expression that reads a value from `data`."""
    reader: str
    """Callable (data) for containers."""
    show: str
    """Expression of `{value}` as JSON-ready value; `{value}` itself where nothing is to be done."""
    uses: frozenset[str] = frozenset()
    """Names of generated types that the annotation needs."""


def python(schema: Any, enums: frozenset[str]) -> Python:
    """Python for a type; `enums` names which named types are enums."""
    if isinstance(schema, list):
        return _optional(python(schema[1], enums))
    if isinstance(schema, str):
        return _plain(*_PLAIN[schema]) if schema in _PLAIN else _named(schema, schema in enums)
    if schema.get("logicalType") == "timestamp-millis":
        return _plain("datetime", "millis", show="rfc3339({value})")
    if schema["type"] in ("array", "map"):
        container, key = (_array, "items") if schema["type"] == "array" else (_map, "values")
        return container(python(schema[key], enums))
    if schema["type"] in ("record", "enum"):
        return _named(schema["name"], schema["type"] == "enum")
    return python(schema["type"], enums)


def _plain(annotation: str, method: str, show: str = "{value}") -> Python:
    return Python(
        annotation=annotation,
        write=f"out.{method}({{value}})",
        writer=f"Writer.{method}",
        read=f"data.{method}()",
        reader=f"Reader.{method}",
        show=show,
    )


def _named(name: str, is_enum: bool) -> Python:
    if is_enum:
        return Python(
            annotation=name,
            write=f"out.enum({{value}}, {name}_INDEX)",
            writer=f"(lambda out, value: out.enum(value, {name}_INDEX))",
            read=f"data.enum({name}_SYMBOLS)",
            reader=f"(lambda data: data.enum({name}_SYMBOLS))",
            show="str({value})",
            uses=frozenset({name, f"{name}_INDEX", f"{name}_SYMBOLS"}),
        )
    return Python(
        annotation=name,
        write="{value}.write(out)",
        writer="write_record",
        read=f"{name}.read(data)",
        reader=f"{name}.read",
        show="{value}.to_dict()",
        uses=frozenset({name}),
    )


def _optional(inner: Python) -> Python:
    shown = "{value}" if inner.show == "{value}" else f"None if {{value}} is None else {inner.show}"
    return Python(
        annotation=f"{inner.annotation} | None",
        write=f"out.optional({{value}}, {inner.writer})",
        writer="",
        read=f"data.optional({inner.reader})",
        reader="",
        show=shown,
        uses=inner.uses,
    )


def _array(inner: Python) -> Python:
    shown = "list({value})" if inner.show == "{value}" else f"[{inner.show.format(value='x')} for x in {{value}}]"
    return Python(
        annotation=f"tuple[{inner.annotation}, ...]",
        write=f"out.array({{value}}, {inner.writer})",
        writer=f"(lambda out, value: out.array(value, {inner.writer}))",
        read=f"data.array({inner.reader})",
        reader=f"(lambda data: data.array({inner.reader}))",
        show=shown,
        uses=inner.uses,
    )


def _map(inner: Python) -> Python:
    each = inner.show.format(value="x")
    shown = "dict({value})" if inner.show == "{value}" else f"{{{{k: {each} for k, x in {{value}}.items()}}}}"
    return Python(
        annotation=f"Mapping[str, {inner.annotation}]",
        write=f"out.mapping({{value}}, {inner.writer})",
        writer=f"(lambda out, value: out.mapping(value, {inner.writer}))",
        read=f"data.mapping({inner.reader})",
        reader=f"(lambda data: data.mapping({inner.reader}))",
        show=shown,
        uses=inner.uses,
    )
