"""Many row changes as few: what changes touch one row one after the other become one. Pure.

Most entries of a batch touch rows that other entries of it touch too, and a database takes a thousand rows in one
statement for less than a hundred in statements of their own. The outcome must be that of the changes one by one, in
order, and so must be the answer to whether the database accepts them: the batch that an entry happened to come in must
never decide whether it is refused. So nothing is folded away that the database could object to (`Table.sure`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ai_infra_indexer.projection.rows import Json, Mode, RowChange, Value

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# An index refuses texts that do not fit a third of a page; shorter ones it takes in any combination that there is.
_SHORT: Final = 160
_RANGES: Final[Mapping[str | None, int]] = {"smallint": 2**15, "integer": 2**31, "bigint": 2**63}
_KINDS: Final[Mapping[type, str]] = {bool: "boolean", datetime: "timestamp with time zone", Json: "jsonb"}

Row = tuple[str, tuple[Value, ...]]
"""A table and a key in it."""


@dataclass(frozen=True, slots=True)
class Table:
    """What the database says about a table."""

    types: Mapping[str, str]
    """Columns and their types, as Postgres formats them."""
    not_null: frozenset[str]
    required: frozenset[str]
    """Those of `not_null` that have no default: an insert must name them."""

    def sure(self, said: Mapping[str, Value]) -> bool:
        """Whether these columns are certain to take these values."""
        types, not_null = self.types, self.not_null
        for column, value in said.items():
            if value is None:
                if column in not_null:
                    return False
                continue
            kind = types.get(column)
            if value.__class__ is str:
                if kind == "text":
                    if len(value) > _SHORT:
                        return False
                elif kind != "uuid" or _UUID.fullmatch(value) is None:
                    return False
            elif value.__class__ is int:
                if kind not in _RANGES or not -_RANGES[kind] <= value < _RANGES[kind]:
                    return False
            elif _KINDS.get(value.__class__) != kind:
                return False
        return True


def fold(changes: Iterable[RowChange], tables: Mapping[str, Table]) -> list[list[RowChange]]:
    """The same changes in rounds: within a round each row is changed once, so its order does not matter."""
    rounds: list[list[RowChange]] = []
    last: dict[Row, tuple[int, int]] = {}  # where the newest change of a row stands: round and place in it
    for change in changes:
        row = (change.table, tuple(change.key.values()))
        number = 0
        if (place := last.get(row)) is not None:
            at, index = place
            folded = _folded(rounds[at][index], change, tables[change.table])
            if folded is not None:
                rounds[at][index] = folded
                continue
            number = at + 1
        if number == len(rounds):
            rounds.append([])
        last[row] = (number, len(rounds[number]))
        rounds[number].append(change)
    return rounds


def _folded(first: RowChange, then: RowChange, table: Table) -> RowChange | None:
    """One change that does what the two do; None where there is none, or where it would hide a refusal."""
    if first.mode is Mode.SET or not _plain(first, table) or not _plain(then, table) or not table.sure(then.on_insert):
        return None
    if then.mode is Mode.FIRST:  # there is a row by now
        return first if table.sure(then.values) else None
    born: dict[str, Value] = {**first.values, **first.on_insert}
    values = then.values if first.mode is Mode.FIRST else {**first.values, **then.values}
    on_insert = {column: value for column, value in born.items() if column not in values}
    if not table.sure({column: born[column] for column in born.keys() & then.values.keys()}):
        return None
    return RowChange(first.table, first.key, values, Mode.PUT, on_insert)


def _plain(change: RowChange, table: Table) -> bool:
    """Whether it has no condition, and all that a new row needs: Postgres asks that even where a row is there."""
    if change.unless is not None or change.only_where_null is not None:
        return False
    return change.mode is Mode.SET or not table.required.difference(change.key, change.values, change.on_insert)
