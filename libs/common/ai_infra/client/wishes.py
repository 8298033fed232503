"""The wishes that have a method of their own: each builds one event, says it, and returns what can be waited for."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from ai_infra.client.handles import Job, Promotion, Published
from ai_infra.errors import ConfigurationError
from ai_infra.events.body import Body
from ai_infra.events.canonical import canonical_json_numbers
from ai_infra.events.compose import uuid7
from ai_infra.events.generated import (
    ArtifactRevoked,
    DatasetRef,
    Environment,
    EvaluationRecorded,
    JobCancelRequested,
    JobQueued,
    PromotionRequested,
    Resources,
    RollbackRequested,
)

DEFAULT_TEMPLATE: Final = "https://ai-infra.dev/build-types/command/v1"
DEFAULT_RESOURCES: Final = Resources(cpu_millis=1000, memory_mib=2048)
DEFAULT_TIME_LIMIT_S: Final = 3600
_IDEMPOTENCY: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "promotion.ai-infra")


class _Says(Protocol):
    @property
    def principal(self) -> str: ...

    def publish(self, body: Body, *, subject: str | None = ...) -> Published: ...


class Wishes:
    """What a client can ask for. Needs `principal` and `publish` of the client that it is part of."""

    principal: str

    def submit_job(
        self: _Says,
        *,
        model: str,
        code_ref: str,
        training_cmd: Sequence[str],
        dataset_refs: Sequence[DatasetRef] = (),
        hyperparams: Mapping[str, Any] | None = None,
        seed: int = 0,
        template: str = DEFAULT_TEMPLATE,
        container_digest: str | None = None,
        resources: Resources = DEFAULT_RESOURCES,
        time_limit_s: int = DEFAULT_TIME_LIMIT_S,
        parent_artifacts: Sequence[str] = (),
        job_id: str | None = None,
    ) -> Job:
        """Ask for a training. With a `job_id` of your own, asking again is recognised as the same wish."""
        body = JobQueued(
            job_id=job_id or uuid7(),
            model=model,
            template=template,
            code_ref=code_ref,
            container_digest=container_digest,
            dataset_refs=tuple(dataset_refs),
            hyperparams_json=canonical_json_numbers(dict(hyperparams or {})).decode(),
            seed=seed,
            training_cmd=tuple(training_cmd),
            resources=resources,
            time_limit_s=time_limit_s,
            requested_by=self.principal,
            parent_artifacts=tuple(parent_artifacts),
        )
        return Job(body.job_id, model, self.publish(body, subject=body.job_id))

    def cancel_job(self: _Says, job: Job, *, reason: str) -> Published:
        """Ask that a job should end. `wait(job)` then says what became of it."""
        body = JobCancelRequested(job_id=job.job_id, model=job.model, reason=reason, requested_by=self.principal)
        return self.publish(body, subject=job.job_id)

    def record_evaluation(
        self: _Says,
        *,
        model: str,
        artifact_id: str,
        dataset_ref: DatasetRef,
        score: float,
        metrics: Mapping[str, float] | None = None,
        evaluator: str | None = None,
        report_uri: str | None = None,
        report_sha256: str | None = None,
        evaluation_id: str | None = None,
    ) -> Published:
        """Record an evaluation of an artifact. `score` in [0, 1] is what promotion thresholds are compared with."""
        if not 0.0 <= score <= 1.0:
            raise ConfigurationError(f"a score is between 0 and 1, not {score}")
        body = EvaluationRecorded(
            evaluation_id=evaluation_id or uuid7(),
            artifact_id=artifact_id,
            model=model,
            dataset_ref=dataset_ref,
            score_e6=_millionths(score),
            metrics_e6={name: _millionths(value) for name, value in (metrics or {}).items()},
            evaluator=evaluator or self.principal,
            report_uri=report_uri,
            report_sha256=report_sha256,
        )
        return self.publish(body, subject=artifact_id)

    def request_promotion(
        self: _Says,
        *,
        model: str,
        artifact_id: str,
        env: Environment | str,
        reason: str,
        evaluation_id: str | None = None,
        confidence: float | None = None,
        evidence: Sequence[str] = (),
        traffic_percent: int | None = None,
        manifest_signature_id: str | None = None,
        expected_current_artifact_id: str | None = None,
        idempotency_key: str | None = None,
        not_after: datetime | None = None,
        promotion_id: str | None = None,
    ) -> Promotion:
        """Ask that an artifact should serve in an environment.

        `expected_current_artifact_id`: apply only while this artifact serves ("" : while nothing does; None: whatever
        does). With an `idempotency_key`, asking again is the same promotion: it gets the same id.
        """
        if promotion_id is None and idempotency_key is not None:
            promotion_id = str(uuid.uuid5(_IDEMPOTENCY, f"{model}/{idempotency_key}"))
        body = PromotionRequested(
            promotion_id=promotion_id or uuid7(),
            artifact_id=artifact_id,
            model=model,
            target_env=environment(env),
            reason=reason,
            evaluation_id=evaluation_id,
            confidence_e6=None if confidence is None else _millionths(confidence),
            evidence=tuple(evidence),
            traffic_percent=traffic_percent,
            manifest_signature_id=manifest_signature_id,
            expected_current_artifact_id=expected_current_artifact_id,
            idempotency_key=idempotency_key,
            emergency=False,
            not_after=not_after,
            requested_by=self.principal,
        )
        published = self.publish(body, subject=body.promotion_id)
        return Promotion(body.promotion_id, model, body.target_env, published, None if promotion_id is None else body)

    def request_rollback(
        self: _Says,
        *,
        model: str,
        env: Environment | str,
        reason: str,
        to_artifact_id: str | None = None,
        expected_current_artifact_id: str | None = None,
        promotion_id: str | None = None,
    ) -> Promotion:
        """Ask to go back, to a named artifact that served before or to the one before."""
        body = RollbackRequested(
            promotion_id=promotion_id or uuid7(),
            model=model,
            target_env=environment(env),
            to_artifact_id=to_artifact_id,
            reason=reason,
            expected_current_artifact_id=expected_current_artifact_id,
            emergency=False,
            requested_by=self.principal,
        )
        published = self.publish(body, subject=body.promotion_id)
        return Promotion(body.promotion_id, model, body.target_env, published, None if promotion_id is None else body)

    def revoke_artifact(self: _Says, *, model: str, artifact_id: str, reason: str) -> Published:
        """Say that an artifact must no longer be used. Needs a role for it."""
        body = ArtifactRevoked(artifact_id=artifact_id, model=model, reason=reason, revoked_by=self.principal)
        return self.publish(body, subject=artifact_id)


def environment(env: Environment | str) -> Environment:
    """`dev`, `staging` or `prod`; `production` is read as `prod`."""
    name = "prod" if env == "production" else str(env)
    if name not in {"dev", "staging", "prod"}:
        raise ConfigurationError(f"an environment is dev, staging or prod, not {env!r}")
    return Environment(name)


def _millionths(value: float) -> int:
    return round(value * 1_000_000)
