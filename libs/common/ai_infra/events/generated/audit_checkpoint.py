"""A signed tree head of a lane. Not sequenced.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class AuditCheckpoint(Body):
    """A signed tree head of a lane. Not sequenced."""

    TOPIC: ClassVar[str] = "audit.checkpoint"
    SCHEMA_SHA256: ClassVar[str] = "bfc62541e77b22f4032fdfb6bba600f44ec196b7dc4a93ceff4023ca8e4c49d4"
    CRC64: ClassVar[bytes] = bytes.fromhex("fb5c41eba7331861")

    log_lane: int
    """Lane."""
    origin: str
    """Origin line of the checkpoint."""
    size: int
    """Number of entries covered."""
    root: str
    """Root hash, standard base64."""
    note: str
    """The whole signed note (C2SP tlog-checkpoint)."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.int32(self.log_lane)
        out.text(self.origin)
        out.int64(self.size)
        out.text(self.root)
        out.text(self.note)

    @classmethod
    def read(cls, data: Reader) -> AuditCheckpoint:
        """Reads one datum written with this very schema."""
        return cls(
            log_lane=data.int32(),
            origin=data.text(),
            size=data.int64(),
            root=data.text(),
            note=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "log_lane": self.log_lane,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "note": self.note,
        }
