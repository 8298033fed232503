"""`ai-infra audit`: look at the log without trusting who wrote it. Only reads."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, progress, rows, show, stack
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel.connection import connect
from ai_infra.settings import Settings, load_settings
from ai_infra.tlog.heads import lane_origin
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import LaneReport, Problem, audit_archive, audit_artifacts, audit_postgres
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, pinned_roots

audit = typer.Typer(help="Verify the log.", no_args_is_help=True)


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
    reader = archive_reader(settings, archive)
    pinned = pinned_roots(settings, roots)
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
    reader = archive_reader(settings, archive)
    found: list[dict[str, Any]] = []
    for number in range(settings.log.lanes) if lane is None else (lane,):
        raw = ArchivedLane(reader, origin or settings.log.origin, number).note()
        found.append({"lane": number, "checkpoint": raw.decode() if raw is not None else None})
    show(found, json=json, table=lambda: "\n".join(f["checkpoint"] or f"lane {f['lane']}: none yet\n" for f in found))


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
            rows(
                ("lane", "in", "position", "problem", "detail"),
                listed,
                title=f"{len(problems)} problem{'' if len(problems) == 1 else 's'}",
            ),
        )

    show({"ok": not problems, "lanes": lanes, "problems": problems}, json=json, table=table)
