"""A person's approval: found out from the log what it is about, then signed by the person's own key. Pure.

It must never approve what was not read from verified events: the digests, the request's id and the policy are taken
from them, not from who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ai_infra.client.exceptions import ClientError
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    ApprovalDecision,
    ArtifactRegistered,
    PromotionApproval,
    PromotionDecided,
    PromotionRequested,
    RollbackRequested,
)
from ai_infra.manifest.approval import Approval, sign_approval

READS: Final = (
    PromotionRequested.TOPIC,
    RollbackRequested.TOPIC,
    PromotionDecided.TOPIC,
    ArtifactRegistered.TOPIC,
)
"""Event types that an approval is put together from."""


class NothingToApprove(ClientError):
    """The log doesn't hold what an approval of this promotion would have to name."""

    code = "nothing_to_approve"


def approval(
    history: Iterable[Event[Any]],
    *,
    promotion_id: str,
    approver: str,
    decision: ApprovalDecision,
    reason: str,
    valid_for: timedelta,
    keyring: int,
    key_id: str,
    sign: Callable[[bytes], bytes],
) -> PromotionApproval:
    """The body of a `promotion.approval`, with its signed statement. Raises NothingToApprove."""
    request: Event[Any] | None = None
    step: Event[PromotionDecided] | None = None
    artifacts: dict[str, ArtifactRegistered] = {}
    for event in history:
        body = event.body
        match body:
            case PromotionRequested() | RollbackRequested() if body.promotion_id == promotion_id:
                request = request or event
            case PromotionDecided() if body.promotion_id == promotion_id:
                step = event
            case ArtifactRegistered():
                artifacts[body.artifact_id] = body
    if request is None or step is None:
        missing = "was asked for" if request is None else "was heard by the promoter"
        raise NothingToApprove(f"no promotion {promotion_id} {missing} in what Kafka still has")
    about = step.body
    artifact = artifacts.get(about.artifact_id)
    if artifact is None:
        which = about.artifact_id or "that is not known yet"
        raise NothingToApprove(f"promotion {promotion_id} is about an artifact {which}, which is not registered")
    expected = about.expected_current_artifact_id
    current = artifacts.get(expected) if expected else None
    if expected and current is None:
        raise NothingToApprove(f"promotion {promotion_id} expects {expected} to serve, which is not registered")
    stated = Approval(
        promotion_id=promotion_id,
        approver=approver,
        artifact_sha256=artifact.artifact_sha256,
        manifest_sha256=artifact.manifest_sha256,
        target_env=about.target_env.value,
        expected_current_digest=current.artifact_sha256 if current is not None else expected,
        policy_digest=about.policy_sha256,
        decision_id=step.id,
        nonce=request.id,
        keyring_version=keyring,
        not_after=datetime.now(UTC).replace(microsecond=0) + valid_for,
        decision=decision.value,
        reason=reason,
    )
    return PromotionApproval(
        promotion_id=promotion_id,
        model=about.model,
        artifact_id=about.artifact_id,
        target_env=about.target_env,
        approver=approver,
        decision=decision,
        reason=reason,
        envelope=sign_approval(stated, sign, key_id).to_text(),
    )
