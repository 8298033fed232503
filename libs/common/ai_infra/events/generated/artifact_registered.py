"""The registry has verified an artifact and gives it a version.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, rfc3339, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import DatasetRef
from ai_infra.events.values import value


@value(kw_only=True)
class ManifestSignature:
    """The manifest key's signature over the registry's statement (DSSE over in-toto)."""

    signer_id: str
    """Key id of the manifest key in the keyring."""
    signature: str
    """Ed25519 signature over the DSSE pre-authentication encoding, standard base64."""
    ts: datetime
    """When it was signed (the decision's own time), milliseconds since 1970-01-01T00:00:00Z."""
    envelope: str
    """The whole DSSE envelope as canonical JSON (RFC 8785)."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.signer_id)
        out.text(self.signature)
        out.millis(self.ts)
        out.text(self.envelope)

    @classmethod
    def read(cls, data: Reader) -> ManifestSignature:
        """Reads one datum written with this very schema."""
        return cls(
            signer_id=data.text(),
            signature=data.text(),
            ts=data.millis(),
            envelope=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "signer_id": self.signer_id,
            "signature": self.signature,
            "ts": rfc3339(self.ts),
            "envelope": self.envelope,
        }


@value(kw_only=True)
class ArtifactRegistered(Body):
    """The registry has verified an artifact and gives it a version."""

    TOPIC: ClassVar[str] = "artifact.registered"
    SCHEMA_SHA256: ClassVar[str] = "7d1e90e0717bbc3b17eb1e9b8cce2c642ad5417dd54e2b0346255525b97ff183"
    CRC64: ClassVar[bytes] = bytes.fromhex("473ec1444ec98c83")

    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    model: str
    """Name of the model; equals the record's key."""
    version: int
    """Version of the model, from 1; a bit-equal repetition keeps its first."""
    new_version: bool
    """False where these bytes were registered before: this is one more attestation."""
    attestation: int
    """How many times these bytes were attested so far, from 1."""
    job_id: str | None = None
    """Job that it came from."""
    artifact_uri: str
    """Where the artifact is."""
    artifact_sha256: str
    """SHA-256 as the registry computed it, 64 hex digits."""
    artifact_bytes: int
    """Size as the registry counted it, bytes."""
    manifest_uri: str
    """Where the manifest is."""
    manifest_sha256: str
    """SHA-256 of the manifest as the registry computed it."""
    manifest_signature_id: str
    """UUIDv5 of the envelope's SHA-256."""
    manifest_signature: ManifestSignature
    """The manifest key's signature."""
    code_ref: str
    """From the manifest."""
    container_digest: str | None = None
    """From the manifest."""
    dataset_refs: tuple[DatasetRef, ...]
    """From the manifest."""
    parent_artifacts: tuple[str, ...]
    """From the manifest."""
    input_checksum: str
    """From the manifest, recomputed."""
    builder_id: str
    """Who built it, from the provenance."""
    metadata_json: str
    """Task, template and metrics from the manifest, canonical JSON, numbers as scaled integers or text."""
    created_by: str
    """Principal who asked for the training, or who produced the artifact."""
    keyring_version: int
    """Keyring that the provenance was judged by."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.artifact_id)
        out.text(self.model)
        out.int32(self.version)
        out.boolean(self.new_version)
        out.int32(self.attestation)
        out.optional(self.job_id, Writer.text)
        out.text(self.artifact_uri)
        out.text(self.artifact_sha256)
        out.int64(self.artifact_bytes)
        out.text(self.manifest_uri)
        out.text(self.manifest_sha256)
        out.text(self.manifest_signature_id)
        self.manifest_signature.write(out)
        out.text(self.code_ref)
        out.optional(self.container_digest, Writer.text)
        out.array(self.dataset_refs, write_record)
        out.array(self.parent_artifacts, Writer.text)
        out.text(self.input_checksum)
        out.text(self.builder_id)
        out.text(self.metadata_json)
        out.text(self.created_by)
        out.int32(self.keyring_version)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> ArtifactRegistered:
        """Reads one datum written with this very schema."""
        return cls(
            artifact_id=data.text(),
            model=data.text(),
            version=data.int32(),
            new_version=data.boolean(),
            attestation=data.int32(),
            job_id=data.optional(Reader.text),
            artifact_uri=data.text(),
            artifact_sha256=data.text(),
            artifact_bytes=data.int64(),
            manifest_uri=data.text(),
            manifest_sha256=data.text(),
            manifest_signature_id=data.text(),
            manifest_signature=ManifestSignature.read(data),
            code_ref=data.text(),
            container_digest=data.optional(Reader.text),
            dataset_refs=data.array(DatasetRef.read),
            parent_artifacts=data.array(Reader.text),
            input_checksum=data.text(),
            builder_id=data.text(),
            metadata_json=data.text(),
            created_by=data.text(),
            keyring_version=data.int32(),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "artifact_id": self.artifact_id,
            "model": self.model,
            "version": self.version,
            "new_version": self.new_version,
            "attestation": self.attestation,
            "job_id": self.job_id,
            "artifact_uri": self.artifact_uri,
            "artifact_sha256": self.artifact_sha256,
            "artifact_bytes": self.artifact_bytes,
            "manifest_uri": self.manifest_uri,
            "manifest_sha256": self.manifest_sha256,
            "manifest_signature_id": self.manifest_signature_id,
            "manifest_signature": self.manifest_signature.to_dict(),
            "code_ref": self.code_ref,
            "container_digest": self.container_digest,
            "dataset_refs": [x.to_dict() for x in self.dataset_refs],
            "parent_artifacts": list(self.parent_artifacts),
            "input_checksum": self.input_checksum,
            "builder_id": self.builder_id,
            "metadata_json": self.metadata_json,
            "created_by": self.created_by,
            "keyring_version": self.keyring_version,
            "rules": self.rules,
        }
