"""What can be wrong with an event. Each error has a stable code that travels into dead letters and `event.refused`."""

from __future__ import annotations

from ai_infra.errors import AiInfraError


class EventError(AiInfraError):
    """Base class: this record is not an event that may change state."""

    code = "malformed_event"


class MalformedEvent(EventError):
    """A header is missing, unknown, too long, or not of the form that docs/event-format.md asks for."""

    code = "malformed_event"


class RepeatedHeader(MalformedEvent):
    """A header occurs twice: two readers could take different ones."""

    code = "repeated_header"


class UnknownSchema(EventError):
    """The body was written with a schema that this reader does not know, or that belongs to another topic."""

    code = "unknown_schema"


class UndecodableBody(EventError):
    """The body's bytes are not exactly one datum of the schema, or a value does not fit the schema."""

    code = "undecodable_body"


class BodyTooLarge(EventError):
    """The Avro body is over 48 KiB: put large things into the object store and send URI and SHA-256."""

    code = "body_too_large"


class BadText(EventError):
    """A string holds U+0000, a lone surrogate or invalid UTF-8."""

    code = "bad_text"


class BadSignature(EventError):
    """The signature does not verify over the rebuilt message."""

    code = "bad_signature"


class WrongKey(EventError):
    """The record's key is not the one that this body must travel under."""

    code = "wrong_key"


class WrongLane(EventError):
    """The record is not in the partition that its key belongs to."""

    code = "wrong_lane"


class CanonicalError(AiInfraError):
    """A value has no canonical JSON form here (a float, a bool, a lone surrogate, a key that is not ASCII)."""

    code = "not_canonical"
