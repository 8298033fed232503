"""Something in a lane's log that an auditor should know.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


class FindingKind(StrEnum):
    """What was found."""

    UNKNOWN = "unknown"
    WITHHELD = "withheld"
    EQUIVOCATION = "equivocation"
    LATE_CAUSE = "late_cause"
    MISSING_CAUSE = "missing_cause"
    PROJECTION_REFUSED = "projection_refused"


FindingKind_SYMBOLS: Final = tuple(FindingKind)
FindingKind_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(FindingKind)}


@value(kw_only=True)
class AuditFinding(Body):
    """Something in a lane's log that an auditor should know."""

    TOPIC: ClassVar[str] = "audit.finding"
    SCHEMA_SHA256: ClassVar[str] = "96c2f522f1fe3e777b4c25df6be5d499050a6b86c8b3ab320890c961580e9c0e"
    CRC64: ClassVar[bytes] = bytes.fromhex("de76c7445f0a91c7")

    kind: FindingKind
    """What was found."""
    lane_of: int
    """Lane that it is about."""
    producer: str | None = None
    """Producer that it is about."""
    epoch: int | None = None
    """Its epoch."""
    first_seq: int | None = None
    """First number concerned."""
    last_seq: int | None = None
    """Last number concerned."""
    position: int | None = None
    """Position in the lane's log."""
    event_id: str | None = None
    """Event concerned."""
    detail: str
    """For people."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.enum(self.kind, FindingKind_INDEX)
        out.int32(self.lane_of)
        out.optional(self.producer, Writer.text)
        out.optional(self.epoch, Writer.int64)
        out.optional(self.first_seq, Writer.int64)
        out.optional(self.last_seq, Writer.int64)
        out.optional(self.position, Writer.int64)
        out.optional(self.event_id, Writer.text)
        out.text(self.detail)

    @classmethod
    def read(cls, data: Reader) -> AuditFinding:
        """Reads one datum written with this very schema."""
        return cls(
            kind=data.enum(FindingKind_SYMBOLS),
            lane_of=data.int32(),
            producer=data.optional(Reader.text),
            epoch=data.optional(Reader.int64),
            first_seq=data.optional(Reader.int64),
            last_seq=data.optional(Reader.int64),
            position=data.optional(Reader.int64),
            event_id=data.optional(Reader.text),
            detail=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "kind": str(self.kind),
            "lane_of": self.lane_of,
            "producer": self.producer,
            "epoch": self.epoch,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "position": self.position,
            "event_id": self.event_id,
            "detail": self.detail,
        }
