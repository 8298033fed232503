"""Deployments: what serves where, rollouts and their verdicts, replicas, drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ai_infra.events.generated import (
    CanaryRegression,
    CanaryStatus,
    DeploymentCause,
    DeploymentChanged,
    DriftSuggestion,
    ServingStatus,
)
from ai_infra_indexer.projection.artifacts import edge
from ai_infra_indexer.projection.promotions import step
from ai_infra_indexer.projection.rows import Mode, RowChange, Sequenced, Value, as_json

# What a deployment makes of the promotion that caused it.
_OUTCOME: Final[Mapping[DeploymentCause, str]] = {
    DeploymentCause.PROMOTION_APPLIED: "applied",
    DeploymentCause.ROLLBACK: "applied",
    DeploymentCause.PROMOTION_REFUSED: "rejected",
    DeploymentCause.AUTO_REVERTED: "reverted",
    DeploymentCause.STOPPED: "reverted",
    DeploymentCause.REVOKED: "revoked",
}


def changed(said: Sequenced[DeploymentChanged]) -> tuple[RowChange, ...]:
    body, at = said.body, said.event.time
    changes = [
        RowChange(
            "deployments",
            {"model": body.model, "env": body.env.value, "revision": body.revision},
            {
                "promotion_id": body.promotion_id,
                "stable_artifact_id": body.stable_artifact_id,
                "candidate_artifact_id": body.candidate_artifact_id,
                "candidate_percent": body.candidate_percent,
                "previous_stable_artifact_id": body.previous_stable_artifact_id,
                "cause": body.cause.value,
                "reason": body.reason,
                "changed_at": at,
                **said.said,
            },
            Mode.FIRST,
        )
    ]
    outcome = _OUTCOME.get(body.cause)
    if body.promotion_id is not None and outcome is not None:
        when: dict[str, Value] = {"applied_at": at} if outcome == "applied" else {"ended_at": at}
        change = {
            "status": outcome,
            "outcome_reason": body.reason,
            **when,
            "updated_at": said.at,
            "last_position": said.position,
        }
        changes.append(RowChange("promotions", {"promotion_id": body.promotion_id}, change, Mode.SET))
        reasons = as_json([{"code": body.cause.value, "detail": body.reason}])
        changes.append(step(said, body.promotion_id, outcome, reasons, as_json(body)))
    deployment = ("deployment", f"{body.model}/{body.env.value}/{body.revision}")
    if body.stable_artifact_id:
        changes.append(edge(said, deployment, "serves", ("artifact", body.stable_artifact_id)))
    if body.candidate_artifact_id:
        changes.append(edge(said, deployment, "tries", ("artifact", body.candidate_artifact_id)))
    if body.promotion_id is not None:
        changes.append(edge(said, deployment, "caused_by", ("promotion", body.promotion_id)))
    return tuple(changes)


def _rollout(said: Sequenced[Any], state: str, reason: str) -> tuple[RowChange, ...]:
    body = said.body
    return (
        RowChange(
            "rollout_steps",
            {"promotion_id": body.promotion_id, "position": said.position},
            {
                "model": body.model,
                "env": body.env.value,
                "artifact_id": body.artifact_id,
                "phase": body.phase,
                "state": state,
                "verdicts": as_json(body.verdicts),
                "counts": as_json(body.counts),
                "reason": reason,
                "event_id": said.event.id,
                "at": said.event.time,
            },
            Mode.FIRST,
        ),
    )


def rollout(said: Sequenced[CanaryStatus]) -> tuple[RowChange, ...]:
    return _rollout(said, said.body.state.value, said.body.reason)


def regression(said: Sequenced[CanaryRegression]) -> tuple[RowChange, ...]:
    return _rollout(said, "regression", "")


def serving(said: Sequenced[ServingStatus]) -> tuple[RowChange, ...]:
    body = said.body
    return (
        RowChange(
            "serving_replicas",
            {"model": body.model, "env": body.env.value, "replica": body.replica},
            {
                "artifact_id": body.artifact_id,
                "artifact_sha256": body.artifact_sha256,
                "manifest_signature_id": body.manifest_signature_id,
                "state": body.state.value,
                "reason": body.reason,
                "at": said.at,
                "position": said.position,
            },
        ),
    )


def drift(said: Sequenced[DriftSuggestion]) -> tuple[RowChange, ...]:
    body = said.body
    return (
        RowChange(
            "drift_suggestions",
            {"suggestion_id": body.suggestion_id},
            {
                "model": body.model,
                "env": body.env.value,
                "artifact_id": body.artifact_id,
                "window_start": body.window_start,
                "window_end": body.window_end,
                "rows": body.rows,
                "features": as_json(body.features),
                "alpha_e9": body.alpha_e9,
                "report_uri": body.report_uri,
                "report_sha256": body.report_sha256,
                "job_id": body.job_id,
                "reason": body.reason,
                "at": said.at,
                **said.said,
            },
            Mode.FIRST,
        ),
    )


RULES: Final[Mapping[type[Any], Any]] = {
    DeploymentChanged: changed,
    CanaryStatus: rollout,
    CanaryRegression: regression,
    ServingStatus: serving,
    DriftSuggestion: drift,
}
