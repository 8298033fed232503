"""What becomes known in a lane, and what of it a promotion still lacks. Pure.

A request, the artifact, its evaluation and what serves arrive on different topics, in no order between them: what the
requester saw may not have been heard here yet. So a promotion waits for facts, a bounded time, before it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from ai_infra.bus.decision import Put, Refuse, StateView
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import (
    ArtifactRegistered,
    ArtifactRevoked,
    DeploymentCause,
    DeploymentChanged,
    EvaluationRecorded,
    PromotionKind,
    Reason,
)
from ai_infra_promoter.state import (
    KEPT_EVALUATIONS,
    KEPT_SERVED,
    KEPT_SIGNATURES,
    EvaluationFact,
    Evaluations,
    KnownArtifact,
    Promotion,
    RevokedArtifact,
    Serving,
    key,
)

MAX_ID_BYTES: Final = 128


def learn_artifact(state: StateView, event: Event[ArtifactRegistered]) -> Put:
    """An artifact, or one more attestation of it: the newest manifest signature counts."""
    body = event.body
    record_id = key(body.model, body.artifact_id)
    known = state.get(KnownArtifact, record_id)
    ids = known.manifest_signature_ids if known else ()
    if body.manifest_signature_id not in ids:
        ids = (*ids, body.manifest_signature_id)[-KEPT_SIGNATURES:]
    record = KnownArtifact(
        version=body.version,
        artifact_sha256=body.artifact_sha256,
        manifest_sha256=body.manifest_sha256,
        manifest_signature_ids=ids,
        envelope=body.manifest_signature.envelope,
        signer_id=body.manifest_signature.signer_id,
        registered=Cause(event.id, event.lane),
    )
    return Put(record_id, record)


def learn_evaluation(state: StateView, event: Event[EvaluationRecorded]) -> Put | None:
    """An evaluation; None where one of that id is known already (an evaluation is never replaced).

    Raises `Refuse` for one that no threshold can be compared with.
    """
    body = event.body
    if not 0 <= body.score_e6 <= 1_000_000:
        raise Refuse(_reason("bad_score", f"expected a score of 0 to 1000000 millionths, got {body.score_e6}"))
    check_id("evaluation_id", body.evaluation_id)
    record_id = key(body.model, body.artifact_id)
    known = state.get(Evaluations, record_id)
    items = known.items if known else ()
    if any(item.evaluation_id == body.evaluation_id for item in items):
        return None
    fact = EvaluationFact(
        evaluation_id=body.evaluation_id, score_e6=body.score_e6, recorded=Cause(event.id, event.lane)
    )
    return Put(record_id, Evaluations(items=(*items, fact)[-KEPT_EVALUATIONS:]))


def learn_revocation(event: Event[ArtifactRevoked]) -> Put:
    """An artifact that must not serve any more."""
    body = event.body
    return Put(
        key(body.model, body.artifact_id), RevokedArtifact(reason=body.reason, revoked=Cause(event.id, event.lane))
    )


def learn_deployment(state: StateView, event: Event[DeploymentChanged]) -> Put | None:
    """What serves from now on; None where a newer revision is known.

    A rollback to an artifact forgets what served after it, so that the next rollback goes further back, not forth.
    """
    body = event.body
    record_id = key(body.model, body.env.value)
    known = state.get(Serving, record_id)
    if known is not None and body.revision <= known.revision:
        return None
    before = known.before if known else ()
    served = known.served if known else ()
    stable = body.stable_artifact_id
    previous = known.stable_artifact_id if known else body.previous_stable_artifact_id
    if stable != previous:
        if body.cause == DeploymentCause.ROLLBACK and stable in before:
            before = before[: _last_index(before, stable)]
        elif previous is not None:
            before = (*before, previous)[-KEPT_SERVED:]
    if stable is not None:
        served = (*(s for s in served if s != stable), stable)[-KEPT_SERVED:]
    record = Serving(
        revision=body.revision,
        stable_artifact_id=stable,
        promotion_id=body.promotion_id,
        before=before,
        served=served,
        changed=Cause(event.id, event.lane),
    )
    return Put(record_id, record)


def _last_index(items: tuple[str, ...], item: str | None) -> int:
    return max(i for i, each in enumerate(items) if each == item)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a promotion can be decided on."""

    artifact: KnownArtifact
    evaluation: EvaluationFact | None
    served_before: bool
    serving: Cause | None
    """For a rollback: what served when its target was looked for."""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """The events that they come from."""
        evaluated = (self.evaluation.recorded,) if self.evaluation else ()
        return (self.artifact.registered, *evaluated, *((self.serving,) if self.serving else ()))


def target(state: StateView, promotion: Promotion) -> Promotion | tuple[Reason, ...]:
    """The promotion with its artifact; or why it isn't known (yet) what a rollback goes back to.

    A rollback to "the one before" is bound to what served when that was found out: if something else serves by the time
    the canary applies it, "the one before" would be another.
    """
    return promotion if promotion.kind != PromotionKind.ROLLBACK else _rollback_target(state, promotion)


def _rollback_target(state: StateView, promotion: Promotion) -> Promotion | tuple[Reason, ...]:
    serving = state.get(Serving, key(promotion.model, promotion.env.value))
    where = f"{promotion.model} in {promotion.env}"
    if serving is None or serving.stable_artifact_id is None:
        return (_reason("nothing_serves", f"nothing serves as {where}, so there is nothing to go back from"),)
    if promotion.named_target:
        return _named_target(serving, promotion, where)
    expected = promotion.expected_current_artifact_id
    if expected is not None and expected != serving.stable_artifact_id:
        return (
            _reason(
                "stale",
                f"expected {expected or 'nothing'} to serve as {where}, but {serving.stable_artifact_id} does "
                f"(revision {serving.revision}); look again and ask again",
            ),
        )
    if not serving.before:
        return (_reason("nothing_before", f"{serving.stable_artifact_id} is the first that served as {where}"),)
    return replace(
        promotion,
        artifact_id=serving.before[-1],
        expected_current_artifact_id=serving.stable_artifact_id,
    )


def _named_target(serving: Serving, promotion: Promotion, where: str) -> Promotion | tuple[Reason, ...]:
    if promotion.artifact_id == serving.stable_artifact_id:
        return (
            _reason(
                "serves_already",
                f"artifact {promotion.artifact_id} is what serves as {where} (revision {serving.revision}); there is "
                "nothing to go back from",
            ),
        )
    if promotion.artifact_id not in serving.served:
        return (
            _reason(
                "never_served",
                f"artifact {promotion.artifact_id} never served as {where}; a rollback goes to what did, anything else "
                "is a promotion",
            ),
        )
    return promotion


def facts_for(state: StateView, promotion: Promotion) -> Facts | tuple[Reason, ...]:
    """What the promotion is decided on, or everything that is missing."""
    record_id = key(promotion.model, promotion.artifact_id)
    artifact = state.get(KnownArtifact, record_id)
    evaluations = state.get(Evaluations, record_id)
    serving = state.get(Serving, key(promotion.model, promotion.env.value))
    missing: list[Reason] = []
    if artifact is None:
        missing.append(
            _reason(
                "artifact_unknown",
                f"artifact {promotion.artifact_id} of model {promotion.model} is not registered; look at "
                "`ai-infra artifact list`",
            )
        )
    elif promotion.manifest_signature_id not in {None, *artifact.manifest_signature_ids}:
        missing.append(
            _reason(
                "manifest_signature_unknown",
                f"artifact {promotion.artifact_id} carries no manifest signature {promotion.manifest_signature_id}; "
                f"its newest is {artifact.manifest_signature_ids[-1]}",
            )
        )
    evaluation = _evaluation(evaluations, promotion.evaluation_id)
    if evaluation is None and promotion.kind != PromotionKind.ROLLBACK:
        missing.append(
            _reason(
                "evaluation_missing",
                f"no evaluation of artifact {promotion.artifact_id} is known; record one and ask again"
                if promotion.evaluation_id is None
                else f"evaluation {promotion.evaluation_id} of artifact {promotion.artifact_id} is not among its "
                f"newest {KEPT_EVALUATIONS}",
            )
        )
    if missing or artifact is None:
        return tuple(missing)
    served = serving is not None and promotion.artifact_id in serving.served
    return Facts(
        artifact=artifact,
        evaluation=evaluation,
        served_before=served,
        serving=serving.changed if serving is not None and promotion.kind == PromotionKind.ROLLBACK else None,
    )


def revocation(state: StateView, promotion: Promotion) -> tuple[tuple[Reason, ...], tuple[Cause, ...]]:
    """Why the artifact must not serve and which event said so, if it was revoked."""
    found = state.get(RevokedArtifact, key(promotion.model, promotion.artifact_id))
    if found is None:
        return (), ()
    reason = _reason("artifact_revoked", f"artifact {promotion.artifact_id} was revoked: {found.reason}")
    return (reason,), (found.revoked,) if found.revoked else ()


def check_id(name: str, value: str | None) -> None:
    """Raises `Refuse` for what cannot be an id: it goes into what the promotion key signs, which has little room."""
    if value is not None and (len(value.encode()) > MAX_ID_BYTES or "/" in value):
        raise Refuse(_reason(f"bad_{name}", f"expected at most {MAX_ID_BYTES} bytes without '/', got {value[:200]!r}"))


def _evaluation(evaluations: Evaluations | None, wanted: str | None) -> EvaluationFact | None:
    items = evaluations.items if evaluations else ()
    if wanted is None:
        return items[-1] if items else None
    return next((item for item in items if item.evaluation_id == wanted), None)


def _reason(code: str, detail: str) -> Reason:
    return Reason(code=code, detail=detail)
