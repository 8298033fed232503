"""Rules canary/v1: the rollout with one phase [100], guarded by compare-and-swap on (model, environment).

Pure: no I/O, no clock, no randomness. It must never apply a decision twice, apply one that rests on an outdated view,
or let an artifact serve that was revoked or that no decision approved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

from ai_infra.bus.decision import NOTHING, Context, Decision, Put, Refuse, Say, StateView
from ai_infra.bus.fitting import fitted
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import (
    ArtifactRevoked,
    CanaryStatus,
    DeploymentCause,
    DeploymentChanged,
    Environment,
    PromotionDecided,
    PromotionKind,
    PromotionStatus,
    Reason,
    RolloutState,
)
from ai_infra_canary.state import Deployment, RevokedArtifact, Rollout, artifact_key, deployment_id, rollout_id
from ai_infra_canary.verification import why_not_genuine

RULES: Final = "canary/v1"
ONE_PHASE: Final = (100,)
ENVIRONMENTS: Final = (Environment.DEV, Environment.STAGING, Environment.PROD)


PromotionKeys = Callable[[int, datetime], Mapping[str, bytes]]
"""Keyring version and time to the public keys that may sign decisions. Always the same answer to the same question."""


def decide(state: StateView, trigger: Any, context: Context, *, promotion_keys: PromotionKeys) -> Decision:
    """What follows from one event; the canary sets no timers and does no work."""
    if not isinstance(trigger, Event):
        return NOTHING
    match trigger.body:
        case PromotionDecided() as decided:
            return _on_decision(state, decided, context, promotion_keys)
        case ArtifactRevoked() as revoked:
            return _on_revocation(state, revoked, Cause(trigger.id, trigger.lane), context)
        case _:
            return NOTHING


def _on_decision(
    state: StateView, decided: PromotionDecided, context: Context, promotion_keys: PromotionKeys
) -> Decision:
    if decided.status != PromotionStatus.APPROVED:
        return NOTHING  # the other steps of a promotion change nothing of what serves
    if decided.target_env not in ENVIRONMENTS:
        raise Refuse(
            Reason(
                code="unknown_environment",
                detail=f"expected one of {', '.join(ENVIRONMENTS)}, got {decided.target_env}; this canary may be older "
                "than the promoter",
            )
        )
    answered = rollout_id(decided.model, decided.promotion_id)
    if state.get(Rollout, answered) is not None:
        return NOTHING  # said again: the answer stands
    current = state.get(Deployment, deployment_id(decided.model, decided.target_env))
    refusal = _why_not(state, decided, current) or why_not_genuine(
        decided, promotion_keys(context.keyring, context.now)
    )
    if refusal:
        # Whoever decides this again must know that the revocation had been heard: nothing else was said of it then.
        revoked = state.get(RevokedArtifact, artifact_key(decided.model, decided.artifact_id))
        causes = (revoked.revoked,) if revoked is not None and revoked.revoked is not None else ()
        status = _status(decided, RolloutState.REFUSED, refusal, context)
        return Decision(
            events=(Say(status, subject=decided.promotion_id, causes=causes),),
            state=(Put(answered, Rollout(state=RolloutState.REFUSED.value)),),
        )
    return _apply(decided, current, answered, context)


def _why_not(state: StateView, decided: PromotionDecided, current: Deployment | None) -> str:
    """Why this decision cannot be applied, as a sentence; empty when it can."""
    revoked = state.get(RevokedArtifact, artifact_key(decided.model, decided.artifact_id))
    if revoked is not None:
        return f"artifact_revoked: artifact {decided.artifact_id} was revoked: {revoked.reason}"
    if tuple(decided.plan_percent) != ONE_PHASE:
        return f"plan_not_supported: expected the one-phase plan [100], got {list(decided.plan_percent)}"
    expected = decided.expected_current_artifact_id
    serves = "" if current is None else current.stable_artifact_id
    if expected is not None and expected != serves:
        return (
            f"stale: expected {expected or 'nothing'} to serve in {decided.target_env}, but {serves or 'nothing'} does "
            f"(revision {0 if current is None else current.revision}); look again and ask again"
        )
    return ""


def _apply(decided: PromotionDecided, current: Deployment | None, answered: str, context: Context) -> Decision:
    rollback = decided.kind == PromotionKind.ROLLBACK
    revision = 1 if current is None else current.revision + 1
    previous = None if current is None else current.stable_artifact_id
    changed = DeploymentChanged(
        model=decided.model,
        env=decided.target_env,
        promotion_id=decided.promotion_id,
        revision=revision,
        stable_artifact_id=decided.artifact_id,
        candidate_artifact_id=None,
        candidate_percent=0,
        previous_stable_artifact_id=previous,
        cause=DeploymentCause.ROLLBACK if rollback else DeploymentCause.PROMOTION_APPLIED,
        reason="",
        rules=context.rules,
    )
    deployment = Deployment(
        revision=revision,
        stable_artifact_id=decided.artifact_id,
        previous_stable_artifact_id=previous,
        promotion_id=decided.promotion_id,
        held="",
    )
    return Decision(
        events=(
            Say(changed, subject=f"{decided.model}/{decided.target_env}"),
            Say(_status(decided, RolloutState.COMPLETED, "", context), subject=decided.promotion_id),
        ),
        state=(
            Put(deployment_id(decided.model, decided.target_env), deployment),
            Put(answered, Rollout(state=RolloutState.COMPLETED.value)),
        ),
    )


def _on_revocation(state: StateView, revoked: ArtifactRevoked, cause: Cause, context: Context) -> Decision:
    """Remember it; where the artifact serves, hold and alarm: what to serve instead is for people to say."""
    key = artifact_key(revoked.model, revoked.artifact_id)
    if state.get(RevokedArtifact, key) is not None:
        return NOTHING
    events: list[Say] = []
    puts = [Put(key, RevokedArtifact(reason=revoked.reason, revoked=cause))]
    for env in ENVIRONMENTS:
        current = state.get(Deployment, deployment_id(revoked.model, env))
        if current is None or current.stable_artifact_id != revoked.artifact_id:
            continue
        why = (
            f"artifact_revoked: {revoked.artifact_id} serves in {env} and was revoked ({revoked.reason}); nothing is "
            f"changed by itself: promote or roll back to another artifact"
        )
        held = Deployment(
            revision=current.revision,
            stable_artifact_id=current.stable_artifact_id,
            previous_stable_artifact_id=current.previous_stable_artifact_id,
            promotion_id=current.promotion_id,
            held=why,
        )
        puts.append(Put(deployment_id(revoked.model, env), held))
        alarm = CanaryStatus(
            model=revoked.model,
            env=env,
            promotion_id=current.promotion_id,
            artifact_id=revoked.artifact_id,
            phase=len(ONE_PHASE),
            phases_percent=ONE_PHASE,
            state=RolloutState.HOLDING,
            verdicts=(),
            counts=(),
            reason=why,
            rules=context.rules,
        )
        events.append(Say(fitted(alarm), subject=current.promotion_id, kind=env.value))
    return Decision(events=tuple(events), state=tuple(puts))


def _status(decided: PromotionDecided, state: RolloutState, reason: str, context: Context) -> CanaryStatus:
    said = CanaryStatus(
        model=decided.model,
        env=decided.target_env,
        promotion_id=decided.promotion_id,
        artifact_id=decided.artifact_id,
        phase=1,
        phases_percent=tuple(decided.plan_percent),
        state=state,
        verdicts=(),
        counts=(),
        reason=reason,
        rules=context.rules,
    )
    return fitted(said)
