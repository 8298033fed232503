"""Promotions and rollbacks: asked for, approved, decided in steps. What was applied is told by deployments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ai_infra.events.generated import PromotionApproval, PromotionDecided, PromotionRequested, RollbackRequested
from ai_infra_indexer.projection.artifacts import edge
from ai_infra_indexer.projection.rows import Mode, RowChange, Sequenced, Value, as_json

# A later step of the decision may still say something about a promotion that serves or has gone; its state is then
# what the deployment made it.
_ENDED: Final = ("reverted", "revoked")


def _asked(said: Sequenced[Any], kind: str) -> dict[str, Value]:
    body = said.body
    return {
        "model": body.model,
        "kind": kind,
        "target_env": body.target_env.value,
        "status": "requested",
        "request_reason": body.reason,
        "requested_by": body.requested_by,
        "requested_at": said.at,
        "request_event_id": said.event.id,
        "emergency": body.emergency,
        "expected_current_artifact_id": body.expected_current_artifact_id,
        "created_at": said.at,
        "updated_at": said.at,
        "first_position": said.position,
        "last_position": said.position,
    }


def requested(said: Sequenced[PromotionRequested]) -> tuple[RowChange, ...]:
    body = said.body
    row = {
        **_asked(said, "promotion"),
        "artifact_id": body.artifact_id,
        "traffic_percent": body.traffic_percent,
        "confidence_e6": body.confidence_e6,
        "evidence": as_json(body.evidence),
        "idempotency_key": body.idempotency_key,
        "not_after": body.not_after,
        "manifest_signature_id": body.manifest_signature_id,
        "evaluation_id": body.evaluation_id,
    }
    return (
        RowChange("promotions", {"promotion_id": body.promotion_id}, row, Mode.FIRST),
        edge(said, ("promotion", body.promotion_id), "promotes", ("artifact", body.artifact_id)),
    )


def rollback_requested(said: Sequenced[RollbackRequested]) -> tuple[RowChange, ...]:
    row = {**_asked(said, "rollback"), "artifact_id": said.body.to_artifact_id}
    return (RowChange("promotions", {"promotion_id": said.body.promotion_id}, row, Mode.FIRST),)


def approval(said: Sequenced[PromotionApproval]) -> tuple[RowChange, ...]:
    body = said.body
    return (
        RowChange(
            "approvals",
            {"promotion_id": body.promotion_id, "position": said.position},
            {
                "artifact_id": body.artifact_id,
                "target_env": body.target_env.value,
                "approver": body.approver,
                "decision": body.decision.value,
                "reason": body.reason,
                "envelope": body.envelope,
                "event_id": said.event.id,
                "at": said.at,
            },
            Mode.FIRST,
        ),
    )


def decided(said: Sequenced[PromotionDecided]) -> tuple[RowChange, ...]:
    body = said.body
    key: dict[str, Value] = {"promotion_id": body.promotion_id}
    facts: dict[str, Value] = {
        "artifact_id": body.artifact_id,
        "reasons": as_json(body.reasons),
        "verifier_id": body.verifier_id,
        "policy_answer": body.policy_answer_json or None,
        "policy_version": body.policy_version,
        "policy_sha256": body.policy_sha256,
        "fallback": body.fallback,
        "evaluation_id": body.evaluation_id,
        "score_e6": body.score_e6,
        "threshold_e6": body.threshold_e6,
        "manifest_signature_id": body.manifest_signature_id,
        "plan_percent": as_json(body.plan_percent),
        "decision_envelope": body.decision_envelope,
        "decided_at": said.event.time,
        "updated_at": said.at,
        "last_position": said.position,
    }
    birth: dict[str, Value] = {
        "model": body.model,
        "kind": body.kind.value,
        "target_env": body.target_env.value,
        "status": body.status.value,
        "requested_by": body.requested_by,
        "expected_current_artifact_id": body.expected_current_artifact_id,
        "created_at": said.at,
        "first_position": said.position,
    }
    detail = {
        "approvals": body.approvals,
        "policy_answer": body.policy_answer_json,
        "verifier_id": body.verifier_id,
        "policy_version": body.policy_version,
        "policy_sha256": body.policy_sha256,
        "fallback": body.fallback,
        "score_e6": body.score_e6,
        "threshold_e6": body.threshold_e6,
        "rules": body.rules,
    }
    changes = [
        RowChange("promotions", key, facts, on_insert=birth),
        # What has ended does not come back to life by a late step.
        RowChange("promotions", key, {"status": body.status.value}, Mode.SET, unless=("status", _ENDED)),
        step(said, body.promotion_id, body.status.value, as_json(body.reasons), as_json(detail)),
    ]
    if body.artifact_id:
        changes.append(edge(said, ("promotion", body.promotion_id), "promotes", ("artifact", body.artifact_id)))
    if body.evaluation_id:
        changes.append(edge(said, ("promotion", body.promotion_id), "judged_by", ("evaluation", body.evaluation_id)))
    return tuple(changes)


def step(said: Sequenced[Any], promotion_id: str, status: str, reasons: str, detail: str) -> RowChange:
    """One line of a promotion's history."""
    return RowChange(
        "promotion_steps",
        {"promotion_id": promotion_id, "position": said.position},
        {
            "status": status,
            "said_by": said.event.principal,
            "reasons": reasons,
            "detail": detail,
            "event_id": said.event.id,
            "at": said.event.time,
        },
        Mode.FIRST,
    )


RULES: Final[Mapping[type[Any], Any]] = {
    PromotionRequested: requested,
    RollbackRequested: rollback_requested,
    PromotionApproval: approval,
    PromotionDecided: decided,
}
