"""How a request becomes a promotion: what is refused at once, what is a duplicate, what is remembered. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ai_infra.bus.decision import Context, Refuse, StateView
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.codec import encode_body
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import (
    PromotionKind,
    PromotionRequested,
    PromotionStatus,
    Reason,
    RollbackRequested,
)
from ai_infra_promoter.facts import check_id
from ai_infra_promoter.policy import ENVIRONMENTS
from ai_infra_promoter.state import IdempotencyKey, Promotion, key

Request = PromotionRequested | RollbackRequested

_IDS: Final = (
    "promotion_id",
    "artifact_id",
    "to_artifact_id",
    "evaluation_id",
    "manifest_signature_id",
    "expected_current_artifact_id",
    "idempotency_key",
)


def promotion_of(event: Event[Request]) -> Promotion:
    """The promotion that an event asks for. Raises `Refuse` where it can't be one at all."""
    body = event.body
    if body.target_env not in ENVIRONMENTS:
        raise Refuse(
            Reason(
                code="unknown_environment",
                detail=f"expected one of {', '.join(ENVIRONMENTS)}, got {body.target_env.value!r}",
            )
        )
    if not body.promotion_id:
        raise Refuse(Reason(code="bad_promotion_id", detail="expected a UUID, got an empty text"))
    for name in _IDS:
        check_id(name, getattr(body, name, None))
    rollback = isinstance(body, RollbackRequested)
    artifact_id = (body.to_artifact_id or "") if isinstance(body, RollbackRequested) else body.artifact_id
    return Promotion(
        promotion_id=body.promotion_id,
        model=body.model,
        artifact_id=artifact_id,
        env=body.target_env,
        kind=PromotionKind.ROLLBACK if rollback else PromotionKind.PROMOTION,
        status=PromotionStatus.PENDING,
        requested_by=body.requested_by,
        evaluation_id=None if isinstance(body, RollbackRequested) else body.evaluation_id,
        manifest_signature_id=None if isinstance(body, RollbackRequested) else body.manifest_signature_id,
        expected_current_artifact_id=body.expected_current_artifact_id,
        not_after=None if isinstance(body, RollbackRequested) else body.not_after,
        requested_at=event.append_time,
        request=Cause(event.id, event.lane),
        request_sha256=sha256_hex(encode_body(body)),
        named_target=bool(artifact_id),
        waiting=(),
        said=None,
    )


def known_promotion(state: StateView, promotion: Promotion) -> Promotion | None:
    """The promotion of that id, where the same was asked for before. Raises `Refuse` where something else was."""
    known = state.get(Promotion, key(promotion.model, promotion.promotion_id))
    if known is not None and known.request_sha256 != promotion.request_sha256:
        raise Refuse(
            Reason(
                code="promotion_id_taken",
                detail=f"promotion {promotion.promotion_id} was asked for before with another content; choose a new id",
            )
        )
    return known


def idempotency(body: Request) -> tuple[str, str] | None:
    """(record id, SHA-256 of what is asked whatever its promotion id) where the request carries a key."""
    if isinstance(body, RollbackRequested) or not body.idempotency_key:
        return None
    digest = sha256_hex(encode_body(replace(body, promotion_id="")))
    return key(body.model, body.idempotency_key), digest


def why_not(state: StateView, body: Request, promotion: Promotion) -> tuple[Reason, ...]:
    """Every reason for which the request is rejected whatever the facts are."""
    reasons: list[Reason] = []
    keyed = idempotency(body)
    earlier = state.get(IdempotencyKey, keyed[0]) if keyed else None
    if keyed and earlier is not None:
        same = earlier.request_sha256 == keyed[1]
        reasons.append(
            Reason(
                code="duplicate_request" if same else "idempotency_key_taken",
                detail=f"promotion {earlier.promotion_id} was asked for with this idempotency key"
                + ("; look at that one" if same else " and another content; choose a new key"),
            )
        )
    if body.emergency:
        reasons.append(
            Reason(code="no_break_glass", detail="break-glass is not offered by these rules; ask without `emergency`")
        )
    if isinstance(body, PromotionRequested) and body.traffic_percent not in {None, 100}:
        reasons.append(
            Reason(
                code="plan_not_supported",
                detail=f"expected 100 percent of traffic at once, the only plan of these rules, got "
                f"{body.traffic_percent}",
            )
        )
    if promotion.kind == PromotionKind.PROMOTION and not promotion.artifact_id:
        reasons.append(Reason(code="artifact_unknown", detail="expected the id of an artifact, got an empty text"))
    return tuple(reasons)


def expired(promotion: Promotion, context: Context) -> tuple[Reason, ...]:
    """Why the request has lapsed, if it has."""
    if promotion.not_after is None or context.now < promotion.not_after:
        return ()
    return (
        Reason(
            code="expired",
            detail=f"the request was good until {promotion.not_after.isoformat()}, it is {context.now.isoformat()}",
        ),
    )
