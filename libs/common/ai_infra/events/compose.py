"""A body to a signed record, ready to be produced as it is.

Composing checks all that a reader will check, so that nothing leaves that others refuse. It must never be asked to
sign twice: who retries sends the same record again. The framing before the body is not signed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from ai_infra.events.body import Body
from ai_infra.events.codec import SINGLE_OBJECT, encode_body
from ai_infra.events.event import Attributes, Cause
from ai_infra.events.exceptions import MalformedEvent, WrongLane
from ai_infra.events.headers import to_headers
from ai_infra.events.identifiers import consequence_id, uuid7
from ai_infra.events.keys import BROADCAST_TOPICS, check_body_key, check_key
from ai_infra.events.lanes import lane_of_lane_key
from ai_infra.events.statement import DATASCHEMA_PREFIX, event_hash, signed_message

__all__ = ["Frame", "SignedRecord", "compose", "consequence_id", "single_object", "uuid7"]

Frame = Callable[[type[Body]], bytes]
"""What stands before a body of this class, so that a reader finds its schema."""


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """What to produce: topic, partition, key, value, headers, all as they were signed."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]
    hash: str
    """event_hash, the next event's `prev`."""
    id: str


def single_object(cls: type[Body]) -> bytes:
    """Avro's single-object framing."""
    return SINGLE_OBJECT + cls.CRC64


def compose(
    body: Body,
    *,
    key: str,
    lane: int,
    id: str,  # the attribute's name in CloudEvents
    time: datetime,
    source: str,
    subject: str | None,
    signer: str,
    keyring: int,
    delegation: bytes,
    sign: Callable[[bytes], bytes],
    producer: str | None = None,
    epoch: int | None = None,
    seq: int | None = None,
    prev: str | None = None,
    causes: Sequence[Cause] = (),
    traceparent: str | None = None,
    frame: Frame | None = None,
) -> SignedRecord:
    """Encodes, states, signs. Raises an EventError where a reader would refuse the result.

    `frame`: the framing of a body's schema; Avro's single-object encoding where not given.
    """
    data = encode_body(body)
    topic = body.TOPIC
    check_key(topic, key)
    check_body_key(body, key)
    expected = 0 if topic in BROADCAST_TOPICS else lane_of_lane_key(key)
    if expected is not None and expected != lane:
        raise WrongLane(f"{topic}: expected lane {expected} for key {key!r}; got {lane}")
    attributes = Attributes(
        id=id,
        source=source,
        type=topic,
        time=time,
        subject=subject,
        dataschema=DATASCHEMA_PREFIX + body.SCHEMA_SHA256,
        signer=signer,
        keyring=keyring,
        delegation=delegation,
        signature=bytes(64),
        producer=producer,
        epoch=epoch,
        seq=seq,
        prev=prev,
        causes=tuple(causes),
        traceparent=traceparent,
    )
    headers = to_headers(attributes)
    message = signed_message(attributes, topic=topic, key=key, lane=lane, schema_sha256=body.SCHEMA_SHA256, body=data)
    signature = sign(message)
    if len(signature) != 64:
        raise MalformedEvent(f"expected a signature of 64 bytes from the signer {signer!r}; got {len(signature)}")
    return SignedRecord(
        topic=topic,
        partition=lane,
        key=key.encode(),
        value=(frame or single_object)(type(body)) + data,
        headers=[(name, signature if name == "signature" else value) for name, value in headers],
        hash=event_hash(message),
        id=id,
    )
