"""The steps of a promotion: which may follow which, and what each says. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ai_infra.bus.decision import Context
from ai_infra.bus.fitting import fitted
from ai_infra.events.generated import PromotionDecided, PromotionStatus, Reason
from ai_infra_promoter.questions import PolicyAnswer, PolicyQuestion
from ai_infra_promoter.state import Promotion

_PENDING: Final = PromotionStatus.PENDING
_APPROVED: Final = PromotionStatus.APPROVED
_APPLIED: Final = PromotionStatus.APPLIED
_REJECTED: Final = PromotionStatus.REJECTED
_EXPIRED: Final = PromotionStatus.EXPIRED
_REVOKED: Final = PromotionStatus.REVOKED

MAY_FOLLOW: Final = {
    _PENDING: frozenset({_APPROVED, _REJECTED, _EXPIRED}),
    _APPROVED: frozenset({_APPLIED, _REJECTED, _REVOKED}),  # rejected: the canary refused the compare-and-swap
    _APPLIED: frozenset({_REVOKED}),
}
_ENVELOPE_BYTES: Final = 8 << 10
"""What is kept free for the signature of a step: it signs at most 4 KiB, and is base64."""

ONE_PHASE: Final = (100,)
NO_VERIFIER: Final = "urn:ai-infra:verifier:promoter"
"""Who judged where no policy was asked: what the promoter checks itself (facts, signature, expiry)."""


def may_follow(before: PromotionStatus, after: PromotionStatus) -> bool:
    """Whether a promotion may go from one status to the other."""
    return after in MAY_FOLLOW.get(before, frozenset())


def first_step(promotion: Promotion, reasons: tuple[Reason, ...], context: Context) -> PromotionDecided:
    """`pending`: the request was heard; `reasons` say what it waits for."""
    return _step(promotion, PromotionStatus.PENDING, reasons, context)


def refusal(
    promotion: Promotion, status: PromotionStatus, reasons: tuple[Reason, ...], context: Context
) -> PromotionDecided:
    """`rejected` or `expired` for reasons that no policy was asked about."""
    return _step(promotion, status, reasons, context)


def verdict(promotion: Promotion, question: PolicyQuestion, answer: PolicyAnswer, context: Context) -> PromotionDecided:
    """`approved` or `rejected`, as the policy answered, with everything that the answer rests on."""
    status = PromotionStatus.APPROVED if answer.allowed else PromotionStatus.REJECTED
    return _step(
        promotion,
        status,
        answer.reasons,
        context,
        verifier_id=answer.verifier_id,
        policy_answer_json=answer.answer_json,
        fallback=answer.fallback,
        evaluation_id=question.evaluation_id,
        score_e6=question.score_e6,
        threshold_e6=answer.threshold_e6,
        manifest_signature_id=question.manifest_signature_id,
    )


def later_step(
    said: PromotionDecided, status: PromotionStatus, reasons: tuple[Reason, ...], context: Context
) -> PromotionDecided:
    """A step after the decision: everything that was judged stays as it was said; it is signed anew."""
    step = replace(said, status=status, reasons=reasons, decision_envelope=None, rules=context.rules)
    return fitted(step, room=_ENVELOPE_BYTES)


def _step(
    promotion: Promotion,
    status: PromotionStatus,
    reasons: tuple[Reason, ...],
    context: Context,
    *,
    verifier_id: str = NO_VERIFIER,
    policy_answer_json: str = "{}",
    fallback: bool = False,
    evaluation_id: str | None = None,
    score_e6: int | None = None,
    threshold_e6: int | None = None,
    manifest_signature_id: str | None = None,
) -> PromotionDecided:
    step = PromotionDecided(
        promotion_id=promotion.promotion_id,
        model=promotion.model,
        artifact_id=promotion.artifact_id,
        target_env=promotion.env,
        status=status,
        kind=promotion.kind,
        reasons=reasons,
        verifier_id=verifier_id,
        policy_answer_json=policy_answer_json,
        policy_version=context.policy.version,
        policy_sha256=context.policy.sha256,
        fallback=fallback,
        evaluation_id=evaluation_id,
        score_e6=score_e6,
        threshold_e6=threshold_e6,
        manifest_signature_id=manifest_signature_id,
        approvals=(),
        expected_current_artifact_id=promotion.expected_current_artifact_id,
        plan_percent=ONE_PHASE,
        decision_envelope=None,
        requested_by=promotion.requested_by,
        rules=context.rules,
    )
    return fitted(step, room=_ENVELOPE_BYTES)
