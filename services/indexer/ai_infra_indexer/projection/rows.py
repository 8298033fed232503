"""What a change of a row is, before there is a database: table, key, values, and how it meets a row that is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import Enum
from typing import Any, Final, Generic, TypeVar

import orjson

from ai_infra.events.body import Body
from ai_infra.events.event import Event
from ai_infra.events.values import value
from ai_infra_indexer.exceptions import ProjectionRefused

B_co = TypeVar("B_co", bound=Body, covariant=True)

MAX_DEPTH: Final = 200  # of foreign JSON; Python's own reader ends below a thousand

_STRINGS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)  # one that does not end takes all: no second look at it
_ENDLESS: Final = re.compile(r"[eE][+-]?0*[0-9]{4}|[0-9.]{1000}")
_BRACKETS: Final = re.compile(r"[\[\]{}]")
Value = str | int | bool | datetime | None


class Json(str):
    """JSON text that was written here, from values: any database that knows JSON takes it."""

    __slots__ = ()


class Mode(Enum):
    """How a change meets the row of its key."""

    FIRST = "first"
    """Insert; where the row exists it stays as it is."""
    PUT = "put"
    """Insert; where the row exists, `values` replace its columns."""
    SET = "set"
    """Change the row; where there is none, nothing happens."""


@value()
class RowChange:
    """One row's change. The lane, which leads every key, is added by who applies it."""

    table: str
    key: Mapping[str, Value]
    values: Mapping[str, Value]
    mode: Mode = Mode.PUT
    on_insert: Mapping[str, Value] = field(default_factory=dict)
    """With PUT: columns that only a new row gets."""
    unless: tuple[str, tuple[Value, ...]] | None = None
    """With PUT and SET: a row that has one of these values in this column stays as it is."""
    only_where_null: str | None = None
    """With SET: a row that has a value in this column stays as it is."""


@value()
class Sequenced(Generic[B_co]):
    """A verified event and its position in the lane's log."""

    position: int
    event: Event[B_co]

    @property
    def body(self) -> B_co:
        return self.event.body

    @property
    def said(self) -> dict[str, Value]:
        """The columns that say which event a row is from."""
        return {"event_id": self.event.id, "position": self.position}

    @property
    def at(self) -> datetime:
        """When the broker appended it: the same for all readers, whatever clock its sender has."""
        return self.event.append_time


def as_json(value: Any) -> Json:
    """JSON text for a jsonb column: of plain values, generated records and sequences of them."""
    return Json(
        orjson.dumps(value, default=_plain, option=orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_SORT_KEYS).decode()
    )


def foreign_json(text: str) -> str:
    """JSON text that a sender wrote, for a jsonb column. Raises ProjectionRefused for what nobody could read back from
    there: a number like 1e131071, which Postgres keeps in some bytes and writes out with all its digits, so that a row
    is 600 MB; and what is nested deeper than readers go. What is no JSON at all is left to the database to refuse."""
    bare = _STRINGS.sub("", text)
    if _ENDLESS.search(bare) is not None:
        raise ProjectionRefused("a JSON text has a number of more than a thousand digits")
    depth = 0
    for bracket in _BRACKETS.findall(bare):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise ProjectionRefused(f"a JSON text is nested deeper than {MAX_DEPTH}")
    return text


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")
