"""From verified events, in their order, to log entries: positions, Kernel payloads, chain rows, entry bytes.

Nothing is released here: a line counts only once the lane's head has moved over it in Postgres. The chain key signs;
apart from that everything is computed from the head and the events alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.events.avro import rfc3339
from ai_infra.events.event import Event
from ai_infra.events.statement import DATASCHEMA_PREFIX, EVENT_PAYLOAD_TYPE
from ai_infra.events.values import value
from ai_infra_indexer import kernel
from ai_infra_indexer.bodies import as_written, bare
from ai_infra_indexer.entry import Entry, Link, encode

_PAE_PREFIX: Final = b"DSSEv1 %d %b " % (len(EVENT_PAYLOAD_TYPE), EVENT_PAYLOAD_TYPE.encode())


@dataclass(frozen=True, slots=True)
class Head:
    """Where a lane's log ends."""

    lane: int
    origin: str
    size: int = 0
    head_hash: str = ""
    """Chain hash of the last entry; empty at the start."""
    last_ts_us: int = 0


@value()
class Line:
    """One entry, ready to be written everywhere it belongs."""

    position: int
    event: Event[Any]
    link: Link
    payload: bytes
    raw: bytes


def sequence(head: Head, events: Iterable[Event[Any]], signer: kernel.ChainSigner) -> tuple[list[Line], Head]:
    """The lines that these events make at the end of the lane's log, and the head after them."""
    lines: list[Line] = []
    position, prev, ts_us = head.size, head.head_hash or None, head.last_ts_us
    for event in events:
        record = event.record
        sha256 = event.attributes.dataschema[len(DATASCHEMA_PREFIX) :]
        body = bare(record.value or b"")
        statement = statement_of(event)
        # Kernel tools order by time: strictly increasing, whatever clock the broker had.
        ts_us = max(record.append_time_ms * 1000, ts_us + 1)
        payload = kernel.payload(
            _said(event),
            as_written(event.body, sha256, body),
            lane=head.lane,
            position=position,
            event_hash=event.hash,
        )
        link = kernel.link(payload, prev_hash=prev, event_id=event.id, ts_us=ts_us, signer=signer)
        raw = encode(
            lane=head.lane,
            position=position,
            record=record,
            statement=statement,
            signature=event.attributes.signature,
            delegation=event.attributes.delegation,
            traceparent=event.attributes.traceparent,
            link=link,
            body=body,
        )
        lines.append(Line(position, event, link, payload, raw))
        position, prev = position + 1, link.hash
    return lines, Head(head.lane, head.origin, position, prev or "", ts_us)


def statement_of(event: Event[Any]) -> bytes:
    """The canonical statement that the event's message holds."""
    return event.message[event.message.index(b" ", len(_PAE_PREFIX)) + 1 :]


def _said(event: Event[Any]) -> dict[str, Any]:
    """What a payload takes from the statement, without parsing that again."""
    attributes = event.attributes
    return {
        "causes": [{"id": cause.id} for cause in attributes.causes],
        "ce_id": attributes.id,
        "ce_source": attributes.source,
        "ce_subject": attributes.subject,
        "ce_time": rfc3339(attributes.time),
        "ce_type": attributes.type,
        "key": (event.record.key or b"").decode(),
        "signer": attributes.signer,
    }


def line_of(entry: Entry, event: Event[Any]) -> Line:
    """The line of an entry that was read back, with the event that its record verified to."""
    said = as_written(event.body, str(entry.statement["schema_sha256"]), entry.body)
    payload = kernel.payload(entry.statement, said, lane=entry.lane, position=entry.position, event_hash=event.hash)
    return Line(entry.position, event, entry.link, payload, entry.raw)


def head_after(head: Head, lines: list[Line]) -> Head:
    """The head after lines that were read back."""
    if not lines:
        return head
    last = lines[-1]
    return Head(head.lane, head.origin, last.position + 1, last.link.hash, last.link.ts_us)
