"""Rules promoter/v1: whether an artifact may serve in an environment.

request -> (wait for facts) -> verify the manifest's signature -> ask the policy -> sign the decision -> say it; then
`applied` when the deployment shows it, or `rejected` when the canary refuses it. Pure: no I/O, no clock, no randomness.
It must never approve a revoked artifact, one whose signature was not verified, or without an explicit allow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from ai_infra.bus.decision import NOTHING, Context, Decision, Done, Refuse, StateView, Tick, Timer, Trigger, Work
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import (
    ArtifactRegistered,
    ArtifactRevoked,
    CanaryStatus,
    DeploymentCause,
    DeploymentChanged,
    EvaluationRecorded,
    PromotionApproval,
    PromotionRequested,
    PromotionStatus,
    Reason,
    RollbackRequested,
    RolloutState,
)
from ai_infra_promoter.answer import Answer
from ai_infra_promoter.examination import consider, follow_up, forbid, is_waiting, look_again, pause, refuse, sign
from ai_infra_promoter.facts import (
    Facts,
    facts_for,
    learn_artifact,
    learn_deployment,
    learn_evaluation,
    learn_revocation,
    revocation,
)
from ai_infra_promoter.policy import threshold_of
from ai_infra_promoter.questions import (
    ASK_POLICY,
    SIGN_DECISION,
    ManifestQuestion,
    PolicyQuestion,
    SigningQuestion,
)
from ai_infra_promoter.requests import Request, expired, idempotency, known_promotion, promotion_of, why_not
from ai_infra_promoter.state import IdempotencyKey, Promotion, RevokedArtifact, UnsignedStep, key
from ai_infra_promoter.steps import first_step, may_follow, verdict

RULES: Final = "promoter/v1"

_APPLYING: Final = (DeploymentCause.PROMOTION_APPLIED, DeploymentCause.ROLLBACK)


def decide(state: StateView, trigger: Trigger, context: Context) -> Decision:
    """What follows from one trigger."""
    match trigger:
        case Event():
            return _on_event(Answer(state, Cause(trigger.id, trigger.lane)), trigger, context)
        case Tick():
            return _on_tick(Answer(state, trigger.cause), trigger, context)
        case Done():
            return _on_done(Answer(state, trigger.cause), trigger, context)


def _on_event(answer: Answer, event: Event[Any], context: Context) -> Decision:
    match event.body:
        case PromotionRequested() | RollbackRequested():
            _on_request(answer, event, context)
        case PromotionApproval() as approval:
            raise Refuse(
                Reason(
                    code="no_approvals_wanted",
                    detail=f"promotion {approval.promotion_id} does not wait for approvals: these rules ask the policy "
                    "alone",
                )
            )
        case ArtifactRegistered() as registered:
            learned = learn_artifact(answer, event)
            answer.put(learned.id, learned.record)
            look_again(answer, context, registered.model, "artifact", registered.artifact_id)
        case EvaluationRecorded() as evaluation:
            _on_evaluation(answer, event, evaluation, context)
        case DeploymentChanged() as changed:
            _on_deployment(answer, event, changed, context)
        case CanaryStatus() as status if status.state == RolloutState.REFUSED:
            _on_canary_refusal(answer, status, context)
        case ArtifactRevoked() as revoked:
            _on_revocation(answer, event, revoked, context)
        case _:
            return NOTHING
    return answer.decision()


def _on_request(answer: Answer, event: Event[Request], context: Context) -> None:
    promotion = promotion_of(event)
    known = known_promotion(answer, promotion)
    if known is not None:
        if known.said is not None:
            answer.say(known.said, (known.request,), kind="again")  # asked again: what stands is the answer
        return
    reasons = why_not(answer, event.body, promotion)
    keyed = idempotency(event.body)
    if keyed and answer.get(IdempotencyKey, keyed[0]) is None:
        answer.put(keyed[0], IdempotencyKey(promotion_id=promotion.promotion_id, request_sha256=keyed[1]))
    if reasons:
        promotion = refuse(answer, promotion, PromotionStatus.REJECTED, reasons, context)
    else:
        promotion = consider(answer, promotion, context)
    if promotion.said is None:
        said = first_step(promotion, promotion.waiting, context)
        answer.keep(replace(promotion, said=said))
        answer.say(said)


def _on_evaluation(
    answer: Answer, event: Event[EvaluationRecorded], evaluation: EvaluationRecorded, context: Context
) -> None:
    learned = learn_evaluation(answer, event)
    if learned is not None:
        answer.put(learned.id, learned.record)
        look_again(answer, context, evaluation.model, "artifact", evaluation.artifact_id)


def _on_deployment(
    answer: Answer, event: Event[DeploymentChanged], changed: DeploymentChanged, context: Context
) -> None:
    learned = learn_deployment(answer, event)
    if learned is None:
        return
    answer.put(learned.id, learned.record)
    if changed.promotion_id and changed.cause in _APPLYING:
        promotion = answer.get(Promotion, key(changed.model, changed.promotion_id))
        if promotion is not None and promotion.artifact_id == changed.stable_artifact_id:
            follow_up(answer, promotion, PromotionStatus.APPLIED, (), context)
    look_again(answer, context, changed.model, "env", changed.env.value)


def _on_canary_refusal(answer: Answer, status: CanaryStatus, context: Context) -> None:
    promotion = answer.get(Promotion, key(status.model, status.promotion_id))
    if promotion is None:
        return
    code, colon, detail = status.reason.partition(": ")
    named = bool(colon) and code.isidentifier() and code.islower()
    reason = Reason(code=code if named else "canary_refused", detail=detail if named else status.reason)
    follow_up(answer, promotion, PromotionStatus.REJECTED, (reason,), context)


def _on_revocation(answer: Answer, event: Event[ArtifactRevoked], revoked: ArtifactRevoked, context: Context) -> None:
    if answer.get(RevokedArtifact, key(revoked.model, revoked.artifact_id)) is not None:
        return
    learned = learn_revocation(event)
    answer.put(learned.id, learned.record)
    for promotion in answer.promotions_about(revoked.model, "artifact", revoked.artifact_id):
        reasons, _ = revocation(answer, promotion)
        if is_waiting(promotion):
            answer.keep(refuse(answer, promotion, PromotionStatus.REJECTED, reasons, context))
        else:
            follow_up(answer, promotion, PromotionStatus.REVOKED, reasons, context)


# -- finished work and time --------------------------------------------------------------------------------------------


def _on_done(answer: Answer, done: Done, context: Context) -> Decision:
    if done.kind == SIGN_DECISION:
        _on_signature(answer, done, context)
        return answer.decision()
    promotion = answer.get(Promotion, key(done.args.model, done.args.promotion_id))
    if promotion is None or promotion.status != PromotionStatus.PENDING:
        return NOTHING
    if forbid(answer, promotion, context) is not None:
        return answer.decision()
    if done.error is not None and done.error.retriable:
        tries = done.args.tries + 1
        timer = key("examine", str(tries), promotion.model, promotion.promotion_id)
        answer.set_timer(Timer(timer, pause(tries, context)))
    elif done.error is not None:
        failed = Reason(code=done.error.code, detail=f"{done.kind.replace('_', ' ')} failed: {done.error.message}")
        refuse(answer, promotion, PromotionStatus.REJECTED, (failed,), context)
    elif isinstance(done.args, ManifestQuestion):
        _on_manifest(answer, promotion, done, context)
    elif isinstance(done.args, PolicyQuestion):
        step = verdict(promotion, done.args, done.result, context)
        sign(answer, promotion, step, done.args.facts, context)
    return answer.decision()


def _on_manifest(answer: Answer, promotion: Promotion, done: Done, context: Context) -> None:
    """The signature was looked at; where it is good, the policy is asked. Whoever is asked answers `ASK_POLICY`."""
    facts = facts_for(answer, promotion)
    if done.result.reasons:
        refuse(answer, promotion, PromotionStatus.REJECTED, done.result.reasons, context)
        return
    if not isinstance(facts, Facts):
        refuse(answer, promotion, PromotionStatus.REJECTED, facts, context)
        return
    question = PolicyQuestion(
        promotion_id=promotion.promotion_id,
        model=promotion.model,
        artifact_id=promotion.artifact_id,
        env=promotion.env,
        kind=promotion.kind,
        requested_by=promotion.requested_by,
        manifest_signature_id=done.args.manifest_signature_id,
        evaluation_id=facts.evaluation.evaluation_id if facts.evaluation else None,
        score_e6=facts.evaluation.score_e6 if facts.evaluation else None,
        threshold_e6=threshold_of(context.policy.document, promotion.env),
        served_before=facts.served_before,
        facts=facts.causes,
        tries=done.args.tries,
    )
    answer.ask(Work(ASK_POLICY, key(promotion.model, promotion.promotion_id), question))


def _on_signature(answer: Answer, done: Done, context: Context) -> None:
    question: SigningQuestion = done.args
    step = question.step
    unsigned = key(step.model, step.promotion_id, step.status.value)
    promotion = answer.get(Promotion, key(step.model, step.promotion_id))
    if promotion is None or not may_follow(promotion.status, step.status):
        answer.forget(UnsignedStep, unsigned)
        return
    if step.status == PromotionStatus.APPROVED and forbid(answer, promotion, context) is not None:
        answer.forget(UnsignedStep, unsigned)  # signed is not yet said: what became known since still counts
        return
    if done.error is not None:
        _sign_later(answer, promotion, done, context)
        return
    answer.forget(UnsignedStep, unsigned)
    said = replace(step, decision_envelope=done.result.envelope)
    answer.say(said, (promotion.request, *question.facts))
    answer.keep(replace(promotion, status=step.status, waiting=(), said=said))


def _sign_later(answer: Answer, promotion: Promotion, done: Done, context: Context) -> None:
    """The promotion key doesn't answer: say so once, and ask again, with growing pauses, until it does."""
    step = done.args.step
    unsigned = key(step.model, step.promotion_id, step.status.value)
    known = answer.get(UnsignedStep, unsigned)
    if known is None and promotion.said is not None and done.error is not None:
        why = Reason(code="signing_unavailable", detail=f"{done.error.message}; it is tried again")
        answer.say(replace(promotion.said, reasons=(why,)), (promotion.request,), kind="unsigned")
    tries = 1 if known is None else known.tries + 1
    answer.put(unsigned, UnsignedStep(question=done.args, tries=tries))
    timer = key("sign", step.status.value, step.model, step.promotion_id)
    answer.set_timer(Timer(timer, pause(tries, context)))


def _on_tick(answer: Answer, tick: Tick, context: Context) -> Decision:
    purpose, detail, model, promotion_id = tick.key.split("/", 3)
    promotion = answer.get(Promotion, key(model, promotion_id))
    if promotion is None:
        return NOTHING
    if purpose == "sign":
        unsigned = answer.get(UnsignedStep, key(model, promotion_id, detail))
        if unsigned is not None:
            answer.ask(Work(SIGN_DECISION, key(model, promotion_id, detail), unsigned.question))
    elif purpose == "examine" and promotion.status == PromotionStatus.PENDING:
        answer.keep(consider(answer, promotion, context, tries=int(detail)))
    elif is_waiting(promotion):
        lapsed = expired(promotion, context)
        status = PromotionStatus.EXPIRED if lapsed else PromotionStatus.REJECTED
        answer.keep(refuse(answer, promotion, status, (*lapsed, *promotion.waiting), context))
    return answer.decision()
