"""What the trainer remembers of a job, and what its work is given and gives back.

All of it is frozen and JSON-encodable: records live in the lane's state, arguments in pending work, results in `Done`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ai_infra.events.generated import ArtifactProduced, DatasetRef, JobQueued

Phase = Literal["waiting", "preparing", "running", "over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be trained: the content of `job.queued` that decides what comes out, and who asked."""

    job_id: str
    model: str
    template: str
    code_ref: str
    container_digest: str | None
    dataset_refs: tuple[DatasetRef, ...]
    hyperparams_json: str
    seed: int
    training_cmd: tuple[str, ...]
    cpu_millis: int
    memory_mib: int
    time_limit_s: int
    requested_by: str
    parent_artifacts: tuple[str, ...]

    @classmethod
    def of(cls, body: JobQueued) -> Order:
        return cls(
            job_id=body.job_id,
            model=body.model,
            template=body.template,
            code_ref=body.code_ref,
            container_digest=body.container_digest,
            dataset_refs=tuple(body.dataset_refs),
            hyperparams_json=body.hyperparams_json,
            seed=body.seed,
            training_cmd=tuple(body.training_cmd),
            cpu_millis=body.resources.cpu_millis,
            memory_mib=body.resources.memory_mib,
            time_limit_s=body.time_limit_s,
            requested_by=body.requested_by,
            parent_artifacts=tuple(body.parent_artifacts),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that was accepted; id: its job id. It stays for ever, so that a job id has one result for ever.

    waiting: for another try after something did not answer. `tries` counts from 1. `order` is dropped when it is over.
    """

    model: str
    phase: Phase
    tries: int
    queued: datetime
    started: datetime | None = None
    runner: str = ""
    status: str = "queued"
    order: Order | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelWish:
    """A cancellation that came before its job (they travel in different topics); id: `<model>/<job id>`."""

    model: str
    event_id: str
    event_type: str
    event_hash: str
    signer: str
    requested_by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Arguments of both kinds of work: the order, the try (from 1), and when the job was accepted."""

    order: Order
    tries: int
    queued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Code and datasets are in place on `runner`, and one of its slots is held for this job."""

    runner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """The artifact of a training, uploaded, with its manifest and signed provenance."""

    artifact_id: str
    artifact_uri: str
    artifact_sha256: str
    artifact_bytes: int
    manifest_uri: str
    manifest_sha256: str
    provenance: str
    input_checksum: str

    def produced(self, *, model: str, job_id: str | None, rules: str) -> ArtifactProduced:
        """What says that it is there."""
        return ArtifactProduced(
            artifact_id=self.artifact_id,
            model=model,
            job_id=job_id,
            artifact_uri=self.artifact_uri,
            artifact_sha256=self.artifact_sha256,
            artifact_bytes=self.artifact_bytes,
            manifest_uri=self.manifest_uri,
            manifest_sha256=self.manifest_sha256,
            provenance=self.provenance,
            input_checksum=self.input_checksum,
            rules=rules,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """How a training ended; `product` exactly when it completed."""

    status: Literal["completed", "failed", "timed_out"]
    runner: str
    started: datetime | None
    ended: datetime | None
    exit_code: int | None
    reason_code: str
    reason: str
    log_uri: str | None
    log_sha256: str | None
    product: Product | None
