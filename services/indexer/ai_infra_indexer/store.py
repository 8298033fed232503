"""A lane in Postgres as its writer reads it: its head, its offsets, what its history says about an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
import psycopg
import structlog

from ai_infra.events.event import Event
from ai_infra_indexer.exceptions import LaneLost
from ai_infra_indexer.history import NAMED, Known, Number, number_of
from ai_infra_indexer.order import Source
from ai_infra_indexer.sequence import Head

log = structlog.get_logger(__name__)

Connection = psycopg.Connection[Any]

# The last one: this process stood still in the middle of a transaction, and its session was ended for that.
POSTGRES_AWAY: Final = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.IdleInTransactionSessionTimeout,
)


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
    """What the lane's history says about these events and their causes."""
    [known] = read_all_known(connection, [(lane, events)])
    return known


def read_all_known(connection: Connection, asked: Sequence[tuple[int, Sequence[Event[Any]]]]) -> list[Known]:
    """What the history of each of these lanes says about its events. One way to the server and back for all."""
    with connection.pipeline():
        answers = [_ask_known(connection, lane, events) for lane, events in asked]
    return [
        Known(
            lane,
            ids=_positions(positions),
            numbers={(producer, epoch, seq): (position, hash_) for producer, epoch, seq, position, hash_ in numbered},
            awaited={cause: tuple(found) for cause, found in awaited},
        )
        for (lane, _), (positions, numbered, awaited) in zip(asked, answers, strict=True)
    ]


def _ask_known(connection: Connection, lane: int, events: Sequence[Event[Any]]) -> tuple[Iterable[Any], ...]:
    ids = {event.id for event in events} | {c.id for event in events for c in event.causes if c.lane == lane}
    numbers = [number for event in events if (number := number_of(event)) is not None]
    return (
        _ask_positions(connection, lane, ids),
        _ask_numbers(connection, lane, numbers) if numbers else (),
        connection.execute(
            "SELECT cause_id::text, (array_agg(position ORDER BY position))[1:%s] FROM missing_causes "
            "WHERE lane = %s AND cause_id = ANY(%s::uuid[]) GROUP BY cause_id",
            (NAMED, lane, _uuids(event.id for event in events)),
        ),
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
