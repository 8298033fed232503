"""Jobs: what was asked for, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ai_infra.events.generated import JobCancelRequested, JobQueued, JobStatus
from ai_infra_indexer.projection.rows import Mode, RowChange, Sequenced, Value, as_json, foreign_json


def _first(said: Sequenced[Any]) -> dict[str, Value]:
    return {
        "model": said.body.model,
        "event_id": said.event.id,
        "created_at": said.at,
        "first_position": said.position,
    }


def queued(said: Sequenced[JobQueued]) -> tuple[RowChange, ...]:
    body = said.body
    spec: dict[str, Value] = {
        "template": body.template,
        "code_ref": body.code_ref,
        "container_digest": body.container_digest,
        "dataset_refs": as_json(body.dataset_refs),
        "hyperparams": foreign_json(body.hyperparams_json),
        "seed": body.seed,
        "training_cmd": as_json(body.training_cmd),
        "cpu_millis": body.resources.cpu_millis,
        "memory_mib": body.resources.memory_mib,
        "time_limit_s": body.time_limit_s,
        "requested_by": body.requested_by,
        "parent_artifacts": as_json(body.parent_artifacts),
        "status": "requested",
        "updated_at": said.at,
        "last_position": said.position,
    }
    # A job id belongs to the first who used it: the trainer refuses another request with the same id.
    return (RowChange("jobs", {"job_id": body.job_id}, {**_first(said), **spec}, Mode.FIRST),)


def status(said: Sequenced[JobStatus]) -> tuple[RowChange, ...]:
    body = said.body
    return (
        RowChange(
            "jobs",
            {"job_id": body.job_id},
            {
                "status": body.status.value,
                "attempt": body.attempt,
                "runner": body.runner or None,
                "log_uri": body.log_uri,
                "log_sha256": body.log_sha256,
                "queued_time": body.queued_time,
                "started_time": body.started_time,
                "ended_time": body.ended_time,
                "reason_code": body.reason_code,
                "reason": body.reason,
                "artifact_id": body.artifact_id,
                "exit_code": body.exit_code,
                "updated_at": said.at,
                "last_position": said.position,
            },
            on_insert=_first(said),
        ),
    )


def cancel_requested(said: Sequenced[JobCancelRequested]) -> tuple[RowChange, ...]:
    change: dict[str, Value] = {
        "cancel_requested_by": said.body.requested_by,
        "updated_at": said.at,
        "last_position": said.position,
    }
    return (RowChange("jobs", {"job_id": said.body.job_id}, change, Mode.SET),)


RULES: Final[Mapping[type[Any], Any]] = {
    JobQueued: queued,
    JobStatus: status,
    JobCancelRequested: cancel_requested,
}
