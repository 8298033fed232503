"""Headers to attributes and back: CloudEvents 1.0 binary mode plus the integrity headers, each in one exact form.

One form each, so that no two records carry one signed statement. It must never accept a header twice, nor a `ce_`
header that the statement does not cover. Headers of other names are not ours: they are not signed and mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final

import orjson

from ai_infra.events.avro import rfc3339
from ai_infra.events.canonical import MAX_INTEGER
from ai_infra.events.event import UNREADABLE_HEADERS, Attributes, Cause
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

_ZERO: Final = ord("0")
_HEX: Final = b"0123456789abcdef"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
_UUID_BYTES: Final = UUID_TEXT.pattern.encode()
# Most events have one cause: in this form it is canonical JSON already.
_ONE_CAUSE: Final = re.compile(rb'\[\{"id":"(' + _UUID_BYTES + rb')","lane":(0|[1-9][0-9]{0,15})\}\]')
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_CLOUDEVENTS: Final = "ce_specversion ce_id ce_source ce_type ce_time ce_subject ce_dataschema content-type"
_INTEGRITY: Final = "signer signature delegation keyring producer epoch seq prev causes"
_OURS: Final = frozenset(f"{_CLOUDEVENTS} {_INTEGRITY} traceparent".split())

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
    _sized_delegation(delegation)
    counted = "producer" in h
    seq = _integer(h, "seq") if "seq" in h else None
    prev = _sha256("prev", h["prev"]) if "prev" in h else None
    _check_counter(counted=(counted, "epoch" in h, "seq" in h), seq=seq, prev=prev)
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


def to_headers(a: Attributes) -> list[tuple[str, bytes]]:
    """Headers that `from_headers` reads back as these attributes. Raises what it would raise."""
    try:
        headers = [
            ("ce_specversion", SPEC_VERSION.encode()),
            ("ce_id", _checked(a.id, _event_id)),
            ("ce_source", _checked_text("ce_source", a.source)),
            ("ce_type", _checked(a.type, _type)),
            ("ce_time", rfc3339(a.time).encode()),
            ("ce_dataschema", _checked(a.dataschema, _dataschema)),
            ("content-type", CONTENT_TYPE.encode()),
            ("signer", _checked_text("signer", a.signer)),
            ("keyring", _checked_integer("keyring", a.keyring)),
            ("delegation", _sized_delegation(a.delegation)),
            ("signature", a.signature),
        ]
        if a.subject is not None:
            headers.append(("ce_subject", _checked_text("ce_subject", a.subject)))
        if a.producer is not None:
            headers.append(("producer", _checked_text("producer", a.producer)))
            headers.append(("epoch", _checked_integer("epoch", a.epoch)))
            headers.append(("seq", _checked_integer("seq", a.seq)))
        if a.prev is not None:
            headers.append(("prev", _sha256("prev", a.prev.encode()).encode()))
        if a.causes:
            _check_causes(a.causes)
            headers.append(("causes", causes_json(a.causes)))
        if a.traceparent is not None and _TRACEPARENT.fullmatch(trace := a.traceparent.encode()):
            headers.append(("traceparent", trace))
    except UnicodeEncodeError as error:
        raise BadText(f"{a.type}: expected attributes that are valid Unicode; got a lone surrogate") from error
    _check_counter(counted=(a.producer is not None, a.epoch is not None, a.seq is not None), seq=a.seq, prev=a.prev)
    return headers


def causes_json(causes: tuple[Cause, ...]) -> bytes:
    """The `causes` header: canonical JSON."""
    return orjson.dumps([{"id": cause.id, "lane": cause.lane} for cause in causes])


def _collected(headers: Headers) -> dict[str, bytes]:
    if headers == UNREADABLE_HEADERS:
        raise BadText("expected names of headers in UTF-8")
    if len(headers) > MAX_HEADERS:
        raise MalformedEvent(f"expected at most {MAX_HEADERS} headers; got {len(headers)}")
    h = dict(headers)
    if len(h) != len(headers):
        names = [name for name, _ in headers]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise RepeatedHeader(f"expected each header once; repeated: {', '.join(repr(name[:64]) for name in twice)}")
    if not _OURS.issuperset(h):
        for name in h.keys() - _OURS:
            if name.startswith("ce_"):
                raise MalformedEvent(f"expected no CloudEvents extension, as it would not be signed; got {name[:64]!r}")
            if h[name] is None:  # Kafka allows it; what is not ours may be so
                h[name] = b""
    try:
        size = len("".join(h)) + len(b"".join(h.values()))
    except TypeError:
        raise MalformedEvent("expected headers with values; one of ours is null") from None
    if size > MAX_HEADER_BYTES:
        raise MalformedEvent(f"expected at most {MAX_HEADER_BYTES} bytes of headers; got {size}")
    return h


def _check_counter(*, counted: tuple[bool, bool, bool], seq: int | None, prev: str | None) -> None:
    if counted == (True, True, True):
        if prev is None and seq is not None and seq > 1:
            raise MalformedEvent(f"expected prev with seq {seq}: only a producer's first event has none")
    elif counted != (False, False, False) or prev is not None:
        raise MalformedEvent("expected producer, epoch and seq all together or none of them, and prev only with them")


def _sized_delegation(raw: bytes) -> bytes:
    if not SIGNATURE_BYTES < len(raw) <= MAX_DELEGATION_BYTES:
        raise _unexpected("delegation", f"a signature and JSON, at most {MAX_DELEGATION_BYTES} bytes", raw)
    return raw


def _checked(text: str, check: Callable[[bytes], str]) -> bytes:
    raw = text.encode()
    check(raw)
    return raw


def _checked_text(name: str, text: str) -> bytes:
    raw = text.encode()
    _text(name, raw)
    return raw


def _checked_integer(name: str, value: int | None) -> bytes:
    if value.__class__ is not int or not 0 <= value <= MAX_INTEGER:
        raise MalformedEvent(f"header {name}: expected an integer from 0 to 2^53-1; got {value!r}")
    return b"%d" % value


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
    if len(raw) != 64 or raw.translate(None, _HEX):
        raise _unexpected(name, "64 lowercase hex digits", raw)
    return raw.decode()


def _time(raw: bytes) -> datetime:
    if _TIME.fullmatch(raw):
        try:
            return datetime.fromisoformat(raw.decode())
        except ValueError:
            pass
    raise _unexpected("ce_time", "RFC 3339 in UTC with three fraction digits and Z", raw)


def _integer(h: dict[str, bytes], name: str) -> int:
    raw = _required(h, name)
    if not raw.isdigit() or len(raw) > 16 or (raw[0] == _ZERO and raw != b"0") or (value := int(raw)) > MAX_INTEGER:
        raise _unexpected(name, "a decimal integer from 0 to 2^53-1", raw)
    return value


def _causes(raw: bytes) -> tuple[Cause, ...]:
    if (one := _ONE_CAUSE.fullmatch(raw)) is not None and (lane := int(one[2])) <= MAX_INTEGER:
        return (Cause(one[1].decode(), lane),)
    try:
        causes = tuple([Cause(item["id"], item["lane"]) for item in orjson.loads(raw)])
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise _unexpected("causes", 'canonical JSON [{"id":"<uuid>","lane":<n>}, ...]', raw) from error
    _check_causes(causes)
    if causes_json(causes) != raw:
        raise _unexpected("causes", "canonical JSON (RFC 8785)", raw)
    return causes


def _check_causes(causes: tuple[Cause, ...]) -> None:
    if not 0 < len(causes) <= MAX_CAUSES:
        raise MalformedEvent(f"header causes: expected 1..{MAX_CAUSES} causes, or no header; got {len(causes)}")
    for cause in causes:
        if not isinstance(cause.id, str) or not UUID_TEXT.fullmatch(cause.id):
            raise MalformedEvent(f"header causes: expected a UUID in lowercase; got {str(cause.id)[:64]!r}")
        if cause.lane.__class__ is not int or not 0 <= cause.lane <= MAX_INTEGER:
            raise MalformedEvent(f"header causes: expected a lane's number; got {cause.lane!r}")
