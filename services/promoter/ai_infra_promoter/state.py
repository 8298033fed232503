"""What the promoter remembers of a lane: artifacts, evaluations, revocations, what serves, and the promotions.

Ids begin with the model, because a lane holds many models; model names contain no '/'.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ai_infra.events.event import Cause
from ai_infra.events.generated import Environment, PromotionDecided, PromotionKind, PromotionStatus, Reason
from ai_infra_promoter.questions import SigningQuestion

KEPT_EVALUATIONS: Final = 64  # newest of an artifact; an older one can no longer be named by a request
KEPT_SIGNATURES: Final = 16  # ids of the newest manifest signatures of an artifact
KEPT_SERVED: Final = 256  # artifacts that served in an environment: those that can be gone back to


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownArtifact:
    """A registered artifact with its newest manifest signature. Id: `<model>/<artifact_id>`."""

    version: int
    artifact_sha256: str
    manifest_sha256: str
    manifest_signature_ids: tuple[str, ...]
    """Newest last."""
    envelope: str
    signer_id: str
    registered: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedArtifact:
    """An artifact that must not serve, why, and the event that said so. Id: `<model>/<artifact_id>`."""

    reason: str
    revoked: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFact:
    """One evaluation of an artifact: score in millionths, and the event that recorded it."""

    evaluation_id: str
    score_e6: int
    recorded: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """The newest evaluations of an artifact, newest last. Id: `<model>/<artifact_id>`."""

    items: tuple[EvaluationFact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What serves in (model, environment), from `deployment.changed`. Id: `<model>/<environment>`.

    `before` is what a rollback goes back through, newest last: an artifact that was rolled away from isn't in it.
    `served` is everything that ever served there (the newest 256), so everything that a rollback may name.
    """

    revision: int
    stable_artifact_id: str | None
    promotion_id: str | None
    before: tuple[str, ...]
    served: tuple[str, ...]
    changed: Cause | None = None
    """The event that it is from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A promotion or rollback, from its request on. Id: `<model>/<promotion_id>`. Kept, so that a duplicate is known.

    `artifact_id` is empty while a rollback's target is not known yet. `waiting` says which facts are missing; empty
    while it is examined and afterwards. `said` is the last step that was said.
    """

    promotion_id: str
    model: str
    artifact_id: str
    env: Environment
    kind: PromotionKind
    status: PromotionStatus
    requested_by: str
    evaluation_id: str | None
    manifest_signature_id: str | None
    expected_current_artifact_id: str | None
    not_after: datetime | None
    requested_at: datetime
    request: Cause
    request_sha256: str
    named_target: bool
    waiting: tuple[Reason, ...]
    said: PromotionDecided | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionsAbout:
    """Ids of the promotions to look at when something about an artifact or an environment becomes known.

    Id: `<model>/artifact/<artifact_id>` or `<model>/env/<environment>`.
    """

    promotion_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """Which promotion a key belongs to, and the SHA-256 of what was asked. Id: `<model>/<key>`."""

    promotion_id: str
    request_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsignedStep:
    """A step that the promotion key could not be asked to sign yet. Id: `<model>/<promotion_id>/<status>`."""

    question: SigningQuestion
    tries: int


RECORDS: Final = (
    KnownArtifact,
    RevokedArtifact,
    Evaluations,
    Serving,
    Promotion,
    PromotionsAbout,
    IdempotencyKey,
    UnsignedStep,
)


def key(model: str, *parts: str) -> str:
    """Id of a record."""
    return "/".join((model, *parts))
