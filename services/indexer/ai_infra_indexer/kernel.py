"""The Kernel's audit event: its payload, its hash chain, its JSON. Byte for byte what two foreign verifiers recompute.

A payload follows from an event's statement and body, the lane and the position, and from nothing else. Inside it,
numbers are integers below 2^53 (larger ones travel as text), object keys are ASCII and no array index, and some
characters of texts are percent-escaped, because the Kernel's two verifiers write them differently:

- `<`, `>`, `&`, U+2028, U+2029: Go's encoding/json escapes them, JSON.stringify does not;
- backspace and form feed: Go before 1.22 writes \\u0008 and \\u000c, JSON.stringify \\b and \\f;
- `%` itself, so that unescaping is exact.

This module must never let a float, a non-ASCII key or an unescaped character of that list into a payload.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Protocol

import orjson

from ai_infra.events.avro import EPOCH
from ai_infra_indexer.entry import Link

AUDIT_EVENT_VERSION: Final = 1
_MAX_SAFE: Final = 2**53 - 1
_ESCAPED: Final = re.compile("[%<>&\u2028\u2029\b\f]")
_ESCAPED_IN_KEY: Final = re.compile("[%<>&\b\f]|[^\x00-\x7f]")
# An array index as an object key is moved to the front by JavaScript, and __proto__ is no key at all there.
_AWKWARD_KEY: Final = re.compile(r"[0-9]+|__proto__")
# What can't be in the serialised body where it is to be taken as it is: see `_quick`.
_NEEDS_WALK: Final = (b"%", b"<", b">", b"&", b"\\b", b"\\f", b"__proto__")

# Whose wish it is, for the types whose body names its signer's principal (checked on every verification).
_ACTOR: Final[Mapping[str, str]] = {
    "job.queued": "requested_by",
    "job.cancel_requested": "requested_by",
    "promotion.requested": "requested_by",
    "rollback.requested": "requested_by",
    "promotion.approval": "approver",
    "artifact.revoked": "revoked_by",
    "operator.action": "operator",
}


class ChainSigner(Protocol):
    """The chain key."""

    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


def payload(statement: Mapping[str, Any], said: dict[str, Any], *, lane: int, position: int, event_hash: str) -> bytes:
    """Canonical JSON of the payload. `said`: the body, as its writer's schema has it."""
    actor_field = _ACTOR.get(str(statement["ce_type"]))
    actor = said[actor_field] if actor_field else statement["signer"]
    return orjson.dumps(
        {
            "action": statement["ce_type"],
            "actor": _name(actor),
            "body": _body(said),
            "event_hash": event_hash,
            "event_id": statement["ce_id"],
            "lane": lane,
            "model": _name(statement["key"]),
            "parents": [cause["id"] for cause in statement["causes"]],
            "position": position,
            "resource": _name(statement["ce_subject"] or statement["key"]),
            "signer": _name(statement["signer"]),
            "source": _name(statement["ce_source"]),
            "time": statement["ce_time"],
        }
    )


def chain_hash(payload: bytes, prev_hash: str | None) -> bytes:
    """SHA-256 of the canonical payload followed by the 32 bytes of the previous hash (nothing at the start)."""
    return hashlib.sha256(payload + bytes.fromhex(prev_hash) if prev_hash else payload).digest()


def link(payload: bytes, *, prev_hash: str | None, event_id: str, ts_us: int, signer: ChainSigner) -> Link:
    """Hash and sign the next row of a lane's chain."""
    digest = chain_hash(payload, prev_hash)
    return Link(
        id=event_id,
        ts_us=ts_us,
        prev_hash=prev_hash,
        hash=digest.hex(),
        signature=base64.b64encode(signer.sign(digest)).decode(),
        signer_id=signer.key_id,
    )


def metadata(lane: int, position: int, origin: str, type_: str) -> bytes:
    """Where the row's entry is in the log; not covered by the row's hash, but by the entry's place in the tree."""
    return b'%b,"position":%d}' % (_metadata_start(lane, origin, type_), position)


@lru_cache(maxsize=4096)
def _metadata_start(lane: int, origin: str, type_: str) -> bytes:
    return orjson.dumps({"eventType": type_, "lane": lane, "origin": origin})[:-1]


def audit_event(payload: bytes, link: Link, *, event_type: str, metadata: bytes) -> bytes:
    """The message on `audit-events`: canonical JSON of one Kernel audit event."""
    return orjson.dumps(
        {
            "eventType": event_type,
            "hash": link.hash,
            "id": link.id,
            "metadata": orjson.Fragment(metadata),
            "payload": orjson.Fragment(payload),
            "prevHash": link.prev_hash,
            "signature": link.signature,
            "signerId": link.signer_id,
            "ts": timestamp(link.ts_us),
            "version": AUDIT_EVENT_VERSION,
        }
    )


def timestamp(ts_us: int) -> str:
    """RFC 3339 in UTC with six fraction digits."""
    return when(ts_us).isoformat(timespec="microseconds")[:26] + "Z"


def when(ts_us: int) -> datetime:
    """The exact time of that many microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=ts_us)


@lru_cache(maxsize=8192)  # signers, sources, models and people repeat
def _name(text: str) -> str:
    return escape(text)


def escape(text: str) -> str:
    """Percent-escapes (UTF-8) what the two verifiers would write differently."""
    return _ESCAPED.sub(_percent, text) if _ESCAPED.search(text) else text


def escape_key(key: str) -> str:
    """An ASCII key that no JSON library treats specially."""
    key = _ESCAPED_IN_KEY.sub(_percent, key)
    return f"%{ord(key[0]):02X}{key[1:]}" if _AWKWARD_KEY.fullmatch(key) else key


def portable(value: Any) -> Any:
    """The same JSON value with escaped texts and keys, and large integers as text. A float is an error."""
    if isinstance(value, str):
        return escape(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_MAX_SAFE <= value <= _MAX_SAFE else str(value)
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, Mapping):
        return {escape_key(key): portable(item) for key, item in value.items()}
    raise TypeError(f"a Kernel payload holds texts, integers, bools, null, lists, objects; not {type(value).__name__}")


def _body(said: dict[str, Any]) -> orjson.Fragment:
    return orjson.Fragment(_quick(said) or orjson.dumps(portable(said), option=orjson.OPT_SORT_KEYS))


def _quick(said: dict[str, Any]) -> bytes | None:
    """The body as it is, where nothing in it needs escaping: most bodies, at a tenth of the cost of the walk."""
    data = orjson.dumps(said, option=orjson.OPT_SORT_KEYS)
    if not data.isascii():
        return None
    for awkward in _NEEDS_WALK:
        if awkward in data:
            return None
    return data if _keys_and_numbers_stay(said) else None


def _keys_and_numbers_stay(value: Any) -> bool:
    """What the bytes do not show at a glance; anything unknown here is for the walk."""
    if value.__class__ is dict:
        if True in map(str.isdigit, value):
            return False
        value = value.values()
    for item in value:
        kind = item.__class__
        if kind is str or item is None or kind is bool:
            continue
        if kind is int:
            if not -_MAX_SAFE <= item <= _MAX_SAFE:
                return False
        elif (kind is not dict and kind is not list) or not _keys_and_numbers_stay(item):
            return False
    return True


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
