"""The one transaction that appends to lanes.

The head of each moves by compare-and-swap from the size and hash that the writer read; who finds it elsewhere has lost
the lane, and nothing that it signed is released. Everything of a batch is in that transaction or nothing is: entries,
chain rows, what was heard, projection, findings, Kafka offsets. Live indexing, restoring and rebuilding append here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from ai_infra.events.generated import AuditFinding
from ai_infra_indexer.applying import apply
from ai_infra_indexer.copying import copy_history, copy_log
from ai_infra_indexer.exceptions import LaneLost, ProjectionRefused
from ai_infra_indexer.history import Finding, Judgement, Known, Verdict
from ai_infra_indexer.order import Source
from ai_infra_indexer.projection import RowChange, project
from ai_infra_indexer.projection.version import PROJECTION
from ai_infra_indexer.refusals import Refusal, note_refusals
from ai_infra_indexer.sequence import Head, Line
from ai_infra_indexer.store import Connection

PROJECTION_REFUSED: Final = "projection_refused"  # the kind of finding

# What the data is to blame for. A limit (a name too long for its index, JSON deeper than Postgres reads) is one too: it
# would be met again and again.
_REFUSES: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)

# How long several lanes wait for what somebody else holds of one of them; a lane alone waits as the connection is set.
TOGETHER_LOCK_MS: Final = 250

_Change = tuple[int, tuple[RowChange, ...]]
"""A position, and what its entry changes."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is appended to one lane: its head from `head` to `after`, and everything that these lines bring."""

    head: Head
    lines: Sequence[Line]
    after: Head
    known: Known
    """What the history said about them before."""
    offsets: Mapping[Source, int]
    refusals: Sequence[Refusal] = ()

    @property
    def lane(self) -> int:
        return self.head.lane


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append came to."""

    head: Head
    verdicts: Mapping[int, Verdict]
    findings: tuple[Finding, ...]


def append(
    connection: Connection,
    head: Head,
    lines: Sequence[Line],
    after: Head,
    *,
    known: Known,
    offsets: Mapping[Source, int],
    refusals: Sequence[Refusal] = (),
) -> Appended:
    """What one lane's batch comes to, in a transaction of its own. Raises LaneLost."""
    [done] = append_all(connection, [Batch(head, lines, after, known, offsets, refusals)])
    return done


def append_all(connection: Connection, batches: Sequence[Batch]) -> list[Appended]:
    """One transaction for batches of different lanes, in the order of the lanes: all of it, or nothing. Raises LaneLost
    where the head of one of them is elsewhere.

    The ways to the server and back are as many for eight lanes as for one, and a small batch takes little else.
    """
    with connection.transaction():
        _move_heads(connection, batches)
        judged = [_judged(batch) for batch in batches]
        refused = _project_all(connection, [(b.lane, lines) for b, lines in zip(batches, judged, strict=True)])
        done = [_appended(*each) for each in zip(batches, judged, refused, strict=True)]
        copy_log(connection, [(b.head, b.lines, a.verdicts) for b, a in zip(batches, done, strict=True)])
        copy_history(connection, [(j, b.known) for b, j in zip(batches, judged, strict=True)])
        with connection.pipeline():
            for batch, appended in zip(batches, done, strict=True):
                write_findings(connection, batch.lane, appended.findings)
                note_refusals(connection, batch.lane, batch.refusals)
                _write_offsets(connection, batch.lane, batch.offsets)
    return done


def _move_heads(connection: Connection, batches: Sequence[Batch]) -> None:
    with connection.pipeline():
        if len(batches) > 1:
            connection.execute(f"SET LOCAL lock_timeout = {TOGETHER_LOCK_MS}".encode())
        moved = [(batch, _move_head(connection, batch)) for batch in batches]
    for batch, cursor in moved:
        if cursor.rowcount != 1:
            raise LaneLost(
                f"lane {batch.lane} is not at {batch.head.size} entries any more: another indexer has it, or the "
                "database was restored from a backup. Nothing of this batch was released"
            )


def _move_head(connection: Connection, batch: Batch) -> psycopg.Cursor[Any]:
    head, after = batch.head, batch.after
    return connection.execute(
        "UPDATE lanes SET size = %(size)s, head_hash = %(hash)s, last_ts_us = %(ts)s, projection = "
        # Rows of one projection stay so; what another one adds to them makes them rows of none.
        "CASE WHEN size = 0 THEN %(ours)s WHEN abs(projection) = %(ours)s THEN projection ELSE 0 END "
        "WHERE lane = %(lane)s AND size = %(old_size)s AND head_hash = %(old_hash)s",
        {
            "size": after.size,
            "hash": after.head_hash,
            "ts": after.last_ts_us,
            "ours": PROJECTION,
            "lane": head.lane,
            "old_size": head.size,
            "old_hash": head.head_hash,
        },
    )


def _judged(batch: Batch) -> list[tuple[Line, Judgement]]:
    """What the history makes of each line. The batch stays as it is: after a failed transaction it is judged again."""
    known = batch.known.copy()
    return [(line, known.judge(line.event, line.position)) for line in batch.lines]


def _appended(
    batch: Batch, judged: Sequence[tuple[Line, Judgement]], refused: Mapping[int, tuple[Verdict, str]]
) -> Appended:
    verdicts = {line.position: refused.get(line.position, (j.verdict,))[0] for line, j in judged}
    findings = [finding for _, judgement in judged for finding in judgement.findings]
    findings += refusal_findings(batch.lines, refused)
    return Appended(batch.after, verdicts, tuple(findings))


def project_lines(
    connection: Connection, lane: int, judged: Sequence[tuple[Line, Judgement]]
) -> dict[int, tuple[Verdict, str]]:
    """Applies what the entries mean; returns those whose projection was refused, and why."""
    [refused] = _project_all(connection, [(lane, judged)])
    return refused


def _project_all(
    connection: Connection, lanes: Sequence[tuple[int, Sequence[tuple[Line, Judgement]]]]
) -> list[dict[int, tuple[Verdict, str]]]:
    """`project_lines` of several lanes."""
    meant = [_meant(judged) for _, judged in lanes]
    groups = [(lane, changes) for (lane, _), (changes, _) in zip(lanes, meant, strict=True) if changes]
    # One lane alone is tried where it is halved too.
    if len(groups) > 1 and _applied(connection, groups):
        return [refused for _, refused in meant]
    return [
        refused | _apply(connection, lane, changes) for (lane, _), (changes, refused) in zip(lanes, meant, strict=True)
    ]


def _meant(judged: Sequence[tuple[Line, Judgement]]) -> tuple[list[_Change], dict[int, tuple[Verdict, str]]]:
    """The row changes of the entries, and those of which none can be made."""
    refused: dict[int, tuple[Verdict, str]] = {}
    changes: list[_Change] = []
    for line, judgement in judged:
        if judgement.verdict is not Verdict.PROJECTED:
            continue
        try:
            changes.append((line.position, project(line.position, line.event)))
        except (ProjectionRefused, ValueError, TypeError, KeyError, OverflowError) as error:
            refused[line.position] = (Verdict.REFUSED, f"{type(error).__name__}: {error}")
    return changes, refused


def refusal_findings(lines: Sequence[Line], refused: Mapping[int, tuple[Verdict, str]]) -> list[Finding]:
    """What is to be said of lines whose projection was refused."""
    return [
        Finding(line.position, PROJECTION_REFUSED, line.event.type, line.event.id, refused[line.position][1])
        for line in lines
        # A finding about a finding would be refused as that one was, and so on for ever: its verdict tells it.
        if line.position in refused and line.event.type != AuditFinding.TOPIC
    ]


def _applied(connection: Connection, lanes: Sequence[tuple[int, Sequence[_Change]]]) -> bool:
    """All changes of several lanes at once; False, and nothing done, where the data of one of them prevents it."""
    try:
        with connection.transaction():
            apply(connection, [(lane, [c for _, group in changes for c in group]) for lane, changes in lanes])
    except _REFUSES:
        return False
    return True


def _apply(connection: Connection, lane: int, changes: Sequence[_Change]) -> dict[int, tuple[Verdict, str]]:
    """All at once; where the data prevents it (never the infrastructure), half by half: the outcome of each entry is
    the same as alone, and a bad one keeps no other from its rows."""
    if not changes:
        return {}
    try:
        with connection.transaction():
            apply(connection, [(lane, [change for _, group in changes for change in group])])
    except _REFUSES as error:
        if len(changes) == 1:
            return {changes[0][0]: (Verdict.REFUSED, _why(error))}
        half = len(changes) // 2
        return _apply(connection, lane, changes[:half]) | _apply(connection, lane, changes[half:])
    return {}


def _why(error: psycopg.Error) -> str:
    """Why the database would not have it. Its own words alone: the same on every server, and without a row's values."""
    return f"{type(error).__name__} ({error.sqlstate}): {error.diag.message_primary or ''}"


def write_findings(connection: Connection, lane: int, findings: Sequence[Finding]) -> None:
    """Write down what an auditor should know."""
    if not findings:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO findings (lane, position, kind, about, event_id, producer, epoch, seq, detail) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (lane, f.position, f.kind, f.about, f.event_id, *(f.number or (None, None, None)), f.detail)
                for f in findings
            ],
        )


def _write_offsets(connection: Connection, lane: int, offsets: Mapping[Source, int]) -> None:
    if not offsets:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO lane_offsets (lane, topic, partition, next_offset) VALUES (%s, %s, %s, %s) "
            "ON CONFLICT (lane, topic, partition) DO UPDATE SET next_offset = EXCLUDED.next_offset",
            [(lane, topic, partition, offset) for (topic, partition), offset in offsets.items()],
        )
