"""A lane in Postgres: its head, its history, and the one transaction that appends to it.

The head moves by compare-and-swap from the size and hash that the writer read; who finds it elsewhere has lost the
lane, and nothing that it signed is released. Everything of a batch is in that transaction or nothing is: entries, chain
rows, what was heard, projection, findings, Kafka offsets. Live indexing, restoring and rebuilding all append here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import psycopg
import structlog

from ai_infra.events.event import Event
from ai_infra.events.generated import AuditFinding
from ai_infra_indexer.applying import apply
from ai_infra_indexer.copying import copy_history, copy_log
from ai_infra_indexer.exceptions import LaneLost, ProjectionRefused
from ai_infra_indexer.history import NAMED, Finding, Judgement, Known, Number, Verdict, number_of
from ai_infra_indexer.order import Source
from ai_infra_indexer.projection import RowChange, project
from ai_infra_indexer.projection.version import PROJECTION
from ai_infra_indexer.refusals import Refusal, note_refusals
from ai_infra_indexer.sequence import Head, Line

log = structlog.get_logger(__name__)

Connection = psycopg.Connection[Any]

PROJECTION_REFUSED: Final = "projection_refused"  # the kind of finding

# The last one: this process stood still in the middle of a transaction, and its session was ended for that.
POSTGRES_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
# What the data is to blame for. A limit (a name too long for its index, JSON deeper than Postgres reads) is one too: it
# would be met again and again.
_REFUSES: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex,
)


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append came to."""

    head: Head
    verdicts: Mapping[int, Verdict]
    findings: tuple[Finding, ...]


def keyring_version(connection: Connection, lane: int, size: int) -> int:
    """The newest version of the keyring among the first entries of a lane; 0 where there is none."""
    query = "SELECT coalesce(max(version), 0) FROM keyrings WHERE lane = %s AND position < %s"
    row = connection.execute(query, (lane, size)).fetchone()
    return int(row[0]) if row is not None else 0


def record_versions(connection: Connection, lane: int, written: Mapping[str, str]) -> None:
    """Remember the VersionIds of what the archive keeps for good, by path below the lane; the first one counts."""
    if written:
        connection.execute(
            "INSERT INTO archive_versions (lane, path, version_id) SELECT %s, * FROM unnest(%s::text[], %s::text[]) "
            "ON CONFLICT DO NOTHING",
            (lane, list(written), list(written.values())),
        )


def recorded_versions(connection: Connection, lane: int) -> dict[str, str]:
    """The VersionIds that were remembered, by path below the lane."""
    rows = connection.execute("SELECT path, version_id FROM archive_versions WHERE lane = %s", (lane,)).fetchall()
    return dict(rows)


def ensure_lane(connection: Connection, lane: int, origin: str) -> None:
    """The lane's row, partitions and schema, where they are not there yet."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('ai-infra add_lane'))")
        connection.execute("SELECT add_lane(%s::smallint, %s)", (lane, origin))


def end_stalled(connection: Connection, stalled_ms: int) -> int:
    """Ends sessions whose transaction on a lane has been open for so long, and returns how many: to be called by who
    has been given a lane. A process that was halted within a COPY or a pipeline is not idle in its transaction, as
    Postgres sees it, so no time-out of the server's takes the lane's row from it."""
    ended = connection.execute(
        "SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_locks l USING (pid) "
        "WHERE l.relation = 'lanes'::regclass AND l.mode = 'RowExclusiveLock' AND l.granted "
        "AND a.usename = current_user AND a.pid <> pg_backend_pid() "
        "AND a.xact_start < clock_timestamp() - %s * interval '1 millisecond'",
        (stalled_ms,),
    ).fetchall()
    for pid, _ in ended:
        log.warning("a transaction that stood still was ended", pid=pid, longer_than_ms=stalled_ms)
    return len(ended)


def read_head(connection: Connection, lane: int) -> Head:
    """Where the lane ends now."""
    row = connection.execute(
        "SELECT origin, size, head_hash, last_ts_us FROM lanes WHERE lane = %s", (lane,)
    ).fetchone()
    if row is None:
        raise LaneLost(f"lane {lane} is not in the database: it was replaced while an indexer worked on it")
    return Head(lane, *row)


def read_offsets(connection: Connection, lane: int) -> dict[Source, int]:
    """Where reading goes on, by source; empty for a lane that has read nothing."""
    rows = connection.execute("SELECT topic, partition, next_offset FROM lane_offsets WHERE lane = %s", (lane,))
    return {(topic, partition): offset for topic, partition, offset in rows}


def read_known(connection: Connection, lane: int, events: Sequence[Event[Any]]) -> Known:
    """What the lane's history says about these events and their causes. One way to the server and back."""
    ids = {event.id for event in events} | {c.id for event in events for c in event.causes if c.lane == lane}
    numbers = [number for event in events if (number := number_of(event)) is not None]
    with connection.pipeline():
        positions = _ask_positions(connection, lane, ids)
        numbered = _ask_numbers(connection, lane, numbers) if numbers else ()
        awaited = connection.execute(
            "SELECT cause_id::text, (array_agg(position ORDER BY position))[1:%s] FROM missing_causes "
            "WHERE lane = %s AND cause_id = ANY(%s::uuid[]) GROUP BY cause_id",
            (NAMED, lane, _uuids(event.id for event in events)),
        )
    return Known(
        lane,
        ids=_positions(positions),
        numbers={(producer, epoch, seq): (position, hash_) for producer, epoch, seq, position, hash_ in numbered},
        awaited={cause: tuple(found) for cause, found in awaited},
    )


def read_positions(connection: Connection, lane: int, ids: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Position and event_hash of the first entry of each of these events that is in the lane."""
    return _positions(_ask_positions(connection, lane, ids))


def _positions(rows: Iterable[tuple[str, int, str]]) -> dict[str, tuple[int, str]]:
    return {event_id: (position, event_hash) for event_id, position, event_hash in rows}


def _ask_positions(connection: Connection, lane: int, ids: Iterable[str]) -> Iterable[tuple[str, int, str]]:
    return connection.execute(
        "SELECT event_id::text, position, event_hash FROM event_ids WHERE lane = %s AND event_id = ANY(%s::uuid[])",
        (lane, _uuids(ids)),
    )


def _uuids(ids: Iterable[str]) -> str:
    """An array as Postgres writes it: thousands of ids as one text. Ids were checked for their form when read."""
    return "{" + ",".join(ids) + "}"


def _ask_numbers(connection: Connection, lane: int, numbers: Sequence[Number]) -> Iterable[tuple[Any, ...]]:
    wanted = orjson.dumps([{"producer": producer, "epoch": epoch, "seq": seq} for producer, epoch, seq in numbers])
    return connection.execute(
        "SELECT p.producer, p.epoch, p.seq, p.position, p.event_hash FROM producer_events p "
        "JOIN json_to_recordset(%s::json) AS wanted(producer text, epoch int8, seq int8) USING (producer, epoch, seq) "
        "WHERE p.lane = %s",
        (wanted.decode(), lane),
    )


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
    """One transaction: the head from `head` to `after`, and everything that these lines bring. Raises LaneLost."""
    with connection.transaction():
        moved = connection.execute(
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
        if moved.rowcount != 1:
            raise LaneLost(
                f"lane {head.lane} is not at {head.size} entries any more: another indexer has it, or the database "
                "was restored from a backup. Nothing of this batch was released"
            )
        first_new = dict.fromkeys(known.ids), dict.fromkeys(known.numbers)
        judged = [(line, known.judge(line.event, line.position)) for line in lines]
        refused = project_lines(connection, head.lane, judged)
        verdicts = {line.position: refused.get(line.position, (j.verdict,))[0] for line, j in judged}
        findings = [finding for _, judgement in judged for finding in judgement.findings]
        findings += refusal_findings(lines, refused)
        copy_log(connection, head, [line for line, _ in judged], verdicts)
        copy_history(connection, head.lane, judged, first_new)
        write_findings(connection, head.lane, findings)
        note_refusals(connection, head.lane, refusals)
        _write_offsets(connection, head.lane, offsets)
    return Appended(after, verdicts, tuple(findings))


def project_lines(
    connection: Connection, lane: int, judged: Sequence[tuple[Line, Judgement]]
) -> dict[int, tuple[Verdict, str]]:
    """Applies what the entries mean; returns those whose projection was refused, and why."""
    refused: dict[int, tuple[Verdict, str]] = {}
    changes: list[tuple[int, tuple[RowChange, ...]]] = []
    for line, judgement in judged:
        if judgement.verdict is not Verdict.PROJECTED:
            continue
        try:
            changes.append((line.position, project(line.position, line.event)))
        except (ProjectionRefused, ValueError, TypeError, KeyError, OverflowError) as error:
            refused[line.position] = (Verdict.REFUSED, f"{type(error).__name__}: {error}")
    return refused | _apply(connection, lane, changes)


def refusal_findings(lines: Sequence[Line], refused: Mapping[int, tuple[Verdict, str]]) -> list[Finding]:
    """What is to be said of lines whose projection was refused."""
    return [
        Finding(line.position, PROJECTION_REFUSED, line.event.type, line.event.id, refused[line.position][1])
        for line in lines
        # A finding about a finding would be refused as that one was, and so on for ever: its verdict tells it.
        if line.position in refused and line.event.type != AuditFinding.TOPIC
    ]


def _apply(
    connection: Connection, lane: int, changes: Sequence[tuple[int, tuple[RowChange, ...]]]
) -> dict[int, tuple[Verdict, str]]:
    """All at once; where the data prevents it (never the infrastructure), half by half: the outcome of each entry is
    the same as alone, and a bad one keeps no other from its rows."""
    if not changes:
        return {}
    try:
        with connection.transaction():
            apply(connection, lane, [change for _, group in changes for change in group])
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
