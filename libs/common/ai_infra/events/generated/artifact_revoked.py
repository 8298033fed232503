"""An artifact must no longer be used.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class ArtifactRevoked(Body):
    """An artifact must no longer be used."""

    TOPIC: ClassVar[str] = "artifact.revoked"
    SCHEMA_SHA256: ClassVar[str] = "97a0ba5048e9fd7b52ea21e8ee43ec126ec5471ea0f7f026fdeb26c9fa4589b9"
    CRC64: ClassVar[bytes] = bytes.fromhex("bc838825606b5ea9")

    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    model: str
    """Name of the model; equals the record's key."""
    reason: str
    """Why."""
    revoked_by: str
    """Principal; equals the signer's principal."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.artifact_id)
        out.text(self.model)
        out.text(self.reason)
        out.text(self.revoked_by)

    @classmethod
    def read(cls, data: Reader) -> ArtifactRevoked:
        """Reads one datum written with this very schema."""
        return cls(
            artifact_id=data.text(),
            model=data.text(),
            reason=data.text(),
            revoked_by=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "artifact_id": self.artifact_id,
            "model": self.model,
            "reason": self.reason,
            "revoked_by": self.revoked_by,
        }
