"""How a promotion is examined: are its facts there, may it go on, what is signed next. Pure.

Every way out of `pending` leads through `sign`: nothing is decided that the promotion key has not signed.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from ai_infra.bus.decision import Context, Timer, Work
from ai_infra.events.event import Cause
from ai_infra.events.generated import PromotionDecided, PromotionKind, PromotionStatus, Reason
from ai_infra_promoter.answer import Answer
from ai_infra_promoter.facts import facts_for, revocation, target
from ai_infra_promoter.policy import wait_seconds
from ai_infra_promoter.questions import SIGN_DECISION, VERIFY_MANIFEST, ManifestQuestion, SigningQuestion
from ai_infra_promoter.requests import expired
from ai_infra_promoter.state import KnownArtifact, Promotion, PromotionsAbout, key
from ai_infra_promoter.steps import later_step, may_follow, refusal

LONGEST_PAUSE_S: Final = 60  # between two tries of something that doesn't answer


def consider(answer: Answer, promotion: Promotion, context: Context, *, tries: int = 0) -> Promotion:
    """Begin to examine a promotion, or have it wait for what is missing. Returns it as it is now, to be kept."""
    if refused := forbid(answer, promotion, context):
        return refused
    found = target(answer, promotion)
    if isinstance(found, tuple):
        return _wait(answer, promotion, found, context)
    if refused := forbid(answer, found, context):
        return refused
    facts = facts_for(answer, found)
    if isinstance(facts, tuple):
        return _wait(answer, found, facts, context)
    _index(answer, found)
    question = ManifestQuestion(
        promotion_id=found.promotion_id,
        model=found.model,
        artifact_id=found.artifact_id,
        version=facts.artifact.version,
        artifact_sha256=facts.artifact.artifact_sha256,
        manifest_sha256=facts.artifact.manifest_sha256,
        manifest_signature_id=facts.artifact.manifest_signature_ids[-1],
        signer_id=facts.artifact.signer_id,
        envelope=facts.artifact.envelope,
        tries=tries,
    )
    answer.ask(Work(VERIFY_MANIFEST, key(found.model, found.promotion_id), question))
    return _wait_no_more(answer, found)


def forbid(answer: Answer, promotion: Promotion, context: Context) -> Promotion | None:
    """Refuse a promotion that has lapsed or whose artifact was revoked; None where it may go on."""
    if lapsed := expired(promotion, context):
        return refuse(answer, promotion, PromotionStatus.EXPIRED, lapsed, context)
    revoked, causes = revocation(answer, promotion)
    if revoked:
        return refuse(answer, promotion, PromotionStatus.REJECTED, revoked, context, causes)
    return None


def look_again(answer: Answer, context: Context, *about: str) -> None:
    """Something has become known about (model, what, id): have the promotions that waited for it all they need?"""
    for promotion in answer.promotions_about(*about):
        if is_waiting(promotion):
            answer.keep(consider(answer, promotion, context))


def is_waiting(promotion: Promotion) -> bool:
    """Whether it waits for facts."""
    return promotion.status == PromotionStatus.PENDING and bool(promotion.waiting)


def refuse(
    answer: Answer,
    promotion: Promotion,
    status: PromotionStatus,
    reasons: tuple[Reason, ...],
    context: Context,
    facts: tuple[Cause, ...] = (),
) -> Promotion:
    """End a pending promotion as `rejected` or `expired`, once that is signed. Returns it as it is now, to be kept.

    Where the artifact is not registered there are no digests that the promotion key could sign for: then the refusal is
    said at once and carries no envelope.
    """
    _index(answer, promotion)
    promotion = _wait_no_more(answer, promotion)
    step = refusal(promotion, status, reasons, context)
    if answer.get(KnownArtifact, key(promotion.model, promotion.artifact_id)) is None:
        answer.say(step, (promotion.request, *facts))
        promotion = replace(promotion, status=status, said=step)
        answer.keep(promotion)
    else:
        sign(answer, promotion, step, facts, context)
    return promotion


def follow_up(
    answer: Answer, promotion: Promotion, status: PromotionStatus, reasons: tuple[Reason, ...], context: Context
) -> None:
    """A step after the decision, where it may follow."""
    if promotion.said is not None and may_follow(promotion.status, status):
        sign(answer, promotion, later_step(promotion.said, status, reasons, context), (), context)


def sign(
    answer: Answer, promotion: Promotion, step: PromotionDecided, facts: tuple[Cause, ...], context: Context
) -> None:
    """Have a step about a registered artifact signed by the promotion key."""
    artifact = answer.get(KnownArtifact, key(promotion.model, promotion.artifact_id))
    if artifact is None:
        raise ValueError(f"artifact {promotion.artifact_id} of {promotion.model} was decided on and is not known")
    question = SigningQuestion(
        step=step,
        artifact_sha256=artifact.artifact_sha256,
        manifest_sha256=artifact.manifest_sha256,
        request=promotion.request,
        facts=facts,
        requested_at=promotion.requested_at,
        decided_at=context.now,
        keyring=context.keyring,
    )
    answer.ask(Work(SIGN_DECISION, key(promotion.model, promotion.promotion_id, step.status.value), question))


def pause(tries: int, context: Context) -> datetime:
    """When to try again: pauses double up to a minute."""
    return context.now + timedelta(seconds=min(2 ** min(tries, 10), LONGEST_PAUSE_S))


def _wait(answer: Answer, promotion: Promotion, missing: tuple[Reason, ...], context: Context) -> Promotion:
    if not promotion.waiting:
        until = context.now + timedelta(seconds=wait_seconds(context.policy.document))
        if promotion.not_after is not None:
            until = min(until, promotion.not_after)
        answer.set_timer(Timer(_facts_timer(promotion), until))
    waiting = replace(promotion, waiting=missing)
    _index(answer, waiting)
    return waiting


def _wait_no_more(answer: Answer, promotion: Promotion) -> Promotion:
    if promotion.waiting:
        answer.set_timer(Timer(_facts_timer(promotion), None))
        promotion = replace(promotion, waiting=())
        _index(answer, promotion)
    return promotion


def _facts_timer(promotion: Promotion) -> str:
    return key("facts", "-", promotion.model, promotion.promotion_id)


def _index(answer: Answer, promotion: Promotion) -> None:
    """Have the promotion found by its artifact for good, and by its environment while a rollback waits."""
    if promotion.artifact_id:
        _listed(answer, key(promotion.model, "artifact", promotion.artifact_id), promotion, wanted=True)
    if promotion.kind == PromotionKind.ROLLBACK:
        _listed(answer, key(promotion.model, "env", promotion.env.value), promotion, wanted=bool(promotion.waiting))


def _listed(answer: Answer, about: str, promotion: Promotion, *, wanted: bool) -> None:
    known = answer.get(PromotionsAbout, about)
    ids: tuple[str, ...] = known.promotion_ids if known else ()
    if wanted and promotion.promotion_id not in ids:
        answer.put(about, PromotionsAbout(promotion_ids=(*ids, promotion.promotion_id)))
    elif not wanted and promotion.promotion_id in ids:
        left = tuple(i for i in ids if i != promotion.promotion_id)
        if left:
            answer.put(about, PromotionsAbout(promotion_ids=left))
        else:
            answer.forget(PromotionsAbout, about)
