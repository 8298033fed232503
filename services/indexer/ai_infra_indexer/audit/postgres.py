"""A lane as Postgres shows it: its rows by themselves, and against the archive's checkpoint.

Old rows may have left Postgres (`pruning.py`): then the chain begins at the low water that was written down, which the
archive must confirm, and the keyrings of before come from their own table: the root keys vouch for them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import psycopg

from ai_infra.objects.exceptions import ObjectsError, ObjectsUnavailable
from ai_infra.tlog.exceptions import TlogError
from ai_infra.trust.exceptions import KeyringError
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer import kernel
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.archive import note_bad
from ai_infra_indexer.audit.heard import check_heard
from ai_infra_indexer.audit.report import LaneReport, Progress
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import MalformedEntry
from ai_infra_indexer.pruning import low_water
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.sequence import Head, Line
from ai_infra_indexer.store import Connection

_CHUNK: Final = 128  # rows at a time: a thousand with all that is known of them do not fit the caches of a processor
# Values are read as they compare with those of an entry.
_ROWS: Final = """
SELECT e.position, e.entry, a.position IS NOT NULL,
       e.event_id::text, e.type, e.model, e.subject, e.signer, e.principal, e.producer, e.epoch, e.seq, e.event_hash,
       e.event_time, e.append_time, e.kafka_partition, e.kafka_offset, e.causes::text[],
       a.id, a.event_type, a.payload::text, a.prev_hash, a.hash, a.signature, a.signer_id, a.ts, a.created_at,
       a.metadata::text, a.version
FROM entries e LEFT JOIN audit_events a ON a.lane = e.lane AND a.position = e.position
WHERE e.lane = %s ORDER BY e.position
"""
_ENTRY: Final = (
    *("event_id", "type", "model", "subject", "signer", "principal", "producer", "epoch", "seq", "event_hash"),
    *("event_time", "append_time", "kafka_partition", "kafka_offset", "causes"),
)
_CHAIN: Final = (
    *("id", "event_type", "payload", "prev_hash", "hash", "signature", "signer_id", "ts", "created_at"),
    *("metadata", "version"),
)
_FIRST: Final = 3  # column of what an entry's row says
_SECOND: Final = _FIRST + len(_ENTRY)  # of what its chain row says

_Row = tuple[Any, ...]


def audit_postgres(
    connection: Connection,
    lane: int,
    origin: str,
    roots: Roots,
    lanes: int,
    *,
    archived: ArchivedLane | None = None,
    progress: Progress = lambda _: None,
) -> LaneReport:
    """Verify one lane's rows: each entry, its columns, its chain row; with `archived` also that both tell the same.

    Reads one snapshot. Raises what Postgres raises, and ObjectsUnavailable.
    """
    began = time.monotonic()
    report = LaneReport(lane, "postgres")
    noted = connection.execute(
        "SELECT checkpoint_size, checkpoint_note FROM lane_progress WHERE lane = %s", (lane,)
    ).fetchone()
    # What was noted before the checkpoint is read: it was in the archive first. The checkpoint before the rows: the log
    # may grow meanwhile, and what is covered was in Postgres before it was.
    comparison = _Comparison(archived, report)
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # Of tables that were just filled Postgres knows no sizes, and would compare each entry with each chain row.
        connection.execute("SET LOCAL enable_nestloop = off")
        head = connection.execute("SELECT size, head_hash FROM lanes WHERE lane = %s", (lane,)).fetchone()
        if head is None:
            report.add(None, "no_lane", f"lane {lane} is not in the database")
            return report
        low = replace(low_water(connection, lane), origin=origin)
        replay = Replay(low, _keyrings_below(connection, low, roots, report), lanes, chain_signatures=True)
        for rows in _chunks(connection, lane):
            _check_rows(replay, rows, report)
            for position, raw, *_ in rows:
                comparison.take(position, raw)
            progress(len(rows))
        check_heard(connection, lane, low.size, report)
        stray = connection.execute(
            "SELECT a.position FROM audit_events a LEFT JOIN entries e ON e.lane = a.lane AND e.position = a.position "
            "WHERE a.lane = %s AND e.position IS NULL ORDER BY a.position",
            (lane,),
        ).fetchall()
    for (position,) in stray:
        report.add(position, "stray_chain_row", "audit_events has a row that no entry belongs to")
    report.entries, report.pruned = replay.head.size - low.size, low.size
    report.keyring_version = replay.keyrings.latest_version
    if (head[0], head[1]) != (replay.head.size, replay.head.head_hash):
        report.add(
            None,
            "wrong_head",
            f"the lane's head says {head[0]} entries and hash {head[1]}, its rows end at {replay.head.size} with "
            f"{replay.head.head_hash}",
        )
    comparison.end(replay, low)
    comparison.check_noted(replay, *(noted or (0, "")))
    report.seconds = time.monotonic() - began
    return report


def _chunks(connection: Connection, lane: int) -> Iterator[list[_Row]]:
    with psycopg.ServerCursor(connection, f"audit_{lane}") as cursor:
        cursor.execute(_ROWS, (lane,), binary=True)
        while rows := cursor.fetchmany(_CHUNK):
            yield rows


def _keyrings_below(connection: Connection, low: Head, roots: Roots, report: LaneReport) -> Keyrings:
    """The keyrings that were entered among the rows that were pruned."""
    keyrings = Keyrings(roots)
    rows = connection.execute(
        "SELECT position, keyring FROM keyrings WHERE lane = %s AND position < %s ORDER BY version",
        (low.lane, low.size),
    ).fetchall()
    for position, text in rows:
        try:
            keyrings.accept(text)
        except KeyringError as error:
            report.add(position, error.code, f"the keyring that was entered here does not verify: {error}")
    return keyrings


def _check_rows(replay: Replay, rows: list[_Row], report: LaneReport) -> None:
    lines = []
    if rows[0][0] == replay.head.size and rows[-1][0] == replay.head.size + len(rows) - 1:
        lines = replay.take_all([row[1] for row in rows])
    for line, row in zip(lines, rows, strict=False):
        _check_line(replay, line, row, report)
    for row in rows[len(lines) :]:
        _check_row(replay, row, report)


def _check_row(replay: Replay, row: _Row, report: LaneReport) -> None:
    position, raw = row[:2]
    if position < replay.head.size:
        report.add(position, "stray_row", "entries has a row below the lane's low water")
        return
    while replay.head.size < position:
        report.add(replay.head.size, "missing_row", "entries has no row at this position")
        replay.resume_after(None)
    try:
        line = replay.take(raw)
    except BadEntry as error:
        note_bad(replay, position, error, report)
        replay.resume_after(raw)
        return
    _check_line(replay, line, row, report)


def _check_line(replay: Replay, line: Line, row: _Row, report: LaneReport) -> None:
    event, link = line.event, line.link
    attributes, record = event.attributes, event.record
    report.note(line.position, event)
    said: _Row = (
        attributes.id,
        attributes.type,
        (record.key or b"").decode(),
        attributes.subject,
        attributes.signer,
        event.principal,
        attributes.producer,
        attributes.epoch,
        attributes.seq,
        event.hash,
        attributes.time,
        event.append_time,
        record.partition,
        record.offset,
        [cause.id for cause in attributes.causes],
    )
    if row[_FIRST:_SECOND] != said:
        _compare("entries", _ENTRY, said, row[_FIRST:_SECOND], line.position, report)
    if not row[2]:
        report.add(line.position, "missing_chain_row", "audit_events has no row at this position")
        return
    ts = kernel.when(link.ts_us)
    said = (
        link.id,
        attributes.type,
        line.payload.decode(),
        link.prev_hash,
        link.hash,
        link.signature,
        link.signer_id,
        ts,
        ts,
        kernel.metadata(report.lane, line.position, replay.head.origin, attributes.type).decode(),
        kernel.AUDIT_EVENT_VERSION,
    )
    if row[_SECOND:] != said:
        _compare("audit_events", _CHAIN, said, row[_SECOND:], line.position, report)


def _compare(table: str, columns: Iterable[str], expected: _Row, row: _Row, position: int, report: LaneReport) -> None:
    for column, wanted, found in zip(columns, expected, row, strict=True):
        if found != wanted:
            path, there, said = _difference(column, found, wanted)
            shown, told = _short(there), _short(said)
            report.add(position, "changed_row", f"{table}.{path} is {shown}; the entry says {told}")


def _difference(path: str, found: Any, wanted: Any) -> tuple[str, Any, Any]:
    """Where two values differ first: inside of JSON objects by the path, so that the change itself is shown."""
    import orjson

    values = []
    for value in (found, wanted):
        try:
            values.append(orjson.loads(value) if isinstance(value, str) else value)
        except orjson.JSONDecodeError:
            values.append(value)
    one, two = values
    if isinstance(one, dict) and isinstance(two, dict):
        for name in sorted({*one, *two}):
            if one.get(name) != two.get(name):
                return _difference(f"{path}.{name}", one.get(name, "missing"), two.get(name, "missing"))
    return path, found, wanted


def _short(value: Any) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Comparison:
    """Postgres against the archive, bundle by bundle, up to the checkpoint."""

    def __init__(self, archived: ArchivedLane | None, report: LaneReport) -> None:
        self._archived = archived
        self._report = report
        self._note = archived.note() if archived is not None else None
        self._size = 0
        if archived is not None and self._note is not None:
            try:
                self._size = archived.claimed_size(self._note)
            except (TlogError, UnicodeDecodeError) as error:
                report.add(None, "bad_checkpoint", f"the archive's checkpoint can't be read: {error}")
        self._first = 0
        self._bundle: Sequence[bytes] = ()

    def take(self, position: int, raw: bytes) -> None:
        if self._archived is None or position >= self._size:
            return
        if not self._first <= position < self._first + len(self._bundle):
            try:
                [(self._first, self._bundle)] = self._archived.bundles(position, min(self._size, (position | 255) + 1))
            except ObjectsUnavailable:
                raise
            except (ObjectsError, TlogError):
                self._first, self._bundle = position, ()
                return  # the audit of the archive names what is wrong there
        at = position - self._first
        if at < len(self._bundle) and self._bundle[at] != raw:
            self._report.add(position, "differs_from_archive", "the entry in Postgres is not the archived one")

    def end(self, replay: Replay, low: Head) -> None:
        if low.size:
            self._check_low_water(low)
        if self._archived is None or self._note is None:
            return
        if replay.head.size < self._size:
            self._report.add(
                None,
                "behind_archive",
                f"Postgres has {replay.head.size} entries, the archive's checkpoint covers {self._size}: restart the "
                "indexer, which fills it up, or rebuild",
            )
        self._report.checkpoint_size = self._size

    def check_noted(self, replay: Replay, size: int, note: str) -> None:
        """A checkpoint that Postgres has noted was in the archive before, and is covered by none that is older."""
        if self._archived is None or size <= self._size or not replay.keyrings.latest_version:
            return
        try:
            head = self._archived.checkpoint(note.encode(), replay.keyrings.latest).checkpoint
        except (TlogError, UnicodeDecodeError):
            return  # no word of the log's
        if head.size > self._size:
            detail = f"Postgres has noted a checkpoint of size {head.size}; the archive shows one of {self._size}"
            self._report.add(None, "rolled_back", detail)

    def _check_low_water(self, low: Head) -> None:
        """Rows may only be gone where the archive has them, and the rest must go on from there."""
        if self._archived is None:
            return
        if low.size > self._size:
            what = f"rows below {low.size} were pruned, the archive's checkpoint covers only {self._size}"
            self._report.add(self._size, "pruned_too_far", f"{what}: the rest is nowhere")
            return
        try:
            [(_, raws)] = self._archived.bundles(low.size - 1, low.size)
            last = decode(raws[0]).link
        except ObjectsUnavailable:
            raise
        except (ObjectsError, TlogError, MalformedEntry):
            return  # the audit of the archive names what is wrong there
        if (last.hash, last.ts_us) != (low.head_hash, low.last_ts_us):
            self._report.add(
                low.size - 1,
                "wrong_low_water",
                f"the rows that are left go on from hash {low.head_hash}, the archived entry before has {last.hash}",
            )
