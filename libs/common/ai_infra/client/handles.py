"""What the SDK gives back: what was sent, what to wait for, and what came of it. Plain data, safe to keep or pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ai_infra.events.compose import SignedRecord
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    ArtifactRegistered,
    DeploymentChanged,
    Environment,
    JobStatus,
    PromotionDecided,
    PromotionRequested,
    RollbackRequested,
)

PromotionAsked = PromotionRequested | RollbackRequested


@dataclass(frozen=True, slots=True)
class Published:
    """An event that was sent. `positions` say where, per topic, answers to this event can begin."""

    id: str
    type: str
    model: str
    lane: int
    hash: str
    """event_hash: what a receipt proves the inclusion of."""
    record: SignedRecord = field(repr=False)
    positions: Mapping[str, int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Job:
    """A training that was asked for. `published` is None where it was asked for elsewhere (`client.job(...)`)."""

    job_id: str
    model: str
    published: Published | None = None


@dataclass(frozen=True, slots=True)
class Promotion:
    """A promotion or a rollback that was asked for. `again`: what was asked, where its id is not new with this wish, so
    that it may have been asked and answered before."""

    promotion_id: str
    model: str
    env: Environment
    published: Published | None = None
    again: PromotionAsked | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """A completed job and its registered artifact. `new_version` is False where these bytes were registered before."""

    job_id: str
    artifact_id: str
    version: int
    new_version: bool
    status: Event[JobStatus]
    registered: Event[ArtifactRegistered]


@dataclass(frozen=True, slots=True)
class PromotionResult:
    """An applied promotion: what the promoter decided, and the deployment that it became."""

    promotion_id: str
    artifact_id: str
    env: Environment
    revision: int
    decision: Event[PromotionDecided]
    deployment: Event[DeploymentChanged]
