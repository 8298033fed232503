"""Row changes to SQL. The one place where a projection's change meets a database."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import sql

from ai_infra_indexer.projection import Mode, RowChange

Shape = tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...], Mode, tuple[str, int] | None, str | None]


def apply(connection: psycopg.Connection[Any], lane: int, changes: Iterable[RowChange]) -> None:
    """Carries out the changes in order, in the transaction that is open."""
    with connection.pipeline(), connection.cursor() as cursor:
        for change in changes:
            unless = None if change.unless is None else (change.unless[0], len(change.unless[1]))
            shape = (
                change.table,
                tuple(change.key),
                tuple(change.values),
                tuple(change.on_insert),
                change.mode,
                unless,
                change.only_where_null,
            )
            values = [*change.values.values(), lane, *change.key.values()]
            if change.mode is not Mode.SET:
                values = [lane, *change.key.values(), *change.values.values(), *change.on_insert.values()]
            if change.unless is not None:
                values += change.unless[1]
            cursor.execute(_statement(shape), values)


@lru_cache(maxsize=1024)
def _statement(shape: Shape) -> bytes:
    """The statement's text, composed once for each shape."""
    return _composed(shape).as_bytes(None)


def _composed(shape: Shape) -> sql.Composed:
    table, key, values, on_insert, mode, unless, only_where_null = shape
    name = sql.Identifier(table)
    condition: sql.Composable = sql.SQL("")
    if unless is not None:
        column, count = unless
        condition = sql.SQL(" AND {}.{} NOT IN ({})").format(
            name, sql.Identifier(column), sql.SQL(", ").join([sql.Placeholder()] * count)
        )
    if only_where_null is not None:
        condition += sql.SQL(" AND {}.{} IS NULL").format(name, sql.Identifier(only_where_null))
    if mode is Mode.SET:
        return sql.SQL("UPDATE {} SET {} WHERE {}{}").format(
            name,
            sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(v)) for v in values),
            sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(k)) for k in ("lane", *key)),
            condition,
        )
    columns = ("lane", *key, *values, *on_insert)
    insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) ").format(
        name,
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
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
