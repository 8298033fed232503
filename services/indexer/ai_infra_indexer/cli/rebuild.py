"""`ai-infra rebuild`: the registry from the archive alone, and the proof that it equals the live one.

What is written is a database that was named for it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Final

import typer
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ai_infra.cli.output import Json, duration, fail, note, progress, record, rows, show, stack
from ai_infra.errors import UnavailableError
from ai_infra.objects.reader import ObjectReader
from ai_infra.readmodel.connection import connect, where
from ai_infra.settings import Settings, load_settings
from ai_infra_indexer import parity as parity_of
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, pinned_roots
from ai_infra_indexer.rebuild import Rebuilt, rebuild, size_at

PROCESSES: Final = os.cpu_count() or 1
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
    lane: Lane = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="POSITION|TIME",
            help="The registry as it was then: before that position of one --lane, or at a time (2026-01-31T12:00Z, "
            "or 7d ago) in every lane.",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, help="How many lanes at once, a process each.")
    ] = PROCESSES,
    json: Json = False,
) -> None:
    """Rebuild the registry from the archive alone; with --parity, compare it with the live one.

    A rebuild that was interrupted goes on where it stood when it is run again with the same database.
    """
    settings = load_settings()
    if parity and (until is not None or lane is not None):
        fail("--parity compares all of the live registry: it goes with neither --until nor --lane", code="usage")
    if lane is not None and lane >= settings.log.lanes:
        fail(f"there are lanes 0 to {settings.log.lanes - 1}; got {lane}", code="usage")
    if into is None and not parity:
        fail("name the database to rebuild into with --into POSTGRES_URL, or ask for --parity", code="usage")
    reader = archive_reader(settings, archive)
    pinned = pinned_roots(settings, roots)
    name = origin or settings.log.origin
    with progress("rebuilding") as say:
        lanes = range(settings.log.lanes) if lane is None else (lane,)
        sizes = None if until is None else _sizes_at(reader, name, lanes, until, alone=lane is not None)

        def run(url: str, until: dict[int, int] | None) -> list[Rebuilt]:
            return rebuild(
                reader,
                url,
                log_origin=name,
                lanes=settings.log.lanes,
                roots=pinned,
                only=lanes,
                until=until,
                progress=_rate(say),
                reopen=partial(archive_reader, settings, archive),
                processes=processes,
            )

        if not parity:
            done = run(str(into), sizes)
            show(done, json=json, table=lambda: _rebuilt_table(done))
            upto = "to the last checkpoint of each lane" if until is None else f"as it was at {until}"
            note(f"The registry in {where(str(into))} is what the archive says, {upto}.")
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


def _sizes_at(reader: ObjectReader, origin: str, lanes: Iterable[int], until: str, *, alone: bool) -> dict[int, int]:
    """How many entries of each lane there were then."""
    from ai_infra.cli.events import parse_time

    if until.isdecimal():
        if not alone:
            fail("a position is one lane's: say which with --lane, or give a time", code="usage")
        return dict.fromkeys(lanes, int(until))
    time_ms = int(parse_time(until).timestamp() * 1000)
    return {lane: size_at(ArchivedLane(reader, origin, lane), time_ms) for lane in lanes}


def _rate(say: Callable[[str], None]) -> Callable[[int, int, int], None]:
    """Tells of all lanes together: each has said how much it is before the first begins."""
    began = time.monotonic()
    seen: dict[int, int] = {}
    totals: dict[int, int] = {}

    def tell(lane: int, done: int, total: int) -> None:
        seen[lane], totals[lane] = done, total
        so_far, in_all = sum(seen.values()), sum(totals.values())
        rate = so_far / max(0.001, time.monotonic() - began)
        left = f", {duration((in_all - so_far) / rate)} left" if so_far else ""
        say(f"{so_far} of {in_all} entries, {rate:.0f} a second{left}")

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
