"""What came of a wish is recognised among a lane's events, in whatever order its topics are read."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from ai_infra.client.exceptions import (
    ArtifactRefusedError,
    EventRefusedError,
    JobFailedError,
    PromotionRejectedError,
)
from ai_infra.client.watches import JobWatch, PredicateWatch, PromotionWatch, answer_topics
from ai_infra.events.event import Attributes, Event, Record
from ai_infra.events.generated import (
    BODIES,
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    DeploymentCause,
    DeploymentChanged,
    Environment,
    EventRefused,
    JobStatus,
    JobStatusKind,
    ManifestSignature,
    PromotionDecided,
    PromotionKind,
    PromotionRequested,
    PromotionStatus,
    Reason,
)

NOW = datetime(2025, 1, 1, tzinfo=UTC)
NO = (Reason(code="bad_thing", detail="it is bad"),)


def event(body: Any, event_id: str = "e") -> Event[Any]:
    attributes = Attributes(
        event_id, "/t", body.TOPIC, NOW, None, "", "k", 1, b"", bytes(64), None, None, None, None, (), None
    )
    return Event(body, attributes, Record(body.TOPIC, 0, 0, 0, b"m", b"", ()), 0, "m", "0" * 64, "p", b"")


def status(kind: JobStatusKind, job: str = "j", artifact: str | None = None, reason: str = "") -> JobStatus:
    return JobStatus(
        job_id=job,
        model="m",
        status=kind,
        attempt=1,
        runner="r",
        log_uri="s3://b/log",
        log_sha256=None,
        queued_time=NOW,
        started_time=None,
        ended_time=None,
        reason_code=reason,
        reason=reason,
        artifact_id=artifact,
        exit_code=None,
        rules="trainer/v1",
    )


def registered(artifact: str, job: str | None = "j") -> ArtifactRegistered:
    return ArtifactRegistered(
        artifact_id=artifact,
        model="m",
        version=2,
        new_version=True,
        attestation=1,
        job_id=job,
        artifact_uri="",
        artifact_sha256="",
        artifact_bytes=1,
        manifest_uri="",
        manifest_sha256="",
        manifest_signature_id="",
        manifest_signature=ManifestSignature(signer_id="", signature="", ts=NOW, envelope=""),
        code_ref="",
        container_digest=None,
        dataset_refs=(),
        parent_artifacts=(),
        input_checksum="",
        builder_id="",
        metadata_json="{}",
        created_by="",
        keyring_version=1,
        rules="",
    )


def refused(event_id: str) -> EventRefused:
    return EventRefused(
        model="m", event_id=event_id, event_type="t", event_hash="", service="s", signer="k", reasons=NO, rules=""
    )


def decided(kind: PromotionStatus, promotion: str = "p", reasons: tuple[Reason, ...] = ()) -> PromotionDecided:
    return PromotionDecided(
        promotion_id=promotion,
        model="m",
        artifact_id="a",
        target_env=Environment.PROD,
        status=kind,
        kind=PromotionKind.PROMOTION,
        reasons=reasons,
        verifier_id="",
        policy_answer_json="{}",
        policy_version=0,
        policy_sha256="",
        fallback=False,
        evaluation_id=None,
        score_e6=None,
        threshold_e6=None,
        manifest_signature_id=None,
        approvals=(),
        expected_current_artifact_id=None,
        plan_percent=(100,),
        decision_envelope=None,
        requested_by="o",
        rules="",
    )


def deployed(promotion: str = "p") -> DeploymentChanged:
    return DeploymentChanged(
        model="m",
        env=Environment.PROD,
        promotion_id=promotion,
        revision=3,
        stable_artifact_id="a",
        candidate_artifact_id=None,
        candidate_percent=0,
        previous_stable_artifact_id=None,
        cause=DeploymentCause.PROMOTION_APPLIED,
        reason="",
        rules="",
    )


def test_a_job_is_done_when_it_is_completed_and_its_artifact_registered_in_any_order() -> None:
    story = [
        event(status(JobStatusKind.QUEUED)),
        event(status(JobStatusKind.COMPLETED, artifact="a")),
        event(registered("a")),
        event(registered("b", job="another")),
    ]
    for order in permutations(story[1:]):
        watch = JobWatch("j", "e1")
        assert watch.see(story[0]) is None
        found = [r for r in (watch.see(e) for e in order) if r is not None]
        assert (found[0].artifact_id, found[0].version) == ("a", 2)


@pytest.mark.parametrize("kind", [JobStatusKind.FAILED, JobStatusKind.CANCELLED, JobStatusKind.TIMED_OUT])
def test_a_job_that_ends_badly_is_an_error_with_its_reason_and_its_log(kind: JobStatusKind) -> None:
    with pytest.raises(JobFailedError, match=r"broken.*s3://b/log") as caught:
        JobWatch("j", "e1").see(event(status(kind, reason="broken")))
    assert caught.value.code == "broken"


def test_events_of_other_jobs_are_no_answer() -> None:
    watch = JobWatch("j", "e1")
    for body in (status(JobStatusKind.FAILED, job="x"), registered("a", job="x"), refused("other")):
        assert watch.see(event(body)) is None
    assert watch.seen() == "nothing was said about it yet"


def test_a_refusal_of_the_job_or_of_what_it_produced_ends_the_wait_with_every_reason() -> None:
    with pytest.raises(EventRefusedError) as caught:
        JobWatch("j", "e1").see(event(refused("e1")))
    assert caught.value.reasons == NO
    produced = ArtifactProduced(
        artifact_id="a",
        model="m",
        job_id="j",
        artifact_uri="",
        artifact_sha256="",
        artifact_bytes=1,
        manifest_uri="",
        manifest_sha256="",
        provenance="",
        input_checksum="",
        rules="",
    )
    for order in ((produced, refused("made")), (refused("made"), produced)):
        watch = JobWatch("j", "e1")
        first, second = (event(body, "made") for body in order)
        assert watch.see(first) is None
        with pytest.raises(EventRefusedError):
            watch.see(second)
    no = ArtifactRefused(
        artifact_id="a", model="m", job_id="j", artifact_uri="", artifact_sha256="", reasons=NO, rules=""
    )
    with pytest.raises(ArtifactRefusedError, match="bad_thing: it is bad"):
        JobWatch("j", "e1").see(event(no))


def test_a_promotion_is_done_when_it_is_applied_and_its_deployment_is_there_in_any_order() -> None:
    story = [event(decided(PromotionStatus.APPLIED)), event(deployed())]
    for order in permutations(story):
        watch = PromotionWatch("p", "e1")
        assert watch.see(event(decided(PromotionStatus.APPROVED))) is None
        assert watch.see(event(deployed("other"))) is None
        found = [r for r in (watch.see(e) for e in order) if r is not None]
        assert (found[0].artifact_id, found[0].revision) == ("a", 3)


def asked(artifact: str = "a") -> PromotionRequested:
    return PromotionRequested(
        promotion_id="p",
        artifact_id=artifact,
        model="m",
        target_env=Environment.PROD,
        reason="r",
        evaluation_id=None,
        confidence_e6=None,
        evidence=(),
        traffic_percent=None,
        manifest_signature_id=None,
        expected_current_artifact_id=None,
        idempotency_key="k",
        emergency=False,
        not_after=None,
        requested_by="o",
    )


def test_a_promotion_that_was_asked_for_before_has_the_answers_of_then() -> None:
    story = [event(decided(PromotionStatus.APPLIED)), event(deployed()), event(asked(), "e0")]
    for order in permutations(story):
        watch = PromotionWatch("p", "e1", asked())
        found = [r for r in (watch.see(e) for e in (*order, event(asked(), "e1"))) if r is not None]
        assert found[0].revision == 3


def test_what_was_asked_under_the_id_of_another_promotion_waits_for_its_own_refusal() -> None:
    story = [event(decided(PromotionStatus.APPLIED)), event(deployed()), event(asked("another"), "e0")]
    for order in permutations(story):
        watch = PromotionWatch("p", "e1", asked())
        assert [watch.see(e) for e in (*order, event(asked(), "e1"), event(refused("e0")))] == [None] * 5
        with pytest.raises(EventRefusedError):
            watch.see(event(refused("e1")))


@pytest.mark.parametrize("kind", [PromotionStatus.REJECTED, PromotionStatus.EXPIRED, PromotionStatus.REVOKED])
def test_a_promotion_that_ends_badly_is_an_error_with_every_reason(kind: PromotionStatus) -> None:
    watch = PromotionWatch("p", "e1")
    assert watch.see(event(decided(PromotionStatus.PENDING, reasons=NO))) is None
    assert "bad_thing" in watch.seen()
    with pytest.raises(PromotionRejectedError) as caught:
        watch.see(event(decided(kind, reasons=NO)))
    assert (caught.value.code, caught.value.reasons) == ("bad_thing", NO)


def test_a_predicate_answers_with_what_it_returns_and_none_and_false_are_no_answer() -> None:
    watch = PredicateWatch("e1", ("job.status",), lambda e: e.id if isinstance(e.body, JobStatus) else False)
    assert watch.see(event(registered("a"))) is None
    assert watch.see(event(refused("e2"))) is None
    assert watch.see(event(status(JobStatusKind.QUEUED), "s1")) == "s1"
    with pytest.raises(EventRefusedError):
        watch.see(event(refused("e1")))


@pytest.mark.parametrize("event_type", sorted(BODIES))
def test_every_event_type_can_at_least_be_answered_with_a_refusal(event_type: str) -> None:
    topics = answer_topics(event_type)
    assert "event.refused" in topics
    assert set(topics) <= set(BODIES)
