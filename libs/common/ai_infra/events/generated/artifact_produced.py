"""An artifact exists, with its manifest and signed provenance.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class ArtifactProduced(Body):
    """An artifact exists, with its manifest and signed provenance."""

    TOPIC: ClassVar[str] = "artifact.produced"
    SCHEMA_SHA256: ClassVar[str] = "833a1d9607d31844c79651fc7740ff913ebf9d22887b80124d8b55b44fd9f119"
    CRC64: ClassVar[bytes] = bytes.fromhex("e5f34c5525c58922")

    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    model: str
    """Name of the model; equals the record's key."""
    job_id: str | None = None
    """Job that it came from; null for outside builds."""
    artifact_uri: str
    """Where the artifact is: s3://bucket/key."""
    artifact_sha256: str
    """SHA-256 of the artifact, 64 hex digits."""
    artifact_bytes: int
    """Size, bytes."""
    manifest_uri: str
    """Where the training manifest is."""
    manifest_sha256: str
    """SHA-256 of the manifest's bytes, 64 hex digits."""
    provenance: str
    """DSSE envelope (JSON) over an in-toto Statement with SLSA provenance v1, signed by the builder's delegated key."""
    input_checksum: str
    """SHA-256 over code, container, hyperparameters, datasets and seed; 64 hex digits."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.artifact_id)
        out.text(self.model)
        out.optional(self.job_id, Writer.text)
        out.text(self.artifact_uri)
        out.text(self.artifact_sha256)
        out.int64(self.artifact_bytes)
        out.text(self.manifest_uri)
        out.text(self.manifest_sha256)
        out.text(self.provenance)
        out.text(self.input_checksum)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> ArtifactProduced:
        """Reads one datum written with this very schema."""
        return cls(
            artifact_id=data.text(),
            model=data.text(),
            job_id=data.optional(Reader.text),
            artifact_uri=data.text(),
            artifact_sha256=data.text(),
            artifact_bytes=data.int64(),
            manifest_uri=data.text(),
            manifest_sha256=data.text(),
            provenance=data.text(),
            input_checksum=data.text(),
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
            "artifact_bytes": self.artifact_bytes,
            "manifest_uri": self.manifest_uri,
            "manifest_sha256": self.manifest_sha256,
            "provenance": self.provenance,
            "input_checksum": self.input_checksum,
            "rules": self.rules,
        }
