"""The training manifest: everything that influenced an artifact, as one canonical JSON document.

It is an object beside the artifact, named by its SHA-256; what is signed refers to it by that. It must never hold a
secret: it is readable by whoever may read the artifact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ai_infra.events.avro import rfc3339
from ai_infra.events.canonical import canonical_json_numbers, sha256_hex
from ai_infra.events.exceptions import CanonicalError
from ai_infra.events.generated import DatasetRef, Reason
from ai_infra.events.lanes import MODEL_NAME
from ai_infra.manifest.code_ref import IMAGE_DIGEST, CodeRef
from ai_infra.manifest.exceptions import BadManifest
from ai_infra.manifest.identity import artifact_id, dataset_json, input_checksum
from ai_infra.manifest.reading import SHA256_HEX, Fields, parse_json, texts

MANIFEST_VERSION: Final = 1
MAX_MANIFEST_BYTES: Final = 4 << 20
CONTENT_TYPE: Final = "application/json"
_MAX_DATASETS: Final = 64
_MAX_LIST: Final = 1024
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class LogRef:
    """A file that the training left beside its artifact (log, evaluation report), by name, address and SHA-256."""

    name: str
    uri: str
    sha256: str

    def to_json(self) -> dict[str, str]:
        """As it is written in the manifest."""
        return {"name": self.name, "uri": self.uri, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingManifest:
    """See the field list in `to_json`. Times are UTC with milliseconds, checksums lowercase hex."""

    artifact_id: str
    model: str
    task: str | None
    template: str
    code_ref: str
    container_digest: str | None
    dataset_refs: tuple[DatasetRef, ...]
    hyperparams: Mapping[str, Any]
    seed: int
    training_cmd: tuple[str, ...]
    environment: Mapping[str, Any]
    metrics: Mapping[str, Any]
    logs: tuple[LogRef, ...]
    artifact_uri: str
    artifact_sha256: str
    artifact_bytes: int
    training_job_id: str | None
    parent_artifacts: tuple[str, ...]
    input_checksum: str
    created_at: datetime

    @classmethod
    def of(
        cls,
        *,
        model: str,
        template: str,
        code_ref: str,
        container_digest: str | None,
        dataset_refs: Sequence[DatasetRef],
        hyperparams: Mapping[str, Any],
        seed: int,
        training_cmd: Sequence[str],
        environment: Mapping[str, Any],
        metrics: Mapping[str, Any],
        artifact_uri: str,
        artifact_sha256: str,
        artifact_bytes: int,
        created_at: datetime,
        training_job_id: str | None = None,
        parent_artifacts: Sequence[str] = (),
        logs: Sequence[LogRef] = (),
        task: str | None = None,
    ) -> TrainingManifest:
        """Write a manifest: the ids that follow from the rest are computed here. Raises BadManifest.

        Validated by being read back, so what this returns is what every reader accepts.
        """
        manifest = cls(
            artifact_id=artifact_id(model, artifact_sha256),
            model=model,
            task=task,
            template=template,
            code_ref=code_ref,
            container_digest=container_digest,
            dataset_refs=tuple(dataset_refs),
            hyperparams=hyperparams,
            seed=seed,
            training_cmd=tuple(training_cmd),
            environment=environment,
            metrics=metrics,
            logs=tuple(logs),
            artifact_uri=artifact_uri,
            artifact_sha256=artifact_sha256,
            artifact_bytes=artifact_bytes,
            training_job_id=training_job_id,
            parent_artifacts=tuple(parent_artifacts),
            input_checksum=input_checksum(
                code_ref=code_ref,
                container_digest=container_digest,
                hyperparams=hyperparams,
                dataset_refs=dataset_refs,
                seed=seed,
            ),
            created_at=created_at,
        )
        return cls.from_bytes(manifest.to_bytes())

    def to_json(self) -> dict[str, Any]:
        """The document's fields, by the names that it has outside."""
        return {
            "manifestVersion": MANIFEST_VERSION,
            "artifactId": self.artifact_id,
            "model": self.model,
            "task": self.task,
            "template": self.template,
            "codeRef": self.code_ref,
            "containerDigest": self.container_digest,
            "datasetRefs": [dataset_json(ref) for ref in self.dataset_refs],
            "hyperparams": dict(self.hyperparams),
            "seed": self.seed,
            "trainingCmd": list(self.training_cmd),
            "environment": dict(self.environment),
            "metrics": dict(self.metrics),
            "logs": [log.to_json() for log in self.logs],
            "artifactUri": self.artifact_uri,
            "artifactSha256": self.artifact_sha256,
            "artifactBytes": self.artifact_bytes,
            "trainingJobId": self.training_job_id,
            "parentArtifacts": list(self.parent_artifacts),
            "inputChecksum": self.input_checksum,
            "createdAt": rfc3339(self.created_at),
        }

    def to_bytes(self) -> bytes:
        """RFC 8785 bytes: what is stored, and what `manifest_sha256` is over."""
        try:
            data = canonical_json_numbers(self.to_json())
        except CanonicalError as error:
            raise BadManifest(f"the manifest has no canonical form: {error}") from error
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadManifest(
                f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}: long lists by digest"
            )
        return data

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of `to_bytes()`."""
        return sha256_hex(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainingManifest:
        """Read a manifest: canonical bytes, exactly these fields. Whether they agree with each other: `problems`."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise BadManifest(f"a manifest has at most {MAX_MANIFEST_BYTES} bytes, not {len(data)}")
        value = parse_json(data, BadManifest, "manifest")
        try:
            canonical = canonical_json_numbers(value)
        except (CanonicalError, RecursionError) as error:
            raise BadManifest(f"the manifest has no canonical form: {error}") from error
        if canonical != data:
            raise BadManifest(
                "a manifest is canonical JSON (RFC 8785: sorted names, no white space), these bytes are not"
            )
        fields = Fields(value, BadManifest, "manifest")
        fields.integer("manifestVersion", MANIFEST_VERSION, MANIFEST_VERSION)
        manifest = cls(
            artifact_id=fields.text("artifactId", _UUID),
            model=fields.text("model", MODEL_NAME),
            task=fields.optional_text("task"),
            template=fields.text("template"),
            code_ref=CodeRef.parse(fields.text("codeRef")).text,
            container_digest=fields.optional_text("containerDigest", IMAGE_DIGEST),
            dataset_refs=tuple(_dataset(item) for item in fields.list("datasetRefs", _MAX_DATASETS)),
            hyperparams=fields.object("hyperparams"),
            seed=fields.integer("seed"),
            training_cmd=texts(fields.list("trainingCmd", _MAX_LIST), BadManifest, "manifest.trainingCmd"),
            environment=fields.object("environment"),
            metrics=fields.object("metrics"),
            logs=tuple(_log(item) for item in fields.list("logs", _MAX_LIST)),
            artifact_uri=fields.text("artifactUri"),
            artifact_sha256=fields.text("artifactSha256", SHA256_HEX),
            artifact_bytes=fields.integer("artifactBytes"),
            training_job_id=fields.optional_text("trainingJobId", _UUID),
            parent_artifacts=texts(fields.list("parentArtifacts", _MAX_LIST), BadManifest, "manifest.parentArtifacts"),
            input_checksum=fields.text("inputChecksum", SHA256_HEX),
            created_at=fields.time("createdAt"),
        )
        fields.end()
        return manifest

    def problems(self) -> tuple[Reason, ...]:
        """Where the manifest contradicts itself: every id that does not follow from the fields that it is made of."""
        found: list[Reason] = []
        expected = artifact_id(self.model, self.artifact_sha256)
        if self.artifact_id != expected:
            found.append(
                Reason(
                    code="manifest_artifact_id",
                    detail=f"artifactId is {self.artifact_id}; model and artifactSha256 make {expected}",
                )
            )
        checksum = input_checksum(
            code_ref=self.code_ref,
            container_digest=self.container_digest,
            hyperparams=self.hyperparams,
            dataset_refs=self.dataset_refs,
            seed=self.seed,
        )
        if self.input_checksum != checksum:
            found.append(
                Reason(
                    code="manifest_input_checksum",
                    detail=f"inputChecksum is {self.input_checksum}; the inputs in the manifest make {checksum}",
                )
            )
        return tuple(found)


def _dataset(item: Any) -> DatasetRef:
    fields = Fields(item, BadManifest, "manifest.datasetRefs[]")
    ref = DatasetRef(
        id=fields.text("id"),
        checksum=fields.text("checksum", IMAGE_DIGEST),  # the same form: sha256:<64 hex digits>
        version=fields.text("version"),
        uri=fields.text("uri"),
    )
    fields.end()
    return ref


def _log(item: Any) -> LogRef:
    fields = Fields(item, BadManifest, "manifest.logs[]")
    log = LogRef(fields.text("name"), fields.text("uri"), fields.text("sha256", SHA256_HEX))
    fields.end()
    return log
