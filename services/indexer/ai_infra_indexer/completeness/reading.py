"""A lane's entries as the ledger wants them, from Postgres or from the archive.

It counts what the log says, and judges no signature: an entry is in the log only because it verified, which `audit
verify` checks. What comes from the archive is at least the signed tree's: the checkpoint covers what was read, or the
reading ends with an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import EventRefused, ProducerHeartbeat
from ai_infra.events.parse import read
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.tree import Frontier, leaf_hash
from ai_infra_indexer import SERVICE
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.completeness.ledger import Ledger, Said
from ai_infra_indexer.entry import Entry, decode
from ai_infra_indexer.exceptions import AuditFailed, MalformedEntry
from ai_infra_indexer.store import Connection

Progress = Callable[[int], None]
_CHUNK: Final = 1_024


def said_in(raw: bytes, lanes: int) -> Said:
    """What an entry says about who said it. Raises MalformedEntry."""
    entry = decode(raw)
    said = entry.statement
    beat: tuple[int, int, str] | None = None
    refused: str | None = None
    if entry.type in (ProducerHeartbeat.TOPIC, EventRefused.TOPIC):
        body = _body(entry, lanes)
        if isinstance(body, ProducerHeartbeat):
            beat = (body.epoch, body.seq, body.event_hash)
        elif isinstance(body, EventRefused) and body.service == SERVICE:
            refused = body.event_hash
    return Said(
        position=entry.position,
        type=entry.type,
        event_id=entry.event_id,
        signer=str(said["signer"]),
        event_hash=entry.event_hash,
        append_ms=entry.append_time_ms,
        producer=said["producer"],
        epoch=_number(said["epoch"]),
        seq=_number(said["seq"]),
        prev=said["prev"],
        beat=beat,
        refused=refused,
    )


def read_archive(
    archived: ArchivedLane, shown: Checkpoint, ledger: Ledger, lanes: int, *, progress: Progress = lambda _: None
) -> None:
    """Take all entries under a verified checkpoint. Raises AuditFailed where they are not those that it covers."""
    frontier = Frontier()
    for _, raws in archived.bundles(0, shown.size):
        for raw in raws:
            _take(ledger, raw, lanes)
        frontier = frontier.extend(map(leaf_hash, raws))
        progress(len(raws))
    if (frontier.size, frontier.root()) != (shown.size, shown.root):
        raise AuditFailed(
            f"the entries of lane {archived.lane} are not those that its checkpoint of size {shown.size} covers; "
            f"`ai-infra audit verify --lane {archived.lane}` names the ones that differ"
        )


def read_postgres(
    connection: Connection, lane: int, ledger: Ledger, lanes: int, *, progress: Progress = lambda _: None
) -> int:
    """Take the entries that are in Postgres; returns the position of the first, below which they are pruned."""
    first: int | None = None
    with connection.transaction(), connection.cursor(name=f"complete_{lane}") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute("SELECT position, entry FROM entries WHERE lane = %s ORDER BY position", (lane,))
        while rows := cursor.fetchmany(_CHUNK):
            first = rows[0][0] if first is None else first
            for _, raw in rows:
                _take(ledger, bytes(raw), lanes)
            progress(len(rows))
    return first if first is not None else 0


def newest_append_ms(connection: Connection) -> int:
    """When the newest entry of all lanes was appended, 0 where there is none."""
    row = connection.execute("SELECT max(last_ts_us) FROM lanes").fetchone()
    return int(row[0]) // 1000 if row is not None and row[0] is not None else 0


def read_pruned(archived: ArchivedLane, size: int, before: int, ledger: Ledger, lanes: int) -> None:
    """Take the entries below a position from the archive, where Postgres has them no more."""
    for first, raws in archived.bundles(0, size):
        for at, raw in enumerate(raws):
            if first + at >= before:
                return
            _take(ledger, raw, lanes)


def _take(ledger: Ledger, raw: bytes, lanes: int) -> None:
    try:
        ledger.take(said_in(raw, lanes))
    except MalformedEntry as error:
        raise AuditFailed(f"an entry can't be read: {error}; `ai-infra audit verify` says which") from error


def _body(entry: Entry, lanes: int) -> Any:
    try:
        return read(entry.record(), lanes).decode()
    except EventError as error:
        raise MalformedEntry(f"entry {entry.position} can't be read: {error}") from error


def _number(value: Any) -> int | None:
    return int(value) if value is not None else None
