"""The rows of a batch by COPY, in the binary form that goes over the wire.

A time is an integer there, a UUID sixteen bytes, JSON the bytes that it is: they are written as such, since composing
each from a Python object took longer than all the rest of the row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg

from ai_infra_indexer import kernel
from ai_infra_indexer.history import Judgement, Known, Number, Verdict, number_of
from ai_infra_indexer.sequence import Head, Line

# Columns and how their values are written: timestamptz as int8, uuid, uuid[] and json as bytea.
_ENTRIES: Final = (
    "lane int2, position int8, event_id bytea, type text, model text, subject text, signer text, principal text, "
    "producer text, epoch int8, seq int8, event_hash text, event_time int8, append_time int8, "
    "kafka_partition int4, kafka_offset int8, causes bytea, verdict text, entry bytea"
)
_CHAIN: Final = (
    "lane int2, position int8, id text, event_type text, payload bytea, prev_hash text, hash text, signature text, "
    "signer_id text, ts int8, created_at int8, metadata bytea, version int4"
)
_IDS: Final = "lane int2, event_id bytea, position int8, event_hash text"
_NUMBERS: Final = "lane int2, producer text, epoch int8, seq int8, position int8, event_hash text"
_MISSING: Final = "lane int2, cause_id bytea, position int8"

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # Postgres counts from here
_EPOCH_US: Final = 946_684_800_000_000
_MICROSECOND: Final = timedelta(microseconds=1)
_UUID_OID: Final = 2950
_NO_UUIDS: Final = struct.pack("!iiI", 0, 0, _UUID_OID)  # dimensions, whether there are nulls, type of the items
_UUIDS: Final = struct.Struct("!iiIii")  # then, for the one dimension: how many, and the first one's number
_ITEM: Final = struct.pack("!i", 16)  # before each: its length

Connection = psycopg.Connection[Any]


def copy_log(connection: Connection, lanes: Iterable[tuple[Head, Sequence[Line], Mapping[int, Verdict]]]) -> None:
    """Entries and chain rows: the head of each lane before its lines, the lines, and the verdict at each position."""
    entries: list[tuple[Any, ...]] = []
    chain: list[tuple[Any, ...]] = []
    for head, lines, verdicts in lanes:
        for line in lines:
            entries.append(_entry(head, line, verdicts[line.position]))
            chain.append(_link(head, line))
    _copy(connection, "entries", _ENTRIES, entries)
    _copy(connection, "audit_events", _CHAIN, chain)


def _entry(head: Head, line: Line, verdict: Verdict) -> tuple[Any, ...]:
    event = line.event
    attributes, record = event.attributes, event.record
    return (
        head.lane,
        line.position,
        _uuid(attributes.id),
        attributes.type,
        (record.key or b"").decode(),
        attributes.subject,
        attributes.signer,
        event.principal,
        attributes.producer,
        attributes.epoch,
        attributes.seq,
        event.hash,
        (attributes.time - _EPOCH) // _MICROSECOND,
        record.append_time_ms * 1000 - _EPOCH_US,
        record.partition,
        record.offset,
        _uuids([cause.id for cause in attributes.causes]),
        verdict.value,
        line.raw,
    )


def _link(head: Head, line: Line) -> tuple[Any, ...]:
    link, type_ = line.link, line.event.type
    ts = link.ts_us - _EPOCH_US
    return (
        head.lane,
        line.position,
        link.id,
        type_,
        line.payload,
        link.prev_hash,
        link.hash,
        link.signature,
        link.signer_id,
        ts,
        ts,
        kernel.metadata(head.lane, line.position, head.origin, type_),
        kernel.AUDIT_EVENT_VERSION,
    )


def copy_history(connection: Connection, lanes: Iterable[tuple[Sequence[tuple[Line, Judgement]], Known]]) -> None:
    """What was heard for the first time: of each lane what was judged, and what was known before."""
    ids: dict[tuple[int, str], tuple[Any, ...]] = {}
    numbers: dict[tuple[int, Number], tuple[Any, ...]] = {}
    missing: list[tuple[Any, ...]] = []
    for judged, known in lanes:
        lane = known.lane
        for line, judgement in judged:
            event = line.event
            if event.id not in known.ids:
                ids.setdefault((lane, event.id), (lane, _uuid(event.id), line.position, event.hash))
            number = number_of(event)
            if number is not None and number not in known.numbers:
                numbers.setdefault((lane, number), (lane, *number, line.position, event.hash))
            missing += [(lane, _uuid(cause), line.position) for cause in judgement.missing]
    _copy(connection, "event_ids", _IDS, ids.values())
    _copy(connection, "producer_events", _NUMBERS, numbers.values())
    _copy(connection, "missing_causes", _MISSING, missing)


def _uuid(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", ""))


def _uuids(ids: Sequence[str]) -> bytes:
    if not ids:
        return _NO_UUIDS
    return _UUIDS.pack(1, 0, _UUID_OID, len(ids), 1) + b"".join([_ITEM + _uuid(text) for text in ids])


def _copy(connection: Connection, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
    rows = list(rows)
    if not rows:
        return
    names, types = zip(*(column.split() for column in columns.split(", ")), strict=True)
    command = f"COPY {table} ({', '.join(names)}) FROM STDIN (FORMAT BINARY)"
    with connection.cursor() as cursor, cursor.copy(command.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)
