"""An event as it stands in memory: a record as Kafka gave it, its checked headers, and the verified whole.

`Event` is only ever made by who verified signature, delegation and role; a `Record` or `Unverified` must never
change state.
"""

from __future__ import annotations

from dataclasses import field
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from ai_infra.events.avro import EPOCH
from ai_infra.events.body import Body
from ai_infra.events.codec import decode_body
from ai_infra.events.keys import check_body_key
from ai_infra.events.values import value

B_co = TypeVar("B_co", bound=Body, covariant=True)


NO_APPEND_TIME: Final = -1
UNREADABLE_HEADERS: Final = (("\ufffd", b""),)
"""In the place of a record's headers where their names are not text; the record is no event then."""


@value()
class Cause:
    """An event that this one follows from."""

    id: str
    """Its `ce_id`."""
    lane: int
    """Lane that it is in."""


@value()
class Record:
    """A record as it came from Kafka, or from the archive."""

    topic: str
    partition: int
    offset: int
    append_time_ms: int
    """LogAppendTime, milliseconds since the epoch: the same for all readers. NO_APPEND_TIME: the broker set none."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@value()
class Attributes:
    """Headers, parsed and checked for form; not yet for truth."""

    id: str
    source: str
    type: str
    time: datetime
    subject: str | None
    dataschema: str
    signer: str
    keyring: int
    delegation: bytes
    signature: bytes
    producer: str | None
    epoch: int | None
    seq: int | None
    prev: str | None
    causes: tuple[Cause, ...]
    traceparent: str | None


@value()
class Unverified:
    """A record whose form is sound and whose message has been rebuilt; who said it is still open."""

    record: Record
    attributes: Attributes
    key: str
    model: str
    """The key where it is a model's name, else empty."""
    lane: int
    schema_sha256: str
    body_bytes: bytes
    """Bare Avro, without framing."""
    message: bytes
    """What the signature must be over."""
    hash: str = field(repr=False)
    """event_hash: SHA-256 of the message, 64 hex digits."""

    def decode(self) -> Body:
        """The typed body; raises UndecodableBody, BadText, or WrongKey where it is about another model."""
        body = decode_body(self.record.topic, self.body_bytes, self.schema_sha256)
        check_body_key(body, self.key)
        return body


@value()
class Event(Generic[B_co]):
    """A record whose signature, delegation and role have been verified, with its typed body."""

    body: B_co
    attributes: Attributes
    record: Record
    lane: int
    model: str
    """The model that it is about; empty for an event about a whole lane or the whole system."""
    hash: str
    """event_hash: SHA-256 of the signed message, 64 hex digits."""
    principal: str
    """Who said it, by the keyring."""
    message: bytes = field(repr=False)
    """What its signature is over."""

    @property
    def id(self) -> str:
        return self.attributes.id

    @property
    def type(self) -> str:
        return self.attributes.type

    @property
    def time(self) -> datetime:
        """When its sender says that it was said."""
        return self.attributes.time

    @property
    def append_time(self) -> datetime:
        """When the broker appended it: by this, validity is judged."""
        return EPOCH + timedelta(milliseconds=self.record.append_time_ms)

    @property
    def subject(self) -> str | None:
        return self.attributes.subject

    @property
    def signer(self) -> str:
        """Key id of the service or person key behind the delegation."""
        return self.attributes.signer

    @property
    def producer(self) -> str | None:
        """`<service>/<lane>` for counted events."""
        return self.attributes.producer

    @property
    def epoch(self) -> int | None:
        return self.attributes.epoch

    @property
    def seq(self) -> int | None:
        return self.attributes.seq

    @property
    def causes(self) -> tuple[Cause, ...]:
        return self.attributes.causes
