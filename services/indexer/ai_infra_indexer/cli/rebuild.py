"""`ai-infra rebuild`: the registry from the archive alone, and the proof that it equals the live one.

What is written is a database that was named for it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ai_infra.cli.output import Json, fail, note, progress, record, rows, show, stack
from ai_infra.errors import UnavailableError
from ai_infra.objects.reader import ObjectReader
from ai_infra.readmodel.connection import connect, where
from ai_infra.settings import Settings, load_settings
from ai_infra_indexer import parity as parity_of
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.options import Archive, Origin, RootKeys, archive_reader, pinned_roots
from ai_infra_indexer.rebuild import Rebuilt, rebuild

COVER_SECONDS: Final = 60.0  # how long parity waits for the archive to cover what is in Postgres


def rebuild_command(
    archive: Archive = None,
    into: Annotated[
        str | None, typer.Option("--into", help="Postgres URL of an empty database, or of one to go on with.")
    ] = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="Prove that the rebuilt registry equals the live one, row for row.")
    ] = False,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Rebuild the registry from the archive alone; with --parity, compare it with the live one."""
    settings = load_settings()
    if into is None and not parity:
        fail("name the database to rebuild into with --into POSTGRES_URL, or ask for --parity", code="usage")
    reader = archive_reader(settings, archive)
    pinned = pinned_roots(settings, roots)
    name = origin or settings.log.origin
    with progress("rebuilding") as say:

        def run(url: str, until: dict[int, int] | None) -> list[Rebuilt]:
            return rebuild(
                reader,
                url,
                log_origin=name,
                lanes=settings.log.lanes,
                roots=pinned,
                until=until,
                progress=_rate(say),
            )

        if not parity:
            done = run(str(into), None)
            show(done, json=json, table=lambda: _rebuilt_table(done))
            note(f"The registry in {where(str(into))} is what the archive says, to the last checkpoint of each lane.")
            return
        with _scratch(settings, into) as url:
            _compare(settings, reader, name, url, run, say, json=json)


def _compare(
    settings: Settings,
    reader: ObjectReader,
    origin: str,
    url: str,
    run: Callable[[str, dict[int, int] | None], list[Rebuilt]],
    say: Callable[[str], None],
    *,
    json: bool,
) -> None:
    with parity_of.snapshot(settings.database.url) as live:
        sizes = parity_of.sizes(live)
        say("waiting until the archive covers what is in Postgres")
        _await_covered(reader, origin, sizes)
        done = run(url, sizes)
        say("comparing row for row")
        with parity_of.snapshot(url) as rebuilt:
            comparisons, differences = parity_of.compare(live, rebuilt)
    equal = all(c.equal for c in comparisons)
    data = {
        "equal": equal,
        "sizes": sizes,
        "rebuilt": done,
        "tables": comparisons,
        "differences": [{**d.key, "table": d.table, "lane": d.lane, "what": d.what} for d in differences],
    }
    show(data, json=json, table=lambda: _parity_table(comparisons, differences, sizes))
    if not equal:
        raise typer.Exit(1)


def _await_covered(reader: ObjectReader, origin: str, sizes: dict[int, int]) -> None:
    deadline = time.monotonic() + COVER_SECONDS
    for lane, size in sizes.items():
        archived = ArchivedLane(reader, origin, lane)
        while (raw := archived.note()) is None or archived.claimed_size(raw) < size:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"lane {lane} has {size} entries in Postgres, which the archive's checkpoint does not cover after "
                    f"{COVER_SECONDS:.0f} s; is the indexer running? (`ai-infra status`)"
                )
            time.sleep(0.1)  # between two questions; nothing is synchronised by it


@contextmanager
def _scratch(settings: Settings, into: str | None) -> Iterator[str]:
    """The database to rebuild into: the one that was named, or one of our own beside the live one."""
    if into is not None:
        yield into
        return
    name = f"ai_infra_parity_{secrets.token_hex(4)}"
    live = settings.database.url
    with connect(live, application="ai-infra parity", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    try:
        yield make_conninfo(live, dbname=name)
    finally:
        with connect(live, application="ai-infra parity", autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _rate(say: Callable[[str], None]) -> Callable[[int, int, int], None]:
    began = time.monotonic()
    seen: dict[int, int] = {}

    def tell(lane: int, done: int, total: int) -> None:
        seen[lane] = done
        rate = sum(seen.values()) / max(0.001, time.monotonic() - began)
        say(f"lane {lane}: {done} of {total} entries, {rate:.0f} a second, {(total - done) / max(rate, 1):.0f} s left")

    return tell


def _rebuilt_table(done: list[Rebuilt]) -> Any:
    return rows(
        ("lane", "entries", "loaded now", "root of the checkpoint", "seconds"),
        [(r.lane, r.size, r.loaded, r.root, f"{r.seconds:.1f}") for r in done],
    )


def _parity_table(
    comparisons: list[parity_of.Comparison], differences: list[parity_of.Difference], sizes: dict[int, int]
) -> Any:
    names = sorted({c.table for c in comparisons})
    content = []
    for name in names:
        mine = [c for c in comparisons if c.table == name]
        unequal = [c.lane for c in mine if not c.equal]
        content.append(
            (
                name,
                sum(c.live_rows for c in mine),
                sum(c.rebuilt_rows for c in mine),
                f"differs in lane {', '.join(map(str, unequal))}" if unequal else "equal",
            )
        )
    parts = [
        record({"lane sizes": ", ".join(f"{lane}: {size}" for lane, size in sizes.items())}),
        rows(("table", "rows live", "rows rebuilt", ""), content),
    ]
    if differences:
        listed = [(d.table, d.lane, ", ".join(f"{k}={v}" for k, v in d.key.items()), d.what) for d in differences]
        parts.append(rows(("table", "lane", "row", "difference"), listed, title="Rows that differ"))
    else:
        parts.append("Live and rebuilt are equal, row for row.")
    return stack(*parts)
