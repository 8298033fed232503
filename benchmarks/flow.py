"""How long an orchestrator waits: from `artifact.produced` to a registered artifact, from a request to a promotion.

Registry, promoter and canary run as processes of their own; the artifacts, manifests and provenance are real, small,
and in the real S3. One at a time says how long one waits; many at once says what a burst does.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ai_infra.devstack import Stack
from ai_infra.events.compose import SignedRecord, uuid7
from ai_infra.events.event import Unverified
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    DatasetRef,
    DeploymentChanged,
    Environment,
    EvaluationRecorded,
    EventRefused,
    PromotionDecided,
    PromotionRequested,
    PromotionStatus,
)
from ai_infra.manifest.provenance import Run, provenance_statement
from ai_infra.manifest.training import TrainingManifest
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.trust.provenance import builder_id, sign_provenance
from benchmarks.answers import Answers
from benchmarks.figure import Figure, latencies
from benchmarks.speaker import Flood, Speaker
from benchmarks.waiting import ready

DATASET = DatasetRef(id="digits", checksum="sha256:" + "b" * 64, version="1", uri="s3://datasets/digits.csv")
ARTIFACT_BYTES = 64 * 1024
MODELS = 16
BURST = 32
REGISTRATION_LIMIT_MS = 500.0
PROMOTION_LIMIT_MS = 2_000.0


class Workshop:
    """Makes artifacts as a trainer does: bytes, manifest and signed provenance in S3, and the event about them."""

    def __init__(self, settings: Settings, objects: ObjectStore) -> None:
        self._trainer = Speaker(settings, "trainer-1", counted=True)
        self._objects = objects
        self._bucket = settings.objects.models_bucket

    def produce(self, number: int) -> tuple[ArtifactProduced, SignedRecord]:
        model, content = f"bench-{number % MODELS}", secrets.token_bytes(ARTIFACT_BYTES)
        sha256 = hashlib.sha256(content).hexdigest()
        uri = f"s3://{self._bucket}/models/{model}/{sha256}.tar"
        self._objects.put_once(uri, content)
        now = datetime.now(UTC).replace(microsecond=0)
        manifest = TrainingManifest.of(
            model=model,
            template="https://example.org/templates/digits/v1",
            code_ref="git+https://example.org/models/digits@" + "a" * 40,
            container_digest=None,
            dataset_refs=[DATASET],
            hyperparams={"c": 0.1},
            seed=number,
            training_cmd=["python", "train.py"],
            environment={},
            metrics={"accuracy": 0.97},
            artifact_uri=uri,
            artifact_sha256=sha256,
            artifact_bytes=len(content),
            created_at=now,
        )
        manifest_uri = f"s3://{self._bucket}/manifests/{manifest.sha256}.json"
        self._objects.put_once(manifest_uri, manifest.to_bytes())
        builder = builder_id(self._trainer.session.service)
        run = Run(builder_id=builder, started_on=now, finished_on=now, manifest_uri=manifest_uri)
        envelope = sign_provenance(provenance_statement(manifest, run), self._trainer.session, requested_by="bench")
        body = ArtifactProduced(
            artifact_id=manifest.artifact_id,
            model=model,
            job_id=None,
            artifact_uri=uri,
            artifact_sha256=sha256,
            artifact_bytes=len(content),
            manifest_uri=manifest_uri,
            manifest_sha256=manifest.sha256,
            provenance=envelope.to_text(),
            input_checksum=manifest.input_checksum,
            rules="trainer/v1",
        )
        return body, self._trainer.say(body)


def measure_registration(
    stack: Stack, settings: Settings, samples: int, progress: Callable[[str], None]
) -> list[Figure]:
    """From the append of artifact.produced to the committed artifact.registered."""
    progress("starting the registry …")
    stack.start_service("registry")
    ready(stack, "registry", lanes=settings.log.lanes)
    flood, answers = Flood.open(settings), Answers(settings, _REGISTRY_SAYS)
    try:
        with ObjectStore(settings) as objects:
            workshop = Workshop(settings, objects)
            _register(workshop, flood, answers, MODELS)  # each model, lane and connection once: not measured
            progress(f"registration, {samples} artifacts one at a time …")
            alone = [seconds for n in range(samples) for seconds in _register(workshop, flood, answers, 1, n)]
            progress(f"registration, {BURST} artifacts at once …")
            burst = _register(workshop, flood, answers, BURST)
    finally:
        answers.close()
        stack.stop_service("registry")
    what = "artifact.produced to committed artifact.registered"
    limit = f"p95 at most {REGISTRATION_LIMIT_MS:.0f} ms (aim: 50)"
    return [
        *latencies("registration", what, alone, limit_ms=REGISTRATION_LIMIT_MS, limit=limit),
        *latencies(f"registration, {BURST} at once", what, burst, limit_ms=None, limit=""),
    ]


def measure_promotion(stack: Stack, settings: Settings, samples: int, progress: Callable[[str], None]) -> list[Figure]:
    """From the append of promotion.requested to the committed decision, and on to the changed deployment."""
    services = ("registry", "promoter", "canary")
    progress("starting registry, promoter and canary …")
    flood = Flood.open(settings)
    orchestrator = Speaker(settings, "orchestrator-1", counted=False)
    artifacts: list[ArtifactProduced] = []
    decided: list[float] = []
    deployed: list[float] = []
    try:
        for service in services:
            stack.start_service(service)
        for service in services:
            ready(stack, service, lanes=settings.log.lanes)
        registrations = Answers(settings, _REGISTRY_SAYS)
        answers = Answers(settings, (PromotionDecided.TOPIC, DeploymentChanged.TOPIC, EventRefused.TOPIC))
        with ObjectStore(settings) as objects:
            workshop = Workshop(settings, objects)
            made = [workshop.produce(n) for n in range(samples + MODELS)]
            flood.send([record for _, record in made])
            registrations.wait(_registered, len(made))
            artifacts += [body for body, _ in made]
        registrations.close()
        flood.send([orchestrator.say(_evaluation(a)) for a in artifacts])
        progress(f"promotion, {samples} requests one at a time …")
        for number, artifact in enumerate(artifacts):
            request = _request(artifact)
            appended = flood.send_one(orchestrator.say(request))
            found = answers.wait(lambda u, b, r=request: _promoted(r, b), 2)  # type: ignore[misc]
            if number >= MODELS:  # each model once is not measured
                decided.append(found["decided"] - appended)
                deployed.append(found["deployed"] - appended)
        answers.close()
    finally:
        for service in services:
            stack.stop_service(service)
    limit = f"p95 at most {PROMOTION_LIMIT_MS:.0f} ms"
    return [
        *latencies(
            "promotion decided",
            "promotion.requested to committed promotion.decided (approved)",
            decided,
            limit_ms=PROMOTION_LIMIT_MS,
            limit=limit,
        ),
        *latencies(
            "promotion deployed",
            "promotion.requested to committed deployment.changed",
            deployed,
            limit_ms=PROMOTION_LIMIT_MS,
            limit=limit,
        ),
    ]


_REGISTRY_SAYS = (ArtifactRegistered.TOPIC, ArtifactRefused.TOPIC, EventRefused.TOPIC)


def _register(workshop: Workshop, flood: Flood, answers: Answers, number: int, first: int = 0) -> list[float]:
    made = [workshop.produce(first + n) for n in range(number)]
    if number == 1:
        appended = {made[0][0].artifact_id: flood.send_one(made[0][1])}
    else:
        began = min(flood.send_one(record) for _, record in made[:1])
        flood.send([record for _, record in made[1:]])
        appended = {body.artifact_id: began for body, _ in made}
    arrived = answers.wait(_registered, number)
    return [arrived[artifact] - at for artifact, at in appended.items()]


def _registered(unverified: Unverified, body: Any) -> str | None:
    if not isinstance(body, ArtifactRegistered):
        raise TypeError(f"the registry refused a sound artifact: {body}")
    return body.artifact_id


def _promoted(request: PromotionRequested, body: Any) -> str | None:
    if isinstance(body, EventRefused):
        raise TypeError(f"a sound request was refused: {body}")
    if body.promotion_id != request.promotion_id:
        return None
    if isinstance(body, DeploymentChanged):
        return "deployed"
    if body.status in {PromotionStatus.REJECTED, PromotionStatus.EXPIRED}:
        raise TypeError(f"a sound promotion was rejected: {body.reasons}")
    return "decided" if body.status == PromotionStatus.APPROVED else None


def _evaluation(artifact: ArtifactProduced) -> EvaluationRecorded:
    return EvaluationRecorded(
        evaluation_id=uuid7(),
        artifact_id=artifact.artifact_id,
        model=artifact.model,
        dataset_ref=DATASET,
        score_e6=970_000,
        metrics_e6={"accuracy": 970_000},
        evaluator="orchestrator",
        report_uri=None,
        report_sha256=None,
    )


def _request(artifact: ArtifactProduced) -> PromotionRequested:
    return PromotionRequested(
        promotion_id=uuid7(),
        artifact_id=artifact.artifact_id,
        model=artifact.model,
        target_env=Environment.PROD,
        reason="benchmark",
        evaluation_id=None,
        confidence_e6=None,
        evidence=(),
        traffic_percent=None,
        manifest_signature_id=None,
        expected_current_artifact_id=None,
        idempotency_key=None,
        emergency=False,
        not_after=None,
        requested_by="orchestrator",
    )
