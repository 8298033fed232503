"""Row changes to SQL. The one place where a projection's change meets a database.

A statement carries all rows of one shape, as one JSON document that Postgres reads by its own types. A text for a jsonb
column stays a text inside of that document, so no body can say more than its own value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import orjson
import psycopg
from psycopg import sql

from ai_infra_indexer.projection import Mode, RowChange, Value
from ai_infra_indexer.projection.folding import Table, fold

Columns = tuple[tuple[str, str], ...]
"""Names and types."""
Shape = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], Mode, Any, str | None]

_tables: WeakKeyDictionary[psycopg.Connection[Any], dict[str, Table]] = WeakKeyDictionary()


def apply(connection: psycopg.Connection[Any], lanes: Iterable[tuple[int, Iterable[RowChange]]]) -> None:
    """Carries out the changes of each lane as if one by one in order, in the transaction that is open."""
    tables = tables_of(connection)
    groups: dict[Shape, list[RowChange]] = {}
    with connection.pipeline(), connection.cursor() as cursor:
        for lane, changes in lanes:
            for together in fold(changes, tables):
                groups.clear()
                for change in together:
                    groups.setdefault(_shape(change), []).append(change)
                for shape, group in groups.items():
                    columns = tuple((name, tables[shape[0]].types[name]) for part in shape[1:4] for name in part)
                    rows = orjson.dumps([{**c.key, **c.values, **c.on_insert} for c in group])
                    cursor.execute(_statement(shape, columns), {"lane": lane, "rows": rows.decode()})


def tables_of(connection: psycopg.Connection[Any]) -> Mapping[str, Table]:
    """The tables that changes are applied to, as this connection finds them; read once a connection."""
    if (known := _tables.get(connection)) is None:
        rows = connection.execute(
            "SELECT c.relname, a.attname, format_type(a.atttypid, NULL), a.attnotnull, a.atthasdef "
            "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
            "WHERE c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped "
            "AND a.attname <> 'lane' AND c.relnamespace <> 'pg_catalog'::regnamespace"
        ).fetchall()
        types: dict[str, dict[str, str]] = {}
        not_null: dict[str, set[str]] = {}
        required: dict[str, set[str]] = {}
        for table, column, kind, never_null, has_default in rows:
            types.setdefault(table, {})[column] = kind
            if never_null:
                not_null.setdefault(table, set()).add(column)
                if not has_default:
                    required.setdefault(table, set()).add(column)
        known = _tables[connection] = {
            table: Table(columns, frozenset(not_null.get(table, ())), frozenset(required.get(table, ())))
            for table, columns in types.items()
        }
    return known


def _shape(change: RowChange) -> Shape:
    return (
        change.table,
        tuple(change.key),
        tuple(change.values),
        tuple(change.on_insert),
        change.mode,
        change.unless,
        change.only_where_null,
    )


@lru_cache(maxsize=1024)
def _statement(shape: Shape, columns: Columns) -> bytes:
    """The statement's text, composed once for each shape."""
    return _composed(shape, columns).as_bytes(None)


def _composed(shape: Shape, columns: Columns) -> sql.Composed:
    table, key, values, _, mode, unless, only_where_null = shape
    name = sql.Identifier(table)
    condition = _condition(name, unless, only_where_null)
    said = {column: _read(column, kind) for column, kind in columns}
    rows = sql.SQL("json_to_recordset(%(rows)s::json) AS said ({})").format(
        sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL("text" if kind == "jsonb" else kind))
            for column, kind in columns
        )
    )
    if mode is Mode.SET:
        return sql.SQL("UPDATE {} SET {} FROM {} WHERE {}.lane = %(lane)s AND {}{}").format(
            name,
            sql.SQL(", ").join(sql.SQL("{} = {}").format(sql.Identifier(v), said[v]) for v in values),
            rows,
            name,
            sql.SQL(" AND ").join(sql.SQL("{}.{} = {}").format(name, sql.Identifier(k), said[k]) for k in key),
            condition,
        )
    insert = sql.SQL("INSERT INTO {} (lane, {}) SELECT %(lane)s::smallint, {} FROM {} ON CONFLICT ({}) ").format(
        name,
        sql.SQL(", ").join(map(sql.Identifier, said)),
        sql.SQL(", ").join(said.values()),
        rows,
        sql.SQL(", ").join(map(sql.Identifier, ("lane", *key))),
    )
    if mode is Mode.FIRST:
        return insert + sql.SQL("DO NOTHING")
    return (
        insert
        + sql.SQL("DO UPDATE SET {} WHERE true").format(
            sql.SQL(", ").join(sql.SQL("{} = EXCLUDED.{}").format(sql.Identifier(v), sql.Identifier(v)) for v in values)
        )
        + condition
    )


def _read(column: str, kind: str) -> sql.Composable:
    return sql.SQL("said.{}::jsonb" if kind == "jsonb" else "said.{}").format(sql.Identifier(column))


def _condition(
    name: sql.Identifier, unless: tuple[str, tuple[Value, ...]] | None, only_where_null: str | None
) -> sql.Composable:
    condition: sql.Composable = sql.SQL("")
    if unless is not None:
        column, values = unless
        condition = sql.SQL(" AND {}.{} NOT IN ({})").format(
            name, sql.Identifier(column), sql.SQL(", ").join(map(sql.Literal, values))
        )
    if only_where_null is not None:
        condition += sql.SQL(" AND {}.{} IS NULL").format(name, sql.Identifier(only_where_null))
    return condition
