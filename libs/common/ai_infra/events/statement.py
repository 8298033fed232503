"""The bytes that are signed: a canonical statement of everything that an event claims, inside DSSE's PAE.

A verifier rebuilds it from the record that it received. The statement must cover every attribute that means
something; `signature` and `traceparent` alone are outside.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

import orjson

from ai_infra.events.avro import rfc3339
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Attributes
from ai_infra.events.exceptions import MalformedEvent

EVENT_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.event.v1+json"
CONTENT_TYPE: Final = "application/avro"
SPEC_VERSION: Final = "1.0"
DATASCHEMA_PREFIX: Final = "urn:ai-infra:schema:"
# AWS KMS signs Ed25519 over raw messages of at most 4,096 bytes.
MAX_MESSAGE_BYTES: Final = 4095


@lru_cache(maxsize=4096)
def delegation_sha256(delegation: bytes) -> str:
    """SHA-256 of a delegation header, 64 hex digits. Remembered: a process signs a day's events with one delegation."""
    return sha256_hex(delegation)


def statement(attributes: Attributes, *, topic: str, key: str, lane: int, schema_sha256: str, body: bytes) -> bytes:
    """RFC 8785 bytes of the statement. Texts must be valid Unicode, integers 0..2^53-1: parse and compose see to it."""
    # Keys stand in canonical order, which orjson keeps: sorting again would cost and change nothing.
    try:
        return orjson.dumps(
            {
                "body_sha256": hashlib.sha256(body).hexdigest(),
                "causes": [{"id": cause.id, "lane": cause.lane} for cause in attributes.causes],
                "ce_dataschema": DATASCHEMA_PREFIX + schema_sha256,
                "ce_id": attributes.id,
                "ce_source": attributes.source,
                "ce_specversion": SPEC_VERSION,
                "ce_subject": attributes.subject,
                "ce_time": rfc3339(attributes.time),
                "ce_type": attributes.type,
                "content_type": CONTENT_TYPE,
                "delegation_sha256": delegation_sha256(attributes.delegation),
                "epoch": attributes.epoch,
                "key": key,
                "keyring": attributes.keyring,
                "lane": lane,
                "prev": attributes.prev,
                "producer": attributes.producer,
                "schema_sha256": schema_sha256,
                "seq": attributes.seq,
                "signer": attributes.signer,
                "topic": topic,
            }
        )
    except TypeError as error:
        raise MalformedEvent(f"expected attributes of text and integers: {error}") from error


def pae(payload_type: str, body: bytes) -> bytes:
    """DSSE v1 pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def signed_message(
    attributes: Attributes, *, topic: str, key: str, lane: int, schema_sha256: str, body: bytes
) -> bytes:
    """The message that `attributes.signature` must be over. Raises MalformedEvent where it is too long to be signed."""
    stated = statement(attributes, topic=topic, key=key, lane=lane, schema_sha256=schema_sha256, body=body)
    message = pae(EVENT_PAYLOAD_TYPE, stated)
    if len(message) > MAX_MESSAGE_BYTES:
        raise MalformedEvent(
            f"expected a message of at most {MAX_MESSAGE_BYTES} bytes; got {len(message)}: fewer causes"
        )
    return message


def event_hash(message: bytes) -> str:
    """SHA-256 of the message, 64 hex digits: what `prev` names."""
    return sha256_hex(message)
