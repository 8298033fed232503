"""Live = rebuilt: every table of the projection and the log, row for row, lane by lane, at one vector of lane sizes.

The live database is read in one snapshot, which fixes the sizes; the rebuilt one is filled from the archive to exactly
those. Tables are compared by SHA-256 over their rows in the order of their keys; where two differ, the rows are named.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql
from psycopg.rows import dict_row

from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.migrations import require_current
from ai_infra_indexer.projection.version import TABLES
from ai_infra_indexer.reprojection import projections
from ai_infra_indexer.store import Connection

MAX_DIFFERENCES: Final = 20  # rows of one lane and table that are named
# Where reading goes on, and how far the steps behind the log got, belong to the indexer that runs, not to the log.
_NOT_COMPARED: Final = frozenset({"lane_offsets", "lane_progress", "unsaid_refusals", "archive_versions"})
_PRUNED: Final = frozenset({"entries", "audit_events"})  # what old rows leave; the archive alone has them then

_TABLES: Final = """
SELECT c.relname, array_agg(a.attname ORDER BY array_position(i.indkey::int2[], a.attnum))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
WHERE c.relkind IN ('r', 'p') AND EXISTS (
    SELECT 1 FROM pg_attribute l WHERE l.attrelid = c.oid AND l.attname = 'lane' AND NOT l.attisdropped)
GROUP BY c.relname ORDER BY c.relname
"""


@dataclass(frozen=True, slots=True)
class TableDigest:
    """One lane of one table."""

    table: str
    lane: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same, or is only on one side."""

    table: str
    lane: int
    key: Mapping[str, Any]
    what: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One lane of one table on both sides."""

    table: str
    lane: int
    live_rows: int
    rebuilt_rows: int
    sha256: str
    equal: bool


@contextmanager
def snapshot(url: str) -> Iterator[Connection]:
    """One moment of a database, read only."""
    require_current(url)
    with connect(url, application="ai-infra parity", autocommit=True) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute("SELECT 1")  # the snapshot is taken by the first query
        yield connection


def sizes(connection: Connection) -> dict[int, int]:
    """Entries by lane."""
    return dict(connection.execute("SELECT lane, size FROM lanes ORDER BY lane").fetchall())


def tables(connection: Connection) -> dict[str, list[str]]:
    """Tables that belong to lanes, with the columns of their keys."""
    return {name: key for name, key in connection.execute(_TABLES) if name not in _NOT_COMPARED}


def low_waters(connection: Connection) -> dict[int, int]:
    """By lane, the position below which the log's rows were pruned."""
    return dict(connection.execute("SELECT lane, pruned_size FROM lane_progress").fetchall())


def compare(live: Connection, rebuilt: Connection) -> tuple[list[Comparison], list[Difference]]:
    """Every table and lane of both; of the log's own rows, those that were pruned on neither side."""
    keys = tables(live)
    comparisons: list[Comparison] = []
    differences: list[Difference] = []
    causes = _other_projections(live, rebuilt)
    ours_from, theirs_from = low_waters(live), low_waters(rebuilt)
    for table in sorted(keys.keys() | tables(rebuilt).keys()):
        if table not in keys:
            continue
        for lane in sizes(live):
            since = max(ours_from.get(lane, 0), theirs_from.get(lane, 0)) if table in _PRUNED else 0
            ours, theirs = (digest(side, table, keys[table], lane, since=since) for side in (live, rebuilt))
            equal = ours == theirs
            comparisons.append(Comparison(table, lane, ours.rows, theirs.rows, ours.sha256, equal))
            if not equal and not (lane in causes and table in TABLES):
                differences += diff(live, rebuilt, table, keys[table], lane, since=since)
    return comparisons, [*causes.values(), *differences]


def _other_projections(live: Connection, rebuilt: Connection) -> dict[int, Difference]:
    """Lanes whose rows can't be equal, since they were not made by the same projection: that is said, not each row."""
    theirs = {lane.lane: lane for lane in projections(rebuilt)}
    causes: dict[int, Difference] = {}
    for ours in projections(live):
        other = theirs.get(ours.lane)
        if other is None or ours.current == other.current:
            continue
        what = (
            f"the live rows were made by {ours.told}, the rebuilt ones by {other.told}; they are not told one by one. "
        )
        what += f"Run `ai-infra db reproject --lane {ours.lane}`" if other.current else "Rebuild into an empty database"
        causes[ours.lane] = Difference("lanes", ours.lane, {"lane": ours.lane}, what)
    return causes


def digest(connection: Connection, table: str, key: list[str], lane: int, *, since: int = 0) -> TableDigest:
    """SHA-256 over the rows as COPY writes them, in the order of their key. `since`: the first position that counts."""
    hashed, rows = hashlib.sha256(), 0
    query = sql.SQL("COPY ({}) TO STDOUT").format(_ordered(connection, table, key, lane, since))
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for block in copy:
            data = bytes(block)
            hashed.update(data)
            rows += data.count(b"\n")
    return TableDigest(table, lane, rows, hashed.hexdigest())


def diff(
    live: Connection, rebuilt: Connection, table: str, key: list[str], lane: int, *, since: int = 0
) -> list[Difference]:
    """The first rows that differ, by key and column."""
    found: list[Difference] = []
    pairs = _merged(_rows(live, table, key, lane, since), _rows(rebuilt, table, key, lane, since), key)
    for ours, theirs in pairs:
        if ours == theirs:
            continue
        row = ours if ours is not None else theirs or {}
        if ours is None:
            what = "is in the rebuilt database only"
        elif theirs is None:
            what = "is in the live database only"
        else:
            columns = [c for c in ours if ours[c] != theirs[c]]
            what = "; ".join(f"{c} is {_short(ours[c])} live, {_short(theirs[c])} rebuilt" for c in columns)
        found.append(Difference(table, lane, {k: row[k] for k in key}, what))
        if len(found) == MAX_DIFFERENCES:
            break
    return found


def _columns(connection: Connection, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
        "ORDER BY attname",
        (table,),
    )
    return [name for (name,) in rows]


def _ordered(connection: Connection, table: str, key: list[str], lane: int, since: int) -> sql.Composed:
    """The rows as text, columns by name: the same whatever the history of the table's definition was. Byte order, so
    that two servers with other collations order alike."""
    columns = _columns(connection, table)
    return sql.SQL("SELECT {} FROM {} WHERE lane = {}{} ORDER BY {}").format(
        sql.SQL(", ").join(sql.SQL("{0}::text AS {0}").format(sql.Identifier(c)) for c in columns),
        sql.Identifier(table),
        sql.Literal(lane),
        sql.SQL(" AND position >= {}").format(sql.Literal(since)) if since else sql.SQL(""),
        sql.SQL(", ").join(sql.SQL('{}::text COLLATE "C"').format(sql.Identifier(table, k)) for k in key),
    )


def _rows(connection: Connection, table: str, key: list[str], lane: int, since: int) -> Iterator[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        yield from cursor.execute(_ordered(connection, table, key, lane, since))


def _merged(
    ours: Iterator[dict[str, Any]], theirs: Iterator[dict[str, Any]], key: list[str]
) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any] | None]]:
    """Both sides by key, in step."""
    left, right = next(ours, None), next(theirs, None)
    while left is not None or right is not None:
        a = None if left is None else [left[k].encode() for k in key]
        b = None if right is None else [right[k].encode() for k in key]
        if b is None or (a is not None and a < b):
            yield left, None
            left = next(ours, None)
        elif a is None or b < a:
            yield None, right
            right = next(theirs, None)
        else:
            yield left, right
            left, right = next(ours, None), next(theirs, None)


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(str(value))
    return text if len(text) <= 80 else f"{text[:77]}..."
