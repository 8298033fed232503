"""The registry has looked at an artifact and does not register it.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Reason
from ai_infra.events.values import value


@value(kw_only=True)
class ArtifactRefused(Body):
    """The registry has looked at an artifact and does not register it."""

    TOPIC: ClassVar[str] = "artifact.refused"
    SCHEMA_SHA256: ClassVar[str] = "54af53617bfe2f99ecc4273de4e9ab1c95e992bf8ae8f4632949f605892b2926"
    CRC64: ClassVar[bytes] = bytes.fromhex("d8d9e27ddfc6655d")

    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    model: str
    """Name of the model; equals the record's key."""
    job_id: str | None = None
    """Job that it came from."""
    artifact_uri: str
    """Where it is said to be."""
    artifact_sha256: str
    """What it was said to be."""
    reasons: tuple[Reason, ...]
    """Every reason, not only the first."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.artifact_id)
        out.text(self.model)
        out.optional(self.job_id, Writer.text)
        out.text(self.artifact_uri)
        out.text(self.artifact_sha256)
        out.array(self.reasons, write_record)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> ArtifactRefused:
        """Reads one datum written with this very schema."""
        return cls(
            artifact_id=data.text(),
            model=data.text(),
            job_id=data.optional(Reader.text),
            artifact_uri=data.text(),
            artifact_sha256=data.text(),
            reasons=data.array(Reason.read),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "artifact_id": self.artifact_id,
            "model": self.model,
            "job_id": self.job_id,
            "artifact_uri": self.artifact_uri,
            "artifact_sha256": self.artifact_sha256,
            "reasons": [x.to_dict() for x in self.reasons],
            "rules": self.rules,
        }
