"""A wish to go back.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Environment, Environment_INDEX, Environment_SYMBOLS
from ai_infra.events.values import value


@value(kw_only=True)
class RollbackRequested(Body):
    """A wish to go back."""

    TOPIC: ClassVar[str] = "rollback.requested"
    SCHEMA_SHA256: ClassVar[str] = "7e279fe8ddbae5dad7f74a6bdeaa3c75eeab143c805ca3df2f36c99514e93f1f"
    CRC64: ClassVar[bytes] = bytes.fromhex("de2baf2f6e700f3e")

    promotion_id: str
    """UUID of this rollback, a promotion like any other."""
    model: str
    """Name of the model; equals the record's key."""
    target_env: Environment
    """Environment that it is about."""
    to_artifact_id: str | None = None
    """Artifact to go back to; null: the one before."""
    reason: str
    """Why."""
    expected_current_artifact_id: str | None = None
    """Compare-and-swap; null: do not care."""
    emergency: bool
    """Break-glass."""
    requested_by: str
    """Principal who asked; equals the signer's principal."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.promotion_id)
        out.text(self.model)
        out.enum(self.target_env, Environment_INDEX)
        out.optional(self.to_artifact_id, Writer.text)
        out.text(self.reason)
        out.optional(self.expected_current_artifact_id, Writer.text)
        out.boolean(self.emergency)
        out.text(self.requested_by)

    @classmethod
    def read(cls, data: Reader) -> RollbackRequested:
        """Reads one datum written with this very schema."""
        return cls(
            promotion_id=data.text(),
            model=data.text(),
            target_env=data.enum(Environment_SYMBOLS),
            to_artifact_id=data.optional(Reader.text),
            reason=data.text(),
            expected_current_artifact_id=data.optional(Reader.text),
            emergency=data.boolean(),
            requested_by=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "promotion_id": self.promotion_id,
            "model": self.model,
            "target_env": str(self.target_env),
            "to_artifact_id": self.to_artifact_id,
            "reason": self.reason,
            "expected_current_artifact_id": self.expected_current_artifact_id,
            "emergency": self.emergency,
            "requested_by": self.requested_by,
        }
