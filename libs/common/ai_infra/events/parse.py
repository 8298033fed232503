"""A record to what it claims: headers checked, framing removed, the signed message rebuilt, the signature verified.

Reading says nothing about whether the signer may say this: that needs a keyring (`ai_infra.trust.verify`). It must
never return anything for a record that two readers could take differently.
"""

from __future__ import annotations

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from ai_infra.events.codec import unframe
from ai_infra.events.event import Attributes, Record, Unverified
from ai_infra.events.exceptions import BadSignature, BadText, MalformedEvent, UnknownSchema, WrongKey
from ai_infra.events.headers import from_headers
from ai_infra.events.keys import check_place, model_of
from ai_infra.events.schemas import crc64_of, topic_of
from ai_infra.events.statement import DATASCHEMA_PREFIX, event_hash, signed_message

MAX_KEY_BYTES = 128


def parse_headers(record: Record) -> Attributes:
    """Attributes of a record. Raises RepeatedHeader, BadText or MalformedEvent."""
    attributes = from_headers(record.headers)
    if attributes.type != record.topic:
        raise MalformedEvent(f"header ce_type: expected the topic's name {record.topic}; got {attributes.type!r}")
    return attributes


def read(record: Record, lanes: int, *, any_schema: bool = False) -> Unverified:
    """All checks of form, and the message that must have been signed. Raises an EventError.

    `any_schema`: a body in a schema registry's framing may be of a schema that is not known here (yet). Its signature
    can be verified, since that is over the schema's name; it can't be decoded before the schema has been learned.
    """
    attributes = parse_headers(record)
    key = _key(record)
    check_place(record.topic, key, record.partition, lanes)
    if record.value is None:
        raise MalformedEvent("expected a body; the record's value is null")
    framed, body = unframe(record.topic, record.value)
    sha256 = attributes.dataschema[len(DATASCHEMA_PREFIX) :]
    if framed is None:
        _check_named(record.topic, sha256, any_schema=any_schema)
    elif framed != sha256:
        _check_wording(record.topic, sha256, framed)
    message = signed_message(
        attributes,
        topic=record.topic,
        key=key,
        lane=record.partition,
        schema_sha256=sha256,
        body=body,
    )
    return Unverified(
        record=record,
        attributes=attributes,
        key=key,
        model=model_of(key),
        lane=record.partition,
        schema_sha256=sha256,
        body_bytes=body,
        message=message,
        hash=event_hash(message),
    )


def verify_signature(unverified: Unverified, public_key: bytes) -> None:
    """Raises BadSignature unless the event's signature over its message is by `public_key` (32 bytes, Ed25519)."""
    try:
        crypto_sign_open(unverified.attributes.signature + unverified.message, public_key)
    except (CryptoError, ValueError) as error:
        raise BadSignature(
            f"event {unverified.attributes.id}: the signature by {unverified.attributes.signer!r} does not verify over "
            "what was received"
        ) from error


def _key(record: Record) -> str:
    raw = record.key
    if not raw or len(raw) > MAX_KEY_BYTES:
        raise WrongKey(f"expected a key of 1..{MAX_KEY_BYTES} bytes; got {len(raw or b'')}")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BadText(f"key: expected UTF-8: {error.reason} at byte {error.start}") from error


def _check_named(topic: str, named: str, *, any_schema: bool = False) -> None:
    """Raise UnknownSchema unless `named` is a schema of this topic; with `any_schema` it may be unknown."""
    known = topic_of(named)
    if known != topic and not (any_schema and known is None):
        raise UnknownSchema(
            f"expected ce_dataschema to name a schema of {topic} that this reader knows; got {named}: "
            "it may be older than the writer"
        )


def _check_wording(topic: str, named: str, framed: str) -> None:
    """Raise unless `named` is a version that the framing can't tell from `framed`: they differ in words only."""
    _check_named(topic, named)
    if crc64_of(named) != crc64_of(framed):
        raise MalformedEvent(f"expected framing and ce_dataschema to name one schema; got {framed} and {named}")
