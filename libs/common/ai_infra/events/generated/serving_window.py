"""Counts of one replica over one closed window of event time. Not sequenced.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, rfc3339, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import ArmCounts, Environment, Environment_INDEX, Environment_SYMBOLS
from ai_infra.events.values import value


@value(kw_only=True)
class ServingWindow(Body):
    """Counts of one replica over one closed window of event time. Not sequenced."""

    TOPIC: ClassVar[str] = "serving.window"
    SCHEMA_SHA256: ClassVar[str] = "6e096b715c71b6677c46a9008625c7a4b7584ccdf6ca8b43640bb939b3b9b7ba"
    CRC64: ClassVar[bytes] = bytes.fromhex("61fdf89726fa28c0")

    model: str
    """Name of the model; equals the record's key."""
    env: Environment
    """Environment that it is about."""
    replica: str
    """Name of the replica."""
    promotion_id: str | None = None
    """Rollout that the split belongs to."""
    window_start: datetime
    """Start, inclusive, ms since the epoch."""
    window_end: datetime
    """End, exclusive, ms since the epoch."""
    arms: tuple[ArmCounts, ...]
    """Counts per arm."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.text(self.replica)
        out.optional(self.promotion_id, Writer.text)
        out.millis(self.window_start)
        out.millis(self.window_end)
        out.array(self.arms, write_record)

    @classmethod
    def read(cls, data: Reader) -> ServingWindow:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            replica=data.text(),
            promotion_id=data.optional(Reader.text),
            window_start=data.millis(),
            window_end=data.millis(),
            arms=data.array(ArmCounts.read),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "env": str(self.env),
            "replica": self.replica,
            "promotion_id": self.promotion_id,
            "window_start": rfc3339(self.window_start),
            "window_end": rfc3339(self.window_end),
            "arms": [x.to_dict() for x in self.arms],
        }
