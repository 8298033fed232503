"""The projection of a lane made anew beside the live one, and swapped in, while the indexer goes on.

The rows are made in a schema of their own from the lane's entries, each verified as every replay verifies it: those in
Postgres, and where they were pruned those in the archive. What differs from the live rows is written down beside them,
then what was entered meanwhile; then, in one transaction that holds the lane's head, the rows that differ are replaced.
So the head is held for as long as the differences take, whatever the lane's size. Until that commits nothing live is
touched: killed anywhere, it is begun anew. This must never move the log: no head, entry or position changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import psycopg
from psycopg import sql

from ai_infra.readmodel.connection import connect
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.appending import PROJECTION_REFUSED, project_lines, refusal_findings, write_findings
from ai_infra_indexer.applying import tables_of
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.history import Judgement, Known, Verdict, number_of
from ai_infra_indexer.projection import Value, project
from ai_infra_indexer.projection.version import PROJECTION, TABLES
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.sequence import Head, Line
from ai_infra_indexer.store import Connection, read_known

CHUNK: Final = 1_024
NEAR: Final = 256  # entries that may be left to project while the head is held: some ten milliseconds
LOCK_TIMEOUT: Final = "30s"  # the head is held by one batch of the indexer at a time

Progress = Callable[[int, int], None]
"""(entries done, entries in all)"""


class ReprojectionFailed(IndexerError):
    """The rows could not be made anew or not be swapped in. The live ones are as they were."""

    code = "reprojection_failed"


@dataclass(frozen=True, slots=True)
class LaneProjection:
    """By which projection a lane's rows were made, as sql/0006 has it."""

    lane: int
    size: int
    projection: int

    @property
    def current(self) -> bool:
        return self.size == 0 or self.projection == PROJECTION

    @property
    def told(self) -> str:
        """In words."""
        if self.current:
            return f"projection {PROJECTION}"
        return f"projection {self.projection}" if self.projection > 0 else "an unknown or more than one projection"


@dataclass(frozen=True, slots=True)
class Reprojected:
    """A lane whose rows are those of this program's projection now."""

    lane: int
    entries: int
    rows_changed: int
    """Rows that were put in the place of others, or were too many or missing."""
    verdicts_changed: int
    """Entries that are projected now and were refused, or the other way round."""
    seconds: float
    held_seconds: float
    """How long the head was held: the indexer could not enter anything into this lane."""


def projections(connection: Connection) -> list[LaneProjection]:
    """All lanes, in order."""
    rows = connection.execute("SELECT lane, size, projection FROM lanes ORDER BY lane")
    return [LaneProjection(*row) for row in rows]


def reproject(
    url: str, archived: ArchivedLane, *, roots: Roots, lanes: int, progress: Progress = lambda *_: None
) -> Reprojected:
    """Make a lane's rows anew and swap them in. `archived` is read only where Postgres has an entry no more.

    Raises ReprojectionFailed, or what Postgres and the archive raise; the live rows are as they were then.
    """

    def opened() -> Connection:
        return connect(url, application="ai-infra reproject", autocommit=True)

    try:
        with opened() as live, opened() as beside:
            return _Reprojection(live, beside, archived, roots, lanes, progress).run()
    except psycopg.Error as error:
        why = str(error).strip().partition("\n")[0]
        raise ReprojectionFailed(
            f"lane {archived.lane}: Postgres would not go on ({type(error).__name__}: {why}); the live rows are as "
            "they were. Mend that, then run it again"
        ) from error


def verdict_of(line: Line, known: Known) -> Verdict:
    """What the history made of an entry that is in it already: the first of its number and of its id is projected."""
    number = number_of(line.event)
    if number is not None and known.numbers.get(number, (line.position,))[0] != line.position:
        return Verdict.EQUIVOCATION
    if known.ids.get(line.event.id, (line.position,))[0] != line.position:
        return Verdict.REPEATED
    return Verdict.PROJECTED


class _Reprojection:
    """One lane. `live` reads; `beside` sees nothing but the schema beside, unless a table is named with its schema."""

    def __init__(
        self,
        live: Connection,
        beside: Connection,
        archived: ArchivedLane,
        roots: Roots,
        lanes: int,
        progress: Progress,
    ) -> None:
        self._live = live
        self._beside = beside
        self._archived = archived
        self._lane = archived.lane
        self._schema = sql.Identifier(f"reprojection_{archived.lane}")
        self._progress = progress
        self._replay = Replay(Head(archived.lane, archived.origin), Keyrings(roots), lanes, chain_signatures=False)
        self._verdicts: dict[int, str] = {}
        """Of the entries whose verdict is another one now."""
        self._keys: Mapping[str, Sequence[str]] = {}

    def run(self) -> Reprojected:
        began = time.monotonic()
        self._claim()
        self._furnish()
        self._catch_up()
        self._mark()
        self._compare()
        self._catch_up(noting=True)
        changed, held = self._swap()
        size = self._replay.head.size
        return Reprojected(self._lane, size, changed, len(self._verdicts), time.monotonic() - began, held)

    def _claim(self) -> None:
        row = self._beside.execute(
            "SELECT pg_try_advisory_lock(hashtext('ai-infra reproject'), %s)", (self._lane,)
        ).fetchone()
        if row is None or not row[0]:
            raise ReprojectionFailed(f"lane {self._lane} is being projected anew by another process: wait for that one")

    def _furnish(self) -> None:
        """Empty tables like the live ones. What one that was killed has left goes first."""
        with self._beside.transaction():
            self._beside.execute("SET LOCAL client_min_messages = warning")
            self._beside.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(self._schema))
            self._beside.execute(sql.SQL("CREATE SCHEMA {}").format(self._schema))
            for table in (*TABLES, "findings"):
                self._beside.execute(
                    sql.SQL("CREATE UNLOGGED TABLE {}.{} (LIKE public.{} INCLUDING ALL)").format(
                        self._schema, sql.Identifier(table), sql.Identifier(table)
                    )
                )
        self._beside.execute(sql.SQL("SET search_path = {}").format(self._schema))
        self._beside.execute("SET synchronous_commit = off")
        self._keys = {table: self._key_of(table) for table in TABLES}

    def _key_of(self, table: str) -> list[str]:
        rows = self._live.execute(
            "SELECT a.attname FROM pg_index i "
            "JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) "
            "WHERE i.indrelid = ('public.' || %s)::regclass AND i.indisprimary AND a.attname <> 'lane' "
            "ORDER BY array_position(i.indkey::int2[], a.attnum)",
            (table,),
        )
        return [name for (name,) in rows]

    # --- entries --------------------------------------------------------------------------------------------------

    def _size(self) -> int:
        row = self._live.execute("SELECT size FROM lanes WHERE lane = %s", (self._lane,)).fetchone()
        if row is None:
            raise ReprojectionFailed(f"lane {self._lane} is not in the database: nothing was ever entered into it")
        return int(row[0])

    def _catch_up(self, *, noting: bool = False) -> None:
        """Project until all but a few entries are done. `noting`: write down which rows that touches."""
        while (size := self._size()) - self._replay.head.size > NEAR:
            self._project_to(size, noting=noting)

    def _project_to(self, size: int, *, noting: bool) -> None:
        for entries in self._entries(self._replay.head.size, size):
            self._project(entries, noting=noting)
            self._progress(self._replay.head.size, size)

    def _entries(self, start: int, size: int) -> Iterator[list[tuple[bytes, str | None]]]:
        """Entries with their verdicts, chunk by chunk. Without verdict: one that is in the archive alone."""
        while start < size:
            rows = self._live.execute(
                "SELECT position, entry, verdict FROM entries WHERE lane = %s AND position >= %s AND position < %s "
                "ORDER BY position",
                (self._lane, start, min(start + CHUNK, size)),
            ).fetchall()
            there = rows[0][0] if rows else min(start + CHUNK, size)
            for _, raws in self._archived.bundles(start, there) if there > start else ():
                yield [(raw, None) for raw in raws]
            if rows:
                yield [(bytes(raw), verdict) for _, raw, verdict in rows]
            start = rows[-1][0] + 1 if rows else there

    def _project(self, entries: list[tuple[bytes, str | None]], *, noting: bool) -> None:
        lines = [self._taken(raw) for raw, _ in entries]
        known = read_known(self._live, self._lane, [line.event for line in lines])
        judged = [(line, Judgement(verdict_of(line, known))) for line in lines]
        with self._beside.transaction():
            refused = project_lines(self._beside, self._lane, judged)
            write_findings(self._beside, self._lane, refusal_findings(lines, refused))
            if noting:
                self._note(
                    line for line, j in judged if j.verdict is Verdict.PROJECTED and line.position not in refused
                )
        for (line, judgement), (_, before) in zip(judged, entries, strict=True):
            verdict = refused[line.position][0] if line.position in refused else judgement.verdict
            if before is not None and before != verdict:
                self._verdicts[line.position] = verdict

    def _taken(self, raw: bytes) -> Line:
        try:
            return self._replay.take(raw)
        except BadEntry as error:
            raise ReprojectionFailed(
                f"lane {self._lane}, position {self._replay.head.size}: {error.message}; `ai-infra audit verify "
                f"--lane {self._lane}` says more",
                code=error.code,
            ) from error

    # --- differences ----------------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """From here on only what a program with this projection enters leaves the mark as it is."""
        self._live.execute(
            "UPDATE lanes SET projection = %(mark)s WHERE lane = %(lane)s AND projection <> %(ours)s",
            {"mark": -PROJECTION, "lane": self._lane, "ours": PROJECTION},
        )

    def _compare(self) -> None:
        """Write down the keys of the rows that differ, as of one moment."""
        for table in TABLES:
            self._beside.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))
        with self._beside.transaction():
            self._beside.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            row = self._beside.execute("SELECT size FROM public.lanes WHERE lane = %s", (self._lane,)).fetchone()
            self._project_to(row[0] if row is not None else 0, noting=False)
            for table, key in self._keys.items():
                # As text: numbers in JSON may be equal and yet be written in two ways.
                self._beside.execute(
                    sql.SQL(
                        "CREATE UNLOGGED TABLE {changed} AS SELECT {key} "
                        "FROM (SELECT * FROM public.{table} WHERE lane = {lane}) AS ours "
                        "FULL JOIN (SELECT * FROM {table}) AS anew USING (lane, {key}) "
                        "WHERE ours::text IS DISTINCT FROM anew::text"
                    ).format(
                        changed=_changed(table),
                        key=_names(key),
                        table=sql.Identifier(table),
                        lane=sql.Literal(self._lane),
                    )
                )
                self._beside.execute(
                    sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(_changed(table), _names(key))
                )

    def _note(self, lines: Iterable[Line]) -> None:
        """Write down the keys of the rows that these lines touch."""
        touched: dict[str, list[Mapping[str, Value]]] = {}
        for line in lines:
            for change in project(line.position, line.event):
                touched.setdefault(change.table, []).append(change.key)
        for table, keys in touched.items():
            types = tables_of(self._beside)[table].types
            names = self._keys[table]
            self._beside.execute(
                sql.SQL(
                    "INSERT INTO {} ({}) SELECT DISTINCT {} FROM json_to_recordset(%s::json) AS said ({}) "
                    "ON CONFLICT DO NOTHING"
                ).format(
                    _changed(table),
                    _names(names),
                    _names(names),
                    sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(types[n])) for n in names),
                ),
                (orjson.dumps(keys).decode(),),
            )

    # --- the swap -------------------------------------------------------------------------------------------------

    def _swap(self) -> tuple[int, float]:
        """Rows that were replaced, and for how many seconds the head was held."""
        try:
            with self._beside.transaction():
                self._beside.execute("SET LOCAL synchronous_commit = on")
                self._beside.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
                size = self._hold()
                began = time.monotonic()
                self._project_to(size, noting=True)
                changed = sum(self._replace(table, key) for table, key in self._keys.items())
                self._replace_verdicts()
                self._beside.execute(
                    "UPDATE public.lanes SET projection = %s WHERE lane = %s", (PROJECTION, self._lane)
                )
                self._beside.execute("SET LOCAL client_min_messages = warning")
                self._beside.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(self._schema))
        except psycopg.errors.LockNotAvailable:
            raise ReprojectionFailed(
                f"lane {self._lane}: its head was held by another transaction for {LOCK_TIMEOUT}; the live rows are as "
                "they were. Run it again when that has ended"
            ) from None
        return changed, time.monotonic() - began

    def _hold(self) -> int:
        row = self._beside.execute(
            "SELECT size, projection FROM public.lanes WHERE lane = %s FOR NO KEY UPDATE", (self._lane,)
        ).fetchone()
        if row is None or abs(row[1]) != PROJECTION:
            raise ReprojectionFailed(
                f"lane {self._lane}: meanwhile an indexer with another projection than this program's ({PROJECTION}) "
                "has entered something; the live rows are as they were. Upgrade that indexer, then run it again"
            )
        return int(row[0])

    def _replace(self, table: str, key: Sequence[str]) -> int:
        """Put the rows that differ in the place of the live ones. Returns how many keys that concerned."""
        same = sql.SQL(" AND ").join(sql.SQL("r.{0} = changed.{0}").format(sql.Identifier(name)) for name in key)
        delete = "DELETE FROM public.{table} AS r USING {changed} AS changed WHERE r.lane = {lane} AND {same}"
        insert = "INSERT INTO public.{table} SELECT r.* FROM {table} AS r JOIN {changed} AS changed ON {same}"
        for statement in (sql.SQL(delete), sql.SQL(insert)):
            self._beside.execute(
                statement.format(table=sql.Identifier(table), changed=_changed(table), same=same, lane=self._lane)
            )
        row = self._beside.execute(sql.SQL("SELECT count(*) FROM {}").format(_changed(table))).fetchone()
        return int(row[0]) if row is not None else 0

    def _replace_verdicts(self) -> None:
        """What was refused, and what is said of that, follow from the projection too."""
        said = orjson.dumps([{"position": at, "verdict": verdict} for at, verdict in self._verdicts.items()])
        self._beside.execute(
            "UPDATE public.entries AS r SET verdict = said.verdict "
            "FROM json_to_recordset(%s::json) AS said (position int8, verdict text) "
            "WHERE r.lane = %s AND r.position = said.position",
            (said.decode(), self._lane),
        )
        self._beside.execute(
            "DELETE FROM public.findings WHERE lane = %s AND kind = %s", (self._lane, PROJECTION_REFUSED)
        )
        self._beside.execute("INSERT INTO public.findings SELECT * FROM findings")


def _changed(table: str) -> sql.Identifier:
    return sql.Identifier(f"changed_{table}")


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
