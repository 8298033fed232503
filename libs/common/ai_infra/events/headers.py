"""Headers to attributes and back: CloudEvents 1.0 binary mode plus the integrity headers, each in one exact form.

One form each, so that no two records carry one signed statement. It must never accept a header twice, nor a `ce_`
header that the statement does not cover. Headers of other names are not ours: they are not signed and mean nothing.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Final

import orjson

from ai_infra.events.avro import rfc3339
from ai_infra.events.canonical import MAX_INTEGER
from ai_infra.events.event import Attributes, Cause
from ai_infra.events.exceptions import BadText, MalformedEvent, RepeatedHeader
from ai_infra.events.identifiers import UUID_TEXT
from ai_infra.events.statement import CONTENT_TYPE, DATASCHEMA_PREFIX, SPEC_VERSION

MAX_HEADERS: Final = 64
MAX_HEADER_BYTES: Final = 16 * 1024
MAX_CAUSES: Final = 32
MAX_DELEGATION_BYTES: Final = 400
SIGNATURE_BYTES: Final = 64
# Together with 32 causes these keep the message below what KMS signs.
MAX_TEXT_BYTES: Final = {"ce_source": 256, "ce_subject": 256, "signer": 128, "producer": 128}

_INTEGER: Final = re.compile(rb"0|[1-9][0-9]{0,15}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_COVERED: Final = frozenset(
    {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "ce_dataschema", "content-type"}
)

Headers = tuple[tuple[str, bytes], ...]


def from_headers(headers: Headers) -> Attributes:
    """Attributes of a record's headers. Raises RepeatedHeader, BadText or MalformedEvent."""
    h = _collected(headers)
    if h.get("ce_specversion") != SPEC_VERSION.encode():
        raise _unexpected("ce_specversion", SPEC_VERSION, h.get("ce_specversion"))
    if h.get("content-type") != CONTENT_TYPE.encode():
        raise _unexpected("content-type", CONTENT_TYPE, h.get("content-type"))
    signature = _required(h, "signature")
    if len(signature) != SIGNATURE_BYTES:
        raise _unexpected("signature", f"{SIGNATURE_BYTES} raw bytes", signature)
    delegation = _required(h, "delegation")
    if not SIGNATURE_BYTES < len(delegation) <= MAX_DELEGATION_BYTES:
        raise _unexpected("delegation", f"a signature and JSON, at most {MAX_DELEGATION_BYTES} bytes", delegation)
    counted = "producer" in h
    if counted != ("epoch" in h) or counted != ("seq" in h) or ("prev" in h and not counted):
        raise MalformedEvent("expected producer, epoch and seq all together or none of them, and prev only with them")
    seq = _integer(h, "seq") if counted else None
    prev = _sha256("prev", h["prev"]) if "prev" in h else None
    if seq is not None and seq > 1 and prev is None:
        raise MalformedEvent(f"expected prev with seq {seq}: only a producer's first event has none")
    trace = h.get("traceparent", b"")
    return Attributes(
        id=_event_id(_required(h, "ce_id")),
        source=_text("ce_source", _required(h, "ce_source")),
        type=_type(_required(h, "ce_type")),
        time=_time(_required(h, "ce_time")),
        subject=_text("ce_subject", h["ce_subject"]) if "ce_subject" in h else None,
        dataschema=_dataschema(_required(h, "ce_dataschema")),
        signer=_text("signer", _required(h, "signer")),
        keyring=_integer(h, "keyring"),
        delegation=delegation,
        signature=signature,
        producer=_text("producer", h["producer"]) if counted else None,
        epoch=_integer(h, "epoch") if counted else None,
        seq=seq,
        prev=prev,
        causes=_causes(h["causes"]) if "causes" in h else (),
        traceparent=trace.decode() if _TRACEPARENT.fullmatch(trace) else None,
    )


def to_headers(attributes: Attributes) -> list[tuple[str, bytes]]:
    """Headers that `from_headers` reads back as these attributes. It does not check them."""
    a = attributes
    headers = [
        ("ce_specversion", SPEC_VERSION.encode()),
        ("ce_id", a.id.encode()),
        ("ce_source", a.source.encode()),
        ("ce_type", a.type.encode()),
        ("ce_time", rfc3339(a.time).encode()),
        ("ce_dataschema", a.dataschema.encode()),
        ("content-type", CONTENT_TYPE.encode()),
        ("signer", a.signer.encode()),
        ("keyring", b"%d" % a.keyring),
        ("delegation", a.delegation),
        ("signature", a.signature),
    ]
    if a.subject is not None:
        headers.append(("ce_subject", a.subject.encode()))
    if a.producer is not None:
        if a.epoch is None or a.seq is None:
            raise MalformedEvent("expected epoch and seq with producer")
        headers += [("producer", a.producer.encode()), ("epoch", b"%d" % a.epoch), ("seq", b"%d" % a.seq)]
    if a.prev is not None:
        headers.append(("prev", a.prev.encode()))
    if a.causes:
        headers.append(("causes", causes_json(a.causes)))
    if a.traceparent is not None:
        headers.append(("traceparent", a.traceparent.encode()))
    return headers


def causes_json(causes: tuple[Cause, ...]) -> bytes:
    """The `causes` header: canonical JSON."""
    return orjson.dumps([{"id": cause.id, "lane": cause.lane} for cause in causes])


def _collected(headers: Headers) -> dict[str, bytes]:
    if len(headers) > MAX_HEADERS:
        raise MalformedEvent(f"expected at most {MAX_HEADERS} headers; got {len(headers)}")
    h = dict(headers)
    if len(h) != len(headers):
        names = [name for name, _ in headers]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RepeatedHeader(f"expected each header once; repeated: {', '.join(repr(name[:64]) for name in twice)}")
    size = 0
    for name, value in headers:
        size += len(name) + len(value or b"")
        if name.startswith("ce_") and name not in _COVERED:
            raise MalformedEvent(f"expected no CloudEvents extension, as it would not be signed; got {name[:64]!r}")
    if size > MAX_HEADER_BYTES:
        raise MalformedEvent(f"expected at most {MAX_HEADER_BYTES} bytes of headers; got {size}")
    return h


def _unexpected(name: str, expected: str, got: bytes | None) -> MalformedEvent:
    shown = "nothing" if got is None else f"{len(got)} bytes" if len(got) > 80 else repr(got)
    return MalformedEvent(f"header {name}: expected {expected}; got {shown}")


def _required(h: dict[str, bytes], name: str) -> bytes:
    value = h.get(name)
    if value is None:
        raise MalformedEvent(f"header {name}: expected; it is missing")
    return value


# Sources, signers, producers and schemas repeat from event to event: each is checked once.
@lru_cache(maxsize=8192)
def _text(name: str, raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise BadText(f"header {name}: expected UTF-8: {error.reason} at byte {error.start}") from error
    if not raw or len(raw) > MAX_TEXT_BYTES[name]:
        raise _unexpected(name, f"1..{MAX_TEXT_BYTES[name]} bytes of text", raw)
    if (found := _UNPRINTABLE.search(text)) is not None:
        kind = BadText if found[0] == "\0" else MalformedEvent
        raise kind(f"header {name}: expected text without control characters; got {found[0]!r}")
    return text


@lru_cache(maxsize=1024)
def _type(raw: bytes) -> str:
    if not raw.isascii() or not 0 < len(raw) <= 128:
        raise _unexpected("ce_type", "the topic's name", raw)
    return raw.decode()


@lru_cache(maxsize=1024)
def _dataschema(raw: bytes) -> str:
    text = raw.decode("ascii", "replace")
    if not text.startswith(DATASCHEMA_PREFIX) or not _SHA256.fullmatch(text[len(DATASCHEMA_PREFIX) :]):
        raise _unexpected("ce_dataschema", f"{DATASCHEMA_PREFIX}<64 hex digits>", raw)
    return text


def _event_id(raw: bytes) -> str:
    text = raw.decode("ascii", "replace")
    if not UUID_TEXT.fullmatch(text):
        raise _unexpected("ce_id", "a UUID in lowercase", raw)
    return text


def _sha256(name: str, raw: bytes) -> str:
    text = raw.decode("ascii", "replace")
    if not _SHA256.fullmatch(text):
        raise _unexpected(name, "64 lowercase hex digits", raw)
    return text


def _time(raw: bytes) -> datetime:
    if _TIME.fullmatch(raw):
        try:
            return datetime.fromisoformat(raw.decode())
        except ValueError:
            pass
    raise _unexpected("ce_time", "RFC 3339 in UTC with three fraction digits and Z", raw)


def _integer(h: dict[str, bytes], name: str) -> int:
    raw = _required(h, name)
    if not _INTEGER.fullmatch(raw) or (value := int(raw)) > MAX_INTEGER:
        raise _unexpected(name, "a decimal integer from 0 to 2^53-1", raw)
    return value


def _causes(raw: bytes) -> tuple[Cause, ...]:
    try:
        causes = tuple(
            Cause(_event_id(item["id"].encode()), item["lane"]) for item in orjson.loads(raw) if len(item) == 2
        )
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise _unexpected("causes", 'canonical JSON [{"id":"<uuid>","lane":<n>}, ...]', raw) from error
    if not 0 < len(causes) <= MAX_CAUSES:
        raise MalformedEvent(f"header causes: expected 1..{MAX_CAUSES} causes, or no header; got {len(causes)}")
    for cause in causes:
        if cause.lane.__class__ is not int or not 0 <= cause.lane <= MAX_INTEGER:
            raise MalformedEvent(f"header causes: expected a lane's number; got {cause.lane!r}")
    if causes_json(causes) != raw:
        raise _unexpected("causes", "canonical JSON (RFC 8785)", raw)
    return causes
