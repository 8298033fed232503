"""A log entry: the whole record as it came from Kafka, and its link in the Kernel's hash chain.

Bytes: one line of canonical JSON (everything but the body), a newline, the bare Avro body. What the tree hashes is
these bytes, so whoever has them needs neither Kafka nor a private key to verify and to project. At most 65,535 bytes,
which an event cannot exceed: its body has at most 48 KiB, its signed message 4,095 bytes, its delegation 400.
This module must never interpret a body, nor write a header key that a reader could not check.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson

from ai_infra.events.canonical import MAX_INTEGER
from ai_infra.events.codec import SINGLE_OBJECT
from ai_infra.events.event import Record
from ai_infra.events.keys import BROADCAST_TOPICS
from ai_infra.events.schemas import crc64_of
from ai_infra.events.statement import CONTENT_TYPE, EVENT_PAYLOAD_TYPE, SPEC_VERSION, pae
from ai_infra.events.values import value
from ai_infra_indexer.exceptions import EntryTooLarge, MalformedEntry

VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 65_535  # C2SP tlog-tiles: an entry's length is an unsigned 16-bit integer
_KEYS: Final = frozenset(
    ["append_time_ms", "chain", "delegation", "kafka", "lane", "position", "signature", "statement", "traceparent", "v"]
)
_CHAIN_KEYS: Final = frozenset(["hash", "id", "prev_hash", "signature", "signer_id", "ts"])
_KAFKA_KEYS: Final = frozenset(["offset", "partition"])
_STATEMENT_KEYS: Final = frozenset(
    {"body_sha256", "causes", "ce_dataschema", "ce_id", "ce_source", "ce_specversion", "ce_subject", "ce_time"}
    | {"ce_type", "content_type", "delegation_sha256", "epoch", "key", "keyring", "lane", "prev", "producer"}
    | {"schema_sha256", "seq", "signer", "topic"}
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@value()
class Link:
    """One row of the Kernel's chain, but for its payload, which follows from statement and body."""

    id: str
    ts_us: int
    """Strictly increasing within a lane, microseconds since the epoch."""
    prev_hash: str | None
    hash: str
    signature: str
    """Base64, by the chain key over the hash's 32 bytes."""
    signer_id: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A decoded log entry."""

    lane: int
    position: int
    append_time_ms: int
    partition: int
    offset: int
    statement: Mapping[str, Any]
    signature: bytes
    delegation: bytes
    traceparent: str | None
    link: Link
    body: bytes
    """Bare Avro."""
    raw: bytes
    """The entry's bytes, as hashed into the tree."""

    @property
    def event_id(self) -> str:
        return str(self.statement["ce_id"])

    @property
    def type(self) -> str:
        return str(self.statement["ce_type"])

    @property
    def key(self) -> str:
        return str(self.statement["key"])

    @property
    def home(self) -> int:
        """The partition that its event must be of: what is broadcast is entered into every lane, all else into one."""
        return 0 if self.type in BROADCAST_TOPICS else self.lane

    @property
    def message(self) -> bytes:
        """What the event's signature is over."""
        return pae(EVENT_PAYLOAD_TYPE, orjson.dumps(self.statement, option=orjson.OPT_SORT_KEYS))

    @property
    def event_hash(self) -> str:
        return hashlib.sha256(self.message).hexdigest()

    @property
    def kafka(self) -> tuple[str, int, int]:
        """Topic, partition and offset that it came from."""
        return str(self.statement["topic"]), self.partition, self.offset

    def record(self) -> Record:
        """The Kafka record that this entry holds, in single-object framing; raises MalformedEntry."""
        return _record(self)


def encode(
    *,
    lane: int,
    position: int,
    record: Record,
    statement: bytes,
    signature: bytes,
    delegation: bytes,
    traceparent: str | None,
    link: Link,
    body: bytes,
) -> bytes:
    """The bytes of an entry. `statement` is the canonical JSON that the event's message holds."""
    header = orjson.dumps(
        {
            # In canonical order already; the statement is canonical as it came.
            "append_time_ms": record.append_time_ms,
            "chain": {
                "hash": link.hash,
                "id": link.id,
                "prev_hash": link.prev_hash,
                "signature": link.signature,
                "signer_id": link.signer_id,
                "ts": link.ts_us,
            },
            "delegation": base64.b64encode(delegation).decode(),
            "kafka": {"offset": record.offset, "partition": record.partition},
            "lane": lane,
            "position": position,
            "signature": base64.b64encode(signature).decode(),
            "statement": orjson.Fragment(statement),
            "traceparent": traceparent,
            "v": VERSION,
        }
    )
    entry = header + b"\n" + body
    if len(entry) > MAX_ENTRY_BYTES:
        raise EntryTooLarge(
            f"a log entry has at most {MAX_ENTRY_BYTES} bytes; the event at "
            f"{record.topic}/{record.partition}/{record.offset} needs {len(entry)}"
        )
    return entry


def decode(raw: bytes) -> Entry:
    """Read an entry; anything that `encode` would not have written raises MalformedEntry."""
    line, newline, body = raw.partition(b"\n")
    if not newline:
        raise MalformedEntry("expected a line of JSON, a newline and a body; there is no newline")
    try:
        header = orjson.loads(line)
        chain = header["chain"]
        if header.keys() != _KEYS or chain.keys() != _CHAIN_KEYS or _int(header["v"]) != VERSION:
            raise MalformedEntry(f"expected version {VERSION} with keys {sorted(_KEYS)}; got {sorted(header)}")
        if orjson.dumps(header, option=orjson.OPT_SORT_KEYS) != line:
            raise MalformedEntry("the header is not in canonical form: two spellings of one entry would be two entries")
        statement = header["statement"]
        if statement.keys() != _STATEMENT_KEYS or header["kafka"].keys() != _KAFKA_KEYS:
            raise MalformedEntry("expected the statement of an event, and where it stood in Kafka; other keys came")
        _sha256(statement["schema_sha256"])
        return Entry(
            lane=_int(header["lane"]),
            position=_int(header["position"]),
            append_time_ms=_int(header["append_time_ms"]),
            partition=_int(header["kafka"]["partition"]),
            offset=_int(header["kafka"]["offset"]),
            statement=statement,
            signature=_base64(header["signature"]),
            delegation=_delegation(header["delegation"]),
            traceparent=None if header["traceparent"] is None else _text(header["traceparent"]),
            link=Link(
                id=_text(chain["id"]),
                ts_us=_int(chain["ts"]),
                prev_hash=None if chain["prev_hash"] is None else _sha256(chain["prev_hash"]),
                hash=_sha256(chain["hash"]),
                signature=_base64_text(chain["signature"]),
                signer_id=_text(chain["signer_id"]),
            ),
            body=body,
            raw=raw,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
        raise MalformedEntry(f"not a log entry: {error}") from error


def _base64(text: Any) -> bytes:
    """Base64 in its one spelling: spare bits of the last character are zero."""
    if type(text) is str:
        raw = binascii.a2b_base64(text)
        if binascii.b2a_base64(raw, newline=False) == text.encode():
            return raw
    raise MalformedEntry("expected standard base64")


def _base64_text(text: Any) -> str:
    _base64(text)
    return str(text)


# A process signs a day's events with one delegation: it is read once, not entry by entry.
_delegation = lru_cache(maxsize=4096)(_base64)


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MAX_INTEGER:
        raise MalformedEntry(f"expected an integer from 0 to 2^53-1; got {str(value)[:40]}")
    return value


def _text(value: Any) -> str:
    if type(value) is not str:
        raise MalformedEntry(f"expected text; got {type(value).__name__}")
    return value


def _sha256(value: Any) -> str:
    if type(value) is not str or _SHA256.fullmatch(value) is None:
        raise MalformedEntry(f"expected 64 hex digits; got {str(value)[:80]!r}")
    return value


def _record(entry: Entry) -> Record:
    said = entry.statement
    try:
        crc64 = crc64_of(said["schema_sha256"])
    except KeyError:
        raise MalformedEntry(
            f"entry {entry.position} of lane {entry.lane} was written with schema {said.get('schema_sha256')}, "
            "which this program does not know: it may be older than the log"
        ) from None
    headers: list[tuple[str, bytes]] = [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("content-type", CONTENT_TYPE.encode()),
        ("signature", entry.signature),
        ("delegation", entry.delegation),
    ]
    for name in ("ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_dataschema"):
        if said.get(name) is not None:
            headers.append((name, str(said[name]).encode()))
    for name in ("signer", "keyring", "producer", "epoch", "seq", "prev"):
        if said.get(name) is not None:
            headers.append((name, str(said[name]).encode()))
    if said.get("causes"):
        headers.append(("causes", orjson.dumps(said["causes"], option=orjson.OPT_SORT_KEYS)))
    if entry.traceparent is not None:
        headers.append(("traceparent", entry.traceparent.encode()))
    return Record(
        topic=str(said["topic"]),
        partition=entry.partition,
        offset=entry.offset,
        append_time_ms=entry.append_time_ms,
        key=str(said["key"]).encode(),
        value=SINGLE_OBJECT + crc64 + entry.body,
        headers=tuple(headers),
    )
