"""What the registry remembers of a lane, and what its work is given and gives back. All frozen and JSON-encodable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ai_infra.events.generated import DatasetRef, Reason
from ai_infra.manifest.registration import Registration


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """Numbering of a model; id: the model. Versions are dense from 1; `verified` counts what was found sound."""

    next: int
    verified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A registered artifact; id: its artifact id. `attestations` counts the runs that produced these very bytes."""

    model: str
    version: int
    attestations: int
    sha256: str
    uri: str
    revoked: str | None = None
    """Why it was revoked, if it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """A manifest that was registered; id: its SHA-256. One manifest attests once, however often it is sent."""

    artifact_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What an artifact.produced says, and who said it: the arguments of the verification."""

    event_id: str
    event_type: str
    event_hash: str
    signer: str
    principal: str
    model: str
    job_id: str | None
    artifact_id: str
    artifact_uri: str
    artifact_sha256: str
    artifact_bytes: int
    manifest_uri: str
    manifest_sha256: str
    provenance: str
    input_checksum: str
    appended: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A claim whose verification did not reach the object store; id: the event's id."""

    claim: Claim
    tries: int
    failures: int
    """How many of the tries ended in an error of our own, and not in silence of something outside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found true of an artifact, as `artifact.registered` tells it."""

    artifact_sha256: str
    artifact_bytes: int
    manifest_sha256: str
    provenance_sha256: str
    code_ref: str
    container_digest: str | None
    dataset_refs: tuple[DatasetRef, ...]
    parent_artifacts: tuple[str, ...]
    input_checksum: str
    builder_id: str
    metadata_json: str
    created_by: str
    keyring_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The end of a verification: every reason against the artifact, or the facts."""

    reasons: tuple[Reason, ...]
    facts: Facts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A sound artifact that waits for its number and signature; id: the event's id. `order` counts within the model."""

    claim: Claim
    facts: Facts
    order: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """The one registration of a model that is being signed; id: the model. The number is part of what is signed."""

    event_id: str
    registration: Registration
    new_version: bool
    attestation: int
    tries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ToSign:
    """Arguments of the signature. `appended` is when the artifact was said to exist: what its latency counts from."""

    registration: Registration
    appended: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The manifest key's signature. `id` is the manifest signature id."""

    id: str
    signer_id: str
    signature: str
    ts: datetime
    envelope: str
