"""Promoter and canary as processes on a real broker, asked through the SDK. The registry's part is played with its key.

What is played is one event: an artifact with a manifest signature that the real manifest key made.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tests.system.promoting import Registry, evaluate, outside_registry, promote

from ai_infra.client import (
    AnswerTimeout,
    Client,
    Environment,
    EventRefusedError,
    Promotion,
    PromotionRejectedError,
)
from ai_infra.devstack import Stack
from ai_infra.events.generated import (
    ApprovalDecision,
    CanaryStatus,
    DeploymentChanged,
    PromotionDecided,
    RolloutState,
)
from ai_infra.manifest.approval import open_approval
from ai_infra.manifest.decision import open_decision
from ai_infra.settings import Settings
from ai_infra.trust.signers import LocalSigner


@pytest.fixture(scope="module")
def registry(stack: Stack, settings: Settings) -> Iterator[Registry]:
    with outside_registry(stack, settings) as registry:
        yield registry


@pytest.fixture(scope="module")
def client(stack: Stack, settings: Settings) -> Iterator[Client]:
    for service in ("promoter", "canary"):
        stack.start_service(service)
    with Client(settings) as client:
        yield client
    for service in ("promoter", "canary"):
        stack.stop_service(service)


@pytest.fixture
def model() -> str:
    return f"promoted-{secrets.token_hex(4)}"


def test_a_promotion_is_applied_and_each_step_is_signed_by_the_promotion_key(
    client: Client, registry: Registry, stack: Stack, model: str
) -> None:
    artifact = registry.register(model)
    evaluate(client, model, artifact)
    promotion = client.request_promotion(model=model, artifact_id=artifact, env="production", reason="better")
    result = client.wait(promotion, timeout=60)
    assert (result.artifact_id, result.revision, result.env) == (artifact, 1, Environment.PROD)

    steps = client.history(PromotionDecided, model=model)
    assert [s.body.status.value for s in steps] == ["pending", "approved", "applied"]
    key = base64.b64decode((stack.directory / "keys" / "private" / "promotion-1.key").read_text())
    public = LocalSigner("promotion-1", key).public_key
    for step in steps[1:]:
        decision = open_decision(step.body.decision_envelope, public)
        assert (decision.promotion_id, decision.status) == (promotion.promotion_id, step.body.status)
    assert promotion.published is not None
    assert promotion.published.id in {c.id for c in steps[1].causes}
    assert steps[2].causes[0].id == result.deployment.id
    metrics = httpx.get(f"{stack.service_url('promoter')}/metrics", trust_env=False).text
    assert 'ai_infra_promotion_latency_seconds_count{status="approved"}' in metrics


def test_a_low_score_is_rejected_with_the_reason(client: Client, registry: Registry, model: str) -> None:
    artifact = registry.register(model)
    evaluate(client, model, artifact, score=0.5)
    promotion = client.request_promotion(model=model, artifact_id=artifact, env="prod", reason="try")
    with pytest.raises(PromotionRejectedError) as caught:
        client.wait(promotion, timeout=60)
    assert [r.code for r in caught.value.reasons] == ["score_below_threshold"]
    assert caught.value.code == "score_below_threshold"
    assert not client.history(DeploymentChanged, model=model)


def test_a_manifest_signed_by_another_key_is_never_promoted(client: Client, registry: Registry, model: str) -> None:
    artifact = registry.register(model, signed_by=LocalSigner.fresh("manifest-1"))
    evaluate(client, model, artifact)
    promotion = client.request_promotion(model=model, artifact_id=artifact, env="prod", reason="try")
    with pytest.raises(PromotionRejectedError) as caught:
        client.wait(promotion, timeout=60)
    assert [r.code for r in caught.value.reasons] == ["manifest_signature_invalid"]


def test_a_request_waits_for_the_evaluation_that_comes_after_it(client: Client, registry: Registry, model: str) -> None:
    artifact = registry.register(model)
    promotion = client.request_promotion(model=model, artifact_id=artifact, env="prod", reason="soon")
    assert promotion.published is not None
    pending = client.wait_for(promotion.published, lambda e: e if isinstance(e.body, PromotionDecided) else None)
    assert [r.code for r in pending.body.reasons] == ["evaluation_missing"]
    evaluate(client, model, artifact)
    assert client.wait(promotion, timeout=60).artifact_id == artifact


def test_a_stale_expectation_is_refused_by_the_canary(client: Client, registry: Registry, model: str) -> None:
    first = promote(client, registry, model, expected_current_artifact_id="")
    artifact = registry.register(model)
    evaluate(client, model, artifact)
    promotion = client.request_promotion(
        model=model, artifact_id=artifact, env="prod", reason="late", expected_current_artifact_id=""
    )
    with pytest.raises(PromotionRejectedError) as caught:
        client.wait(promotion, timeout=60)
    assert [r.code for r in caught.value.reasons] == ["stale"]
    assert [e.body.stable_artifact_id for e in client.history(DeploymentChanged, model=model)] == [first]


def test_asking_again_with_the_same_idempotency_key_is_one_promotion(
    client: Client, registry: Registry, model: str
) -> None:
    artifact = registry.register(model)
    evaluate(client, model, artifact)
    asked = [
        client.request_promotion(model=model, artifact_id=artifact, env="dev", reason="once", idempotency_key="run-7")
        for _ in range(3)
    ]
    results = [client.wait(p, timeout=60) for p in asked]
    late = client.request_promotion(
        model=model, artifact_id=artifact, env="dev", reason="once", idempotency_key="run-7"
    )  # all answers lie before it
    results.append(client.wait(late, timeout=60))
    assert len({r.promotion_id for r in results}) == 1
    assert len(client.history(DeploymentChanged, model=model)) == 1


def test_a_promotion_id_that_means_something_else_is_refused(client: Client, registry: Registry, model: str) -> None:
    artifact = promote(client, registry, model, promotion_id="release-1")
    other = client.request_promotion(
        model=model, artifact_id=artifact, env="dev", reason="another", promotion_id="release-1"
    )
    with pytest.raises(EventRefusedError) as caught:
        client.wait(other, timeout=60)
    assert [r.code for r in caught.value.reasons] == ["promotion_id_taken"]


def test_a_rollback_goes_back_and_a_revoked_artifact_is_not_gone_back_to(
    client: Client, registry: Registry, settings: Settings, model: str
) -> None:
    first, second = promote(client, registry, model), promote(client, registry, model)
    rollback = client.request_rollback(model=model, env="prod", reason="worse", expected_current_artifact_id=second)
    result = client.wait(rollback, timeout=60)
    assert (result.artifact_id, result.revision, result.deployment.body.cause.value) == (first, 3, "rollback")
    with Client(settings, speaking="artifact.revoked") as operator:
        revoked = operator.revoke_artifact(model=model, artifact_id=first, reason="bad data")
        held = operator.wait_for(
            revoked, lambda e: isinstance(e.body, CanaryStatus) and e.body.state == RolloutState.HOLDING and e
        )
    assert held.body.artifact_id == first
    steps = client.history(PromotionDecided, model=model)
    again = client.request_rollback(model=model, env="prod", reason="again", to_artifact_id=first)
    with pytest.raises(PromotionRejectedError) as caught:
        client.wait(again, timeout=60)
    assert [r.code for r in caught.value.reasons] == ["artifact_revoked"]
    assert steps


def test_an_approval_names_what_it_is_about_and_verifies_offline(
    client: Client, registry: Registry, settings: Settings, stack: Stack, model: str
) -> None:
    artifact = promote(client, registry, model, promotion_id="release-2")
    with Client(settings, key_id="approver-1") as approver:
        published = approver.approve("release-2", model=model, reason="seen", decision=ApprovalDecision.APPROVE)
        with pytest.raises(EventRefusedError, match="no_approvals_wanted"):
            approver.wait_for(published, lambda _: None, timeout=60)
    (event,) = client.history("promotion.approval", model=model)
    key = base64.b64decode((stack.directory / "keys" / "private" / "approver-1.key").read_text())
    approval = open_approval(event.body.envelope, LocalSigner("approver-1", key).public_key)
    assert (approval.promotion_id, approval.approver, event.body.artifact_id) == ("release-2", "approver-1", artifact)
    assert approval.not_after > datetime.now(UTC) + timedelta(days=13)


def test_an_event_that_was_sent_twice_is_heard_once(client: Client, registry: Registry, model: str) -> None:
    artifact = registry.register(model)
    evaluate(client, model, artifact)
    promotion = client.request_promotion(model=model, artifact_id=artifact, env="prod", reason="once")
    assert promotion.published is not None
    client.resend(promotion.published)
    client.wait(promotion, timeout=60)
    twice = client.history("promotion.requested", model=model)
    assert [e.hash for e in twice] == [promotion.published.hash] * 2
    later = client.request_promotion(model=model, artifact_id=artifact, env="dev", reason="after it")
    client.wait(later, timeout=60)
    steps = [e.body for e in client.history(PromotionDecided, model=model)]
    said = [s.status.value for s in steps if s.promotion_id == promotion.promotion_id]
    assert said == ["pending", "approved", "applied"]


def test_a_promotion_asked_for_elsewhere_can_be_waited_for(client: Client, registry: Registry, model: str) -> None:
    artifact = promote(client, registry, model, promotion_id="release-3")
    found = client.wait(client.promotion("release-3", model=model, env="prod"), timeout=60)
    assert found.artifact_id == artifact
    unknown = Promotion("release-unheard-of", model, Environment.PROD)
    with pytest.raises(AnswerTimeout, match="nothing was said"):
        client.wait(unknown, timeout=0.5)


def test_promotions_go_on_over_a_restart_of_both_services_and_are_applied_once(
    client: Client, registry: Registry, stack: Stack, model: str
) -> None:
    asked = []
    for number in range(6):
        artifact = registry.register(model)
        evaluate(client, model, artifact)
        asked.append(client.request_promotion(model=model, artifact_id=artifact, env="prod", reason=str(number)))
        if number in (1, 3):
            stack.restart("promoter-0" if number == 1 else "canary-0")
    assert [client.wait(p, timeout=60).promotion_id for p in asked] == [p.promotion_id for p in asked]
    changes = [e.body for e in client.history(DeploymentChanged, model=model)]
    assert [c.revision for c in changes] == [1, 2, 3, 4, 5, 6]
    assert {c.promotion_id for c in changes} == {p.promotion_id for p in asked}
