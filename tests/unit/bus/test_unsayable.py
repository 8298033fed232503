"""Texts of a sender that no answer can carry: they must cost nobody else a lane."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tests.unit.bus.lane_bench import MODEL, Bench, make_event

from ai_infra.bus.lane import Lane
from ai_infra.bus.records import PendingWork
from ai_infra.bus.service import Service, WorkKind
from ai_infra.events.body import Body
from ai_infra.events.codec import encode_body
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRevoked,
    CanaryStatus,
    Environment,
    EventRefused,
    JobCancelRequested,
    Reason,
)
from ai_infra_canary.rules import v1 as canary
from ai_infra_canary.state import Deployment, RevokedArtifact, Rollout
from ai_infra_registry.rules import v1 as registry
from ai_infra_registry.state import Artifact, Attestation, Claim, Finding, Signing, Verified, Versions, Waiting
from ai_infra_trainer.admission import Limits
from ai_infra_trainer.rules import v1 as trainer
from ai_infra_trainer.state import CancelWish, Job


def lane_of(service: Service) -> tuple[Bench, Lane]:
    bench = Bench(service)
    return bench, bench.lane


def heard(body: Body) -> Any:
    event = make_event("x")
    return replace(event, body=body, attributes=replace(event.attributes, type=body.TOPIC))


def no_work(_: Any) -> Any:
    raise AssertionError("nothing runs here")


def produced(**changes: str) -> ArtifactProduced:
    said = {
        "artifact_id": "a",
        "model": MODEL,
        "artifact_uri": "s3://models/a",
        "artifact_sha256": "0" * 64,
        "manifest_uri": "s3://models/m",
        "manifest_sha256": "1" * 64,
        "provenance": "{}",
        "input_checksum": "2" * 64,
        "rules": "",
    }
    return ArtifactProduced(**{**said, **changes}, job_id=None, artifact_bytes=1)


@pytest.mark.parametrize(
    "claim",
    [{"artifact_id": ""}, {"artifact_id": "a" * 300}, {"artifact_id": "a\nb"}, {"artifact_uri": "ü" * 24_000}],
    ids=["empty", "long", "control character", "uri as long as an event"],
)
def test_a_claim_whose_texts_no_answer_can_carry_is_refused_and_the_registry_goes_on(claim: dict[str, str]) -> None:
    bench, lane = lane_of(
        Service(
            name="registry",
            listens=(ArtifactProduced,),
            says=(ArtifactRefused, EventRefused),
            decide=registry.decide,
            rules=registry.RULES,
            records=(Versions, Artifact, Attestation, Waiting, Verified, Signing),
            work={"verify": WorkKind(run=no_work, args=Claim, result=Finding)},
        )
    )
    lane.event(heard(produced(**claim)), bench.batch)
    [(_, work)] = lane.state.all(PendingWork)
    reasons = (Reason(code="artifact_missing", detail="ü" * 60_000),) * 8
    assert lane.done(work, Finding(reasons=reasons), None, bench.batch)
    assert lane.halted is None
    assert bench.topics() == ["artifact.refused"]


def test_a_cancellation_of_a_job_with_a_name_as_long_as_an_event_does_not_stop_the_trainer() -> None:
    bench, lane = lane_of(
        Service(
            name="trainer",
            listens=(JobCancelRequested,),
            says=(EventRefused,),
            decide=trainer.rules(Limits(repositories=(), datasets=())),
            rules=trainer.RULES,
            records=(Job, CancelWish),
        )
    )
    wish = JobCancelRequested(job_id="j" * 49_000, model=MODEL, reason="", requested_by="ann")
    lane.event(heard(wish), bench.batch)
    bench.now += trainer.WISH_LIFE + timedelta(seconds=1)
    for key in list(lane.due(bench.now)):
        lane.tick(key, bench.batch)
    assert lane.halted is None
    assert bench.topics() == ["event.refused"]


def test_a_revocation_for_a_reason_as_long_as_an_event_takes_effect() -> None:
    bench, lane = lane_of(
        Service(
            name="canary",
            listens=(ArtifactRevoked,),
            says=(CanaryStatus, EventRefused),
            decide=partial(canary.decide, promotion_keys=lambda _version, _time: {}),
            rules=canary.RULES,
            records=(Deployment, RevokedArtifact, Rollout),
        )
    )
    serving = Deployment(
        revision=1, stable_artifact_id="a", previous_stable_artifact_id=None, promotion_id="p", held=""
    )
    lane.state.put(f"{MODEL}/{Environment.PROD}", serving)
    revoked = ArtifactRevoked(artifact_id="a", model=MODEL, reason="r" * 49_000, revoked_by="sender")
    assert encode_body(revoked)
    lane.event(heard(revoked), bench.batch)
    assert bench.topics() == ["canary.status"]
    assert lane.state.get(RevokedArtifact, f"{MODEL}/a") is not None
