"""`ai-infra audit`: look at the log without trusting who wrote it. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, progress, rows, show, stack
from ai_infra.objects.reader import ObjectReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel.connection import connect
from ai_infra.settings import Settings, load_settings
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.heads import lane_origin
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import LaneReport, Problem, audit_archive, audit_artifacts, audit_postgres
from ai_infra_indexer.audit.vouched import Vouched, against_heads, against_witnesses, read_cosignatures, read_heads
from ai_infra_indexer.cli.options import (
    Archive,
    Lane,
    LogKeys,
    Origin,
    Quorum,
    RootKeys,
    Witnesses,
    archive_reader,
    pinned_roots,
)
from ai_infra_indexer.cli.proof import verify_consistency, verify_proof
from ai_infra_indexer.cosignatures import configured_witnesses

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
    proof: Annotated[
        Path | None, typer.Option("--proof", help="Check a file of `audit prove EVENT_ID` instead; offline.")
    ] = None,
    consistency: Annotated[
        Path | None,
        typer.Option("--consistency", help="Check a file of `audit prove --consistency` instead; offline, with --old."),
    ] = None,
    old: Annotated[
        Path | None, typer.Option("--old", help="The older checkpoint that the newer one must continue.")
    ] = None,
    log_key: LogKeys = None,
    witness: Witnesses = None,
    quorum: Quorum = None,
    json: Json = False,
) -> None:
    """Verify chain, signatures, roles, tree and checkpoints of the log; exits 1 and names each problem.

    With --proof or --consistency, one file: needs no Kafka, Postgres, archive or network, only the pinned keys.
    """
    settings = load_settings()
    if proof is not None:
        verify_proof(settings, proof, roots, origin, log_key, witness, quorum, json=json)
        return
    if consistency is not None:
        verify_consistency(settings, consistency, old, log_key, witness, quorum, json=json)
        return
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
        vouched: list[Vouched] = []
        if source is not Source.POSTGRES:
            more, vouched = _against_others(reader, settings, name, lanes, reports)
            problems += more
        if artifacts:
            problems += _bucket_problems(settings, reports, say)
    _show_audit(reports, problems, vouched, json=json)
    if problems:
        raise typer.Exit(1)


def _against_others(
    reader: ObjectReader, settings: Settings, origin: str, lanes: Iterable[int], reports: list[LaneReport]
) -> tuple[list[Problem], list[Vouched]]:
    """The lanes against the signed heads, and against what witnesses have cosigned."""
    keyring = max((r.keyring for r in reports if r.keyring is not None), key=lambda k: k.version, default=None)
    if keyring is None:
        return [], []  # nothing in the archive verifies, which is said already
    witnesses, quorum = configured_witnesses(settings), settings.log.witness_quorum
    heads, problems = read_heads(reader, origin, keyring)
    vouched: list[Vouched] = []
    for number in lanes:
        archived = ArchivedLane(reader, origin, number)
        cosignatures = read_cosignatures(archived, witnesses)
        try:
            note = archived.note()
            shown = archived.checkpoint(note, keyring).checkpoint if note is not None else None
        except (TlogError, UnicodeDecodeError):
            continue  # the audit of the lane names it
        if heads is not None:
            problems += against_heads(archived, shown, heads)
        if witnesses:
            vouched.append(against_witnesses(archived, shown, keyring, cosignatures, quorum))
            problems += vouched[-1].problems
    return problems, vouched


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


def _show_audit(reports: list[LaneReport], problems: list[Problem], vouched: list[Vouched], *, json: bool) -> None:
    witnessed = [
        {"lane": item.lane, "witness": c.witness, "size": c.size, "at": c.at, "quorum_up_to": item.witnessed}
        for item in vouched
        for c in item.cosigned
    ]
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
            parts: list[Any] = [rows(heading, content)]
            if witnessed:
                names = ("lane", "witness", "cosigned up to", "at")
                parts.append(rows(names, [(w["lane"], w["witness"], w["size"], w["at"]) for w in witnessed]))
            return stack(*parts, "Everything verifies: entries, chain, signatures, tree, checkpoints.")
        listed = [(p.lane, p.source, p.position, p.code, p.detail) for p in problems]
        return stack(
            rows(heading, content),
            rows(
                ("lane", "in", "position", "problem", "detail"),
                listed,
                title=f"{len(problems)} problem{'' if len(problems) == 1 else 's'}",
            ),
        )

    data = {"ok": not problems, "lanes": lanes, "problems": problems, "witnessed": witnessed}
    show(data, json=json, table=table)
