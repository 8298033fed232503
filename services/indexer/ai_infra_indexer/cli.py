"""Commands that the indexer brings: `audit verify`, `audit checkpoint`, `rebuild`.

They only read the log; what is written is a database that was named for it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ai_infra.cli.output import Json, fail, note, progress, record, rows, show, stack
from ai_infra.errors import UnavailableError
from ai_infra.objects.reader import ObjectReader, open_store
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel.connection import connect, where
from ai_infra.settings import Settings, load_settings
from ai_infra.tlog.heads import lane_origin
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyring_document import read_roots
from ai_infra_indexer import parity as parity_of
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import LaneReport, Problem, audit_archive, audit_artifacts, audit_postgres
from ai_infra_indexer.rebuild import Rebuilt, rebuild

audit = typer.Typer(help="Verify the log.", no_args_is_help=True)

Lane = Annotated[int | None, typer.Option("--lane", min=0, help="One lane; all where not given.")]
Archive = Annotated[
    str | None,
    typer.Option(
        "--archive", help="s3://bucket or s3://bucket/prefix, or a folder; the archive of the settings where not given."
    ),
]
Origin = Annotated[str | None, typer.Option("--origin", help="Name of the log; that of the settings where not given.")]
RootKeys = Annotated[
    Path | None, typer.Option("--roots", help="Pinned root keys (roots.json); those of the settings where not given.")
]

COVER_SECONDS: Final = 60.0  # how long parity waits for the archive to cover what is in Postgres


class Source(StrEnum):
    """Where the log is read from."""

    BOTH = "both"
    POSTGRES = "postgres"
    ARCHIVE = "archive"


@audit.command()
def verify(
    lane: Lane = None,
    source: Annotated[
        Source | None,
        typer.Option("--from", help="Both where not given, or the archive alone where --archive names one."),
    ] = None,
    archive: Archive = None,
    artifacts: Annotated[bool, typer.Option("--artifacts", help="Hash every registered object too.")] = False,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Verify chain, signatures, roles, tree and checkpoints of the log; exits 1 and names each problem."""
    settings = load_settings()
    source = source or (Source.ARCHIVE if archive is not None else Source.BOTH)
    reader = _reader(settings, archive)
    pinned = _roots(settings, roots)
    name = origin or settings.log.origin
    lanes = range(settings.log.lanes) if lane is None else (lane,)
    reports: list[LaneReport] = []
    with progress("reading the log") as say:
        for number in lanes:
            archived = ArchivedLane(reader, name, number)
            tell = _teller(say, number)
            if source is not Source.POSTGRES:
                reports.append(audit_archive(archived, pinned, settings.log.lanes, progress=tell("archive")))
            if source is not Source.ARCHIVE:
                with connect(settings.database.url, application="ai-infra audit", autocommit=True) as connection:
                    report = audit_postgres(
                        connection,
                        number,
                        lane_origin(name, number),
                        pinned,
                        settings.log.lanes,
                        archived=archived if source is Source.BOTH else None,
                        progress=tell("Postgres"),
                    )
                reports.append(report)
        problems = [problem for report in reports for problem in report.problems]
        if artifacts:
            problems += _bucket_problems(settings, reports, say)
    _show_audit(reports, problems, json=json)
    if problems:
        raise typer.Exit(1)


@audit.command()
def checkpoint(lane: Lane = None, archive: Archive = None, origin: Origin = None, json: Json = False) -> None:
    """Print the newest signed checkpoints, as they lie in the archive."""
    settings = load_settings()
    reader = _reader(settings, archive)
    found: list[dict[str, Any]] = []
    for number in range(settings.log.lanes) if lane is None else (lane,):
        raw = ArchivedLane(reader, origin or settings.log.origin, number).note()
        found.append({"lane": number, "checkpoint": raw.decode() if raw is not None else None})
    show(found, json=json, table=lambda: "\n".join(f["checkpoint"] or f"lane {f['lane']}: none yet\n" for f in found))


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
    reader = _reader(settings, archive)
    pinned = _roots(settings, roots)
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


def _reader(settings: Settings, archive: str | None) -> ObjectReader:
    return open_store(archive or f"s3://{settings.objects.archive_bucket}", settings)


def _roots(settings: Settings, roots: Path | None) -> Roots:
    return read_roots(roots or settings.keys.roots)


def _bucket_problems(settings: Settings, reports: list[LaneReport], say: Callable[[str], None]) -> list[Problem]:
    registered = {(r.uri, r.sha256): r for report in reports for r in report.registered}
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        say(f"hashing registered objects: {done}")

    with ObjectStore(settings) as store:
        return audit_artifacts(store, registered.values(), progress=tell)


def _teller(say: Callable[[str], None], lane: int) -> Callable[[str], Callable[[int], None]]:
    def of(source: str) -> Callable[[int], None]:
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            say(f"lane {lane} in {source}: {done} entries verified")

        return tell

    return of


def _rate(say: Callable[[str], None]) -> Callable[[int, int, int], None]:
    began = time.monotonic()
    seen: dict[int, int] = {}

    def tell(lane: int, done: int, total: int) -> None:
        seen[lane] = done
        rate = sum(seen.values()) / max(0.001, time.monotonic() - began)
        say(f"lane {lane}: {done} of {total} entries, {rate:.0f} a second, {(total - done) / max(rate, 1):.0f} s left")

    return tell


def _show_audit(reports: list[LaneReport], problems: list[Problem], *, json: bool) -> None:
    lanes = [
        {
            "lane": r.lane,
            "source": r.source,
            "entries": r.entries,
            "checkpoint_size": r.checkpoint_size,
            "root": r.root,
            "keyring": r.keyring_version,
            "problems": len(r.problems),
            "seconds": round(r.seconds, 3),
        }
        for r in reports
    ]

    def table() -> Any:
        heading = ("lane", "read from", "entries", "checkpoint", "keyring", "problems")
        content = [
            (r["lane"], r["source"], r["entries"], r["checkpoint_size"], r["keyring"], r["problems"]) for r in lanes
        ]
        if not problems:
            return stack(rows(heading, content), "Everything verifies: entries, chain, signatures, tree, checkpoints.")
        listed = [(p.lane, p.source, p.position, p.code, p.detail) for p in problems]
        return stack(
            rows(heading, content),
            rows(("lane", "in", "position", "problem", "detail"), listed, title=f"{len(problems)} problem(s)"),
        )

    show({"ok": not problems, "lanes": lanes, "problems": problems}, json=json, table=table)


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


commands = {"audit": audit, "rebuild": rebuild_command}
