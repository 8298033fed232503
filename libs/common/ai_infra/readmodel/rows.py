"""What queries answer with: one frozen class a kind of row, times in UTC, JSON columns as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, as its lane's log tells it."""

    lane: int
    job_id: str
    model: str
    status: str
    attempt: int
    template: str | None
    code_ref: str | None
    container_digest: str | None
    dataset_refs: list[Mapping[str, str]] | None
    hyperparams: Mapping[str, Any] | None
    seed: int | None
    training_cmd: list[str] | None
    requested_by: str | None
    runner: str | None
    log_uri: str | None
    log_sha256: str | None
    queued_time: datetime | None
    started_time: datetime | None
    ended_time: datetime | None
    reason_code: str
    reason: str
    artifact_id: str | None
    exit_code: int | None
    cancel_requested_by: str | None
    event_id: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """An artifact: produced, registered with a version, refused or revoked."""

    lane: int
    artifact_id: str
    model: str
    status: str
    version: int | None
    attestations: int
    job_id: str | None
    artifact_uri: str
    artifact_sha256: str
    artifact_bytes: int | None
    manifest_uri: str | None
    manifest_sha256: str | None
    manifest_signature_id: str | None
    manifest_signer_id: str | None
    manifest_signature: str | None
    manifest_signed_at: datetime | None
    manifest_envelope: str | None
    provenance: str | None
    builder_id: str | None
    input_checksum: str | None
    code_ref: str | None
    container_digest: str | None
    dataset_refs: list[Mapping[str, str]] | None
    parent_artifacts: list[str] | None
    metadata: Mapping[str, Any] | None
    created_by: str | None
    reasons: list[Mapping[str, str]] | None
    revoked_by: str | None
    revoked_reason: str | None
    revoked_at: datetime | None
    produced_at: datetime | None
    registered_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """An evaluation of an artifact. Scores are millionths."""

    lane: int
    evaluation_id: str
    model: str
    artifact_id: str
    dataset_ref: Mapping[str, str]
    score_e6: int
    metrics_e6: Mapping[str, int]
    evaluator: str
    report_uri: str | None
    report_sha256: str | None
    event_id: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class PromotionRow:
    """A promotion or rollback and where it stands."""

    lane: int
    promotion_id: str
    model: str
    kind: str
    artifact_id: str | None
    target_env: str
    status: str
    request_reason: str | None
    requested_by: str | None
    requested_at: datetime | None
    emergency: bool
    manifest_signature_id: str | None
    evaluation_id: str | None
    score_e6: int | None
    threshold_e6: int | None
    reasons: list[Mapping[str, str]] | None
    verifier_id: str | None
    policy_answer: Any
    policy_version: int | None
    policy_sha256: str | None
    fallback: bool
    plan_percent: list[int] | None
    decision_envelope: str | None
    decided_at: datetime | None
    applied_at: datetime | None
    ended_at: datetime | None
    outcome_reason: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class PromotionStepRow:
    """One step of a promotion's history."""

    lane: int
    promotion_id: str
    position: int
    status: str
    said_by: str
    reasons: list[Mapping[str, str]]
    detail: Mapping[str, Any]
    event_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """One person's yes or no."""

    lane: int
    promotion_id: str
    position: int
    artifact_id: str
    target_env: str
    approver: str
    decision: str
    reason: str
    envelope: str
    event_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """What serves in an environment from `changed_at` on, until the next revision."""

    lane: int
    model: str
    env: str
    revision: int
    promotion_id: str | None
    stable_artifact_id: str | None
    candidate_artifact_id: str | None
    candidate_percent: int
    previous_stable_artifact_id: str | None
    cause: str
    reason: str
    event_id: str
    changed_at: datetime
    position: int


@dataclass(frozen=True, slots=True)
class EdgeRow:
    """child <- parent: where something came from."""

    lane: int
    child_kind: str
    child_id: str
    relation: str
    parent_kind: str
    parent_id: str
    model: str
    detail: Mapping[str, Any]
    position: int


@dataclass(frozen=True, slots=True)
class EventRow:
    """An entry of the log. `verdict`: projected, repeated, equivocation or refused."""

    lane: int
    position: int
    event_id: str
    type: str
    model: str
    subject: str | None
    signer: str
    principal: str
    producer: str | None
    epoch: int | None
    seq: int | None
    event_hash: str
    event_time: datetime
    append_time: datetime
    causes: list[str]
    verdict: str
    payload: Mapping[str, Any] | None
    """The Kernel payload, which holds the body as JSON; None where a list was asked for without bodies."""


@dataclass(frozen=True, slots=True)
class LaneRow:
    """How far a lane is: in Postgres (`size`), final (`checkpoint_size`), said on audit-events (`published_size`), and
    no longer in Postgres but in the archive alone (`pruned_size`)."""

    lane: int
    origin: str
    size: int
    head_hash: str
    last_append_time: datetime | None
    checkpoint_size: int
    checkpoint_root: str
    checkpoint_at: datetime | None
    published_size: int
    pruned_size: int
    oldest_bundle_time: datetime | None
    """When the oldest full bundle of entries in Postgres was complete: it leaves once that is long enough ago."""


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """A service's refusal of an event."""

    lane: int
    event_id: str
    service: str
    model: str
    event_type: str
    signer: str
    reasons: list[Mapping[str, str]]
    refusal_event_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class FindingRow:
    """What an auditor should know about a lane."""

    lane: int
    position: int
    kind: str
    about: str
    event_id: str
    producer: str | None
    epoch: int | None
    seq: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Running:
    """The answer to: what ran there then? With the entry that says so."""

    model: str
    env: str
    at: datetime
    deployment: DeploymentRow
    artifact: ArtifactRow | None
    promotion: PromotionRow | None
    until: datetime | None
    """When the next change ended it; None: it runs still."""
    following: DeploymentRow | None
    """That change."""
