"""`ai-infra audit`: look at the log without trusting who wrote it. Only reads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, fail, progress, rows, show, stack
from ai_infra.events.generated import AuditCheckpoint
from ai_infra.objects.reader import ObjectReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel.connection import connect
from ai_infra.settings import Settings, load_settings
from ai_infra.tlog.exceptions import TlogError
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import (
    LaneReport,
    Problem,
    audit_archive,
    audit_artifacts,
    audit_postgres,
    audit_versions,
    shared_history,
)
from ai_infra_indexer.audit.across import across_lanes, by_newest_keyring
from ai_infra_indexer.audit.report import MAX_PROBLEMS
from ai_infra_indexer.audit.topic import Comparison, Told, told_of
from ai_infra_indexer.audit.versions import CHECKED, older_heads_of_all, versions_of_heads
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
from ai_infra_indexer.side_by_side import side_by_side, tell
from ai_infra_indexer.store import recorded_versions

CORES: Final = os.cpu_count() or 1
LONG: Final = 10_000  # entries from which on several processes are worth the second that each takes to start

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
    topic: Annotated[
        bool, typer.Option("--topic", help="Compare what audit-events and audit.checkpoint hold with the archive too.")
    ] = False,
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
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, help="How many lanes at once, a process each; all cores for a long log."),
    ] = None,
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
    if topic and source is Source.POSTGRES:
        fail("--topic compares with the archive; leave out --from postgres", code="usage")
    began = time.monotonic()
    reader = archive_reader(settings, archive)
    log = _Log(settings, archive, pinned_roots(settings, roots), origin or settings.log.origin, topic)
    lanes = range(settings.log.lanes) if lane is None else (lane,)
    name = log.origin
    with progress("reading the log") as say:
        reports = _read(log, reader, lanes, source, processes, _Counter(say))
        problems = [problem for report in reports for problem in report.problems]
        for each in sorted({report.source for report in reports}):
            problems += across_lanes([report for report in reports if report.source == each])
        vouched: list[Vouched] = []
        if source is not Source.POSTGRES:
            more, vouched = _against_others(reader, settings, name, lanes, reports)
            problems += [*more, *shared_history(reader).problems]
        if artifacts:
            problems += _bucket_problems(settings, reports, say)
    _show_audit(reports, problems, vouched, time.monotonic() - began, json=json)
    if problems:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Log:
    """Where the log is and whom to believe: what a process that reads a lane of it has to know."""

    settings: Settings
    archive: str | None
    roots: Roots
    origin: str
    topic: bool = False

    def reader(self) -> ObjectReader:
        return archive_reader(self.settings, self.archive)


def _read(
    log: _Log, reader: ObjectReader, lanes: Sequence[int], source: Source, processes: int | None, told: _Counter
) -> list[LaneReport]:
    """Each lane from the archive, then from Postgres, in processes where that is asked for or worth their start."""
    jobs = [(log, n, archive, source) for n in lanes for archive in (True, False) if source is not _other(archive)]
    if processes is None:
        processes = CORES if len(jobs) > 1 and _long(log, reader, lanes, source) else 1
    if processes > 1 and len(jobs) > 1:
        return side_by_side(_read_in_process, jobs, processes=processes, told=told)
    return [_read_lane(*job, reader, told) for job in jobs]


def _other(archive: bool) -> Source:
    return Source.POSTGRES if archive else Source.ARCHIVE


def _long(log: _Log, reader: ObjectReader, lanes: Sequence[int], source: Source) -> bool:
    """Whether several processes are worth their start."""
    if source is not Source.ARCHIVE:
        with connect(log.settings.database.url, application="ai-infra audit", autocommit=True) as connection:
            sizes: dict[int, int] = dict(connection.execute("SELECT lane, size FROM lanes").fetchall())
            return sum(size for lane, size in sizes.items() if lane in lanes) >= LONG
    entries = 0
    for number in lanes:
        archived = ArchivedLane(reader, log.origin, number)
        with suppress(TlogError, UnicodeDecodeError):  # the audit of the lane names it
            note = archived.note()
            entries += archived.claimed_size(note) if note is not None else 0
    return entries >= LONG


def _read_in_process(log: _Log, number: int, archive: bool, source: Source) -> LaneReport:
    return _read_lane(log, number, archive, source, log.reader(), tell).told()


def _read_lane(
    log: _Log, number: int, archive: bool, source: Source, reader: ObjectReader, told: Callable[[int, str, int], None]
) -> LaneReport:
    archived, lanes = ArchivedLane(reader, log.origin, number), log.settings.log.lanes
    if archive:
        recorded: dict[str, str] = {}
        if source is Source.BOTH and log.archive is None:
            with connect(log.settings.database.url, application="ai-infra audit", autocommit=True) as connection:
                recorded = recorded_versions(connection, number)
        said = _told(log, number) if log.topic else None

        def audit(archived: ArchivedLane) -> LaneReport:
            progress = partial(told, number, "archive")
            if said is None:
                return audit_archive(archived, log.roots, lanes, progress=progress)
            comparison = Comparison(said, archived)
            report = audit_archive(archived, log.roots, lanes, progress=progress, keep=comparison.keep)
            report.problems += comparison.end(report)[:MAX_PROBLEMS]
            return report

        return audit_versions(reader, log.origin, number, audit, recorded)
    with connect(log.settings.database.url, application="ai-infra audit", autocommit=True) as connection:
        return audit_postgres(
            connection,
            number,
            archived.origin,
            log.roots,
            lanes,
            archived=archived if source is Source.BOTH else None,
            progress=partial(told, number, "Postgres"),
        )


def _told(log: _Log, lane: int) -> Told:
    """What the topics hold of a lane, and how far the indexer says that it has told it."""
    from ai_infra.bus.kafka.topics import PLAIN, group_of
    from ai_infra.cli.reading import LogReader

    kafka = LogReader(log.settings)
    published = kafka.admin.committed(group_of("indexer"), [(PLAIN, lane)]).get((PLAIN, lane))
    events = kafka.whole([(PLAIN, lane)])
    heads = kafka.whole([(AuditCheckpoint.TOPIC, lane)])
    return told_of(lane, log.settings.log.lanes, events, heads, published)


def _against_others(
    reader: ObjectReader, settings: Settings, origin: str, lanes: Iterable[int], reports: list[LaneReport]
) -> tuple[list[Problem], list[Vouched]]:
    """The lanes against the signed heads, and against what witnesses have cosigned."""
    keyring = max((r.keyring for r in reports if r.keyring is not None), key=lambda k: k.version, default=None)
    if keyring is None:
        return [], []  # nothing in the archive verifies, which is said already
    witnesses, quorum = configured_witnesses(settings), settings.log.witness_quorum
    versions = versions_of_heads(reader)
    heads, problems = read_heads(reader, origin, keyring)
    if heads is not None:
        problems += older_heads_of_all(reader, origin, keyring, heads.heads, versions)
    vouched: list[Vouched] = []
    for number in lanes:
        archived = ArchivedLane(reader, origin, number)
        cosignatures = read_cosignatures(archived, witnesses)
        try:
            note = archived.note()
            shown = archived.checkpoint(note, keyring).checkpoint if note is not None else None
        except (TlogError, UnicodeDecodeError):
            continue  # the audit of the lane names it
        if note is not None:
            own = max((r.keyring_version for r in reports if r.lane == number and r.source == "archive"), default=0)
            problems += by_newest_keyring(archived, note, own, keyring)
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


class _Counter:
    """Says how far each lane has been read."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._done: dict[tuple[int, str], int] = {}

    def __call__(self, lane: int, source: str, count: int) -> None:
        done = self._done[lane, source] = self._done.get((lane, source), 0) + count
        self._say(f"lane {lane} in {source}: {done} entries verified")


def _show_audit(
    reports: list[LaneReport], problems: list[Problem], vouched: list[Vouched], seconds: float, *, json: bool
) -> None:
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
            "pruned": r.pruned,
            "checkpoint_size": r.checkpoint_size,
            "root": r.root,
            "keyring": r.keyring_version,
            "problems": len(r.problems),
            "versions": r.versions or None,
            "seconds": round(r.seconds, 3),
        }
        for r in reports
    ]

    unlooked = sorted({r.versions for r in reports if r.versions not in ("", CHECKED)})
    looked = any(r.versions == CHECKED for r in reports)

    def table() -> Any:
        heading = ("lane", "read from", "entries", "checkpoint", "keyring", "problems")
        content = [
            (
                r["lane"],
                r["source"],
                f"{r['entries']}, from {r['pruned']} on" if r["pruned"] else r["entries"],
                r["checkpoint_size"],
                r["keyring"],
                r["problems"],
            )
            for r in lanes
        ]
        if not problems:
            parts: list[Any] = [rows(heading, content)]
            if witnessed:
                names = ("lane", "witness", "cosigned up to", "at")
                parts.append(rows(names, [(w["lane"], w["witness"], w["size"], w["at"]) for w in witnessed]))
            what = "entries, chain, signatures, tree, checkpoints" + (", versions of all objects" if looked else "")
            parts.append(f"Everything verifies: {what}.")
            if any(r.source == "postgres" for r in reports):
                parts.append("Tables of the projection are compared with the log by `ai-infra rebuild --parity`.")
            return stack(*parts, *(f"Versions of objects: {why}." for why in unlooked))
        listed = [(p.lane, p.source, p.position, p.code, p.detail) for p in problems]
        return stack(
            rows(heading, content),
            rows(
                ("lane", "in", "position", "problem", "detail"),
                listed,
                title=f"{len(problems)} problem{'' if len(problems) == 1 else 's'}",
            ),
        )

    data = {
        "ok": not problems,
        "lanes": lanes,
        "problems": problems,
        "witnessed": witnessed,
        "seconds": round(seconds, 3),
    }
    show(data, json=json, table=table)
