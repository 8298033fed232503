"""The rollout with one phase: compare-and-swap on (model, environment)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ai_infra.bus.decision import Context, Decision, Refuse
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Attributes, Event, Record
from ai_infra.events.generated import (
    ArtifactRevoked,
    Environment,
    PromotionDecided,
    PromotionKind,
    PromotionStatus,
)
from ai_infra.manifest.decision import PromotionDecision, sign_decision
from ai_infra.trust.signers import LocalSigner
from ai_infra_canary.decide import RULES, decide

KEY = LocalSigner("promotion-1", bytes(range(32)))
OTHER = LocalSigner("promotion-2", bytes(range(1, 33)))
NOW = datetime(2025, 1, 1, tzinfo=UTC)
CONTEXT = Context(now=NOW, lane=0, service="canary", rules=RULES, keyring=1)


class Lane:
    """The canary's state, changed by what it decides."""

    def __init__(self) -> None:
        self.records: dict[tuple[type, str], Any] = {}

    def get(self, record_type: type, record_id: str, /) -> Any:
        return self.records.get((record_type, record_id))

    def all(self, record_type: type, /) -> Any:
        return iter([(i, r) for (t, i), r in self.records.items() if t is record_type])

    def hear(self, body: Any) -> list[Any]:
        attributes = Attributes(
            "e", "/t", body.TOPIC, NOW, None, "", "promoter-1", 1, b"", bytes(64), None, None, None, None, (), None
        )
        event = Event(body, attributes, Record(body.TOPIC, 0, 0, 0, b"m", b"", ()), 0, "m", "0" * 64, "promoter", b"")
        decision: Decision = decide(self, event, CONTEXT, promotion_keys=lambda _v, _n: {KEY.key_id: KEY.public_key})
        for change in decision.state:
            self.records[(type(change.record), change.id)] = change.record
        return [say.body for say in decision.events]


@pytest.fixture
def lane() -> Lane:
    return Lane()


def approved(promotion: str, artifact: str, **changes: Any) -> PromotionDecided:
    body = PromotionDecided(
        promotion_id=promotion,
        model="m",
        artifact_id=artifact,
        target_env=Environment.PROD,
        status=PromotionStatus.APPROVED,
        kind=PromotionKind.PROMOTION,
        reasons=(),
        verifier_id="urn:test",
        policy_answer_json="{}",
        policy_version=0,
        policy_sha256="0" * 64,
        fallback=False,
        evaluation_id=None,
        score_e6=None,
        threshold_e6=None,
        manifest_signature_id=None,
        approvals=(),
        expected_current_artifact_id=None,
        plan_percent=(100,),
        decision_envelope=None,
        requested_by="someone",
        rules="promoter/v1",
    )
    body = replace(body, **changes)
    return body if "decision_envelope" in changes else replace(body, decision_envelope=envelope(body))


def envelope(body: PromotionDecided, key: LocalSigner = KEY, **changes: Any) -> str:
    decision = PromotionDecision(
        promotion_id=body.promotion_id,
        kind=body.kind.value,
        model=body.model,
        artifact_id=body.artifact_id,
        artifact_sha256="a" * 64,
        manifest_sha256="b" * 64,
        manifest_signature_id=None,
        target_env=body.target_env.value,
        status=body.status.value,
        passed=True,
        verifier_id=body.verifier_id,
        policy_version=0,
        policy_sha256=body.policy_sha256,
        policy_answer_sha256=sha256_hex(b"{}"),
        fallback=False,
        evaluation_id=None,
        score_e6=None,
        threshold_e6=None,
        approvals=(),
        expected_current_artifact_id=body.expected_current_artifact_id,
        plan_percent=tuple(body.plan_percent),
        requested_by=body.requested_by,
        request_event_id="e",
        keyring_version=1,
        rules=body.rules,
        decided_at=NOW,
    )
    return sign_decision(replace(decision, **changes), key.sign, key.key_id).to_text()


def test_an_approved_decision_is_applied_at_once_and_its_rollout_completed(lane: Lane) -> None:
    changed, status = lane.hear(approved("p1", "A"))
    assert (changed.revision, changed.stable_artifact_id, changed.previous_stable_artifact_id) == (1, "A", None)
    assert (changed.cause, status.state) == ("promotion_applied", "completed")
    changed, _ = lane.hear(approved("p2", "B"))
    assert (changed.revision, changed.stable_artifact_id, changed.previous_stable_artifact_id) == (2, "B", "A")


def test_environments_and_models_count_their_revisions_apart(lane: Lane) -> None:
    assert lane.hear(approved("p1", "A"))[0].revision == 1
    assert lane.hear(approved("p2", "A", target_env=Environment.DEV))[0].revision == 1
    assert lane.hear(approved("p1", "A", model="n"))[0].revision == 1


@pytest.mark.parametrize(
    ("expected", "applies"),
    [(None, True), ("A", True), ("B", False), ("", False)],
)
def test_a_decision_is_applied_only_where_what_it_expects_serves(
    lane: Lane, expected: str | None, applies: bool
) -> None:
    lane.hear(approved("p1", "A"))
    said = lane.hear(approved("p2", "C", expected_current_artifact_id=expected))
    assert [type(b).__name__ for b in said] == (["DeploymentChanged", "CanaryStatus"] if applies else ["CanaryStatus"])
    assert said[-1].state == ("completed" if applies else "refused")
    assert applies or said[-1].reason.startswith("stale: ")


def test_nothing_is_expected_where_nothing_serves(lane: Lane) -> None:
    assert lane.hear(approved("p0", "A", expected_current_artifact_id="B"))[0].state == "refused"
    assert lane.hear(approved("p1", "A", expected_current_artifact_id=""))[0].revision == 1


@pytest.mark.parametrize("first", [{}, {"expected_current_artifact_id": "X"}])
def test_a_decision_said_again_is_answered_once(lane: Lane, first: dict[str, Any]) -> None:
    assert lane.hear(approved("p1", "A", **first))
    assert lane.hear(approved("p1", "A", **first)) == []
    assert lane.hear(approved("p1", "A")) == []


@pytest.mark.parametrize("status", [s for s in PromotionStatus if s != PromotionStatus.APPROVED])
def test_only_an_approval_changes_what_serves(lane: Lane, status: PromotionStatus) -> None:
    assert lane.hear(approved("p1", "A", status=status)) == []


def test_a_decision_without_the_promotion_keys_envelope_is_refused(lane: Lane) -> None:
    (status,) = lane.hear(approved("p1", "A", decision_envelope=None))
    assert status.reason.startswith("unsigned_decision: ")


def test_a_decision_signed_by_another_key_is_refused(lane: Lane) -> None:
    body = approved("p1", "A")
    (status,) = lane.hear(replace(body, decision_envelope=envelope(body, OTHER)))
    assert status.reason.startswith("bad_decision_signature: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact_id": "B"},
        {"model": "n"},
        {"target_env": "dev"},
        {"status": "rejected"},
        {"passed": False},
        {"promotion_id": "p2"},
        {"plan_percent": (10, 100)},
        {"expected_current_artifact_id": "Z"},
        {"policy_answer_sha256": "0" * 64},
        {"rules": "promoter/v9"},
    ],
)
def test_an_event_that_says_something_else_than_its_envelope_is_refused(lane: Lane, changes: dict[str, Any]) -> None:
    body = approved("p1", "A")
    (status,) = lane.hear(replace(body, decision_envelope=envelope(body, **changes)))
    assert status.reason.startswith("bad_decision_envelope: ")


def test_what_is_no_envelope_is_refused(lane: Lane) -> None:
    (status,) = lane.hear(approved("p1", "A", decision_envelope="{}"))
    assert status.reason.startswith("bad_decision_envelope: ")


def test_a_plan_of_several_phases_is_refused_and_not_shortened(lane: Lane) -> None:
    (status,) = lane.hear(approved("p1", "A", plan_percent=(10, 100)))
    assert status.reason.startswith("plan_not_supported: ")


def test_a_rollback_is_a_change_like_any_other_and_says_so(lane: Lane) -> None:
    lane.hear(approved("p1", "A"))
    lane.hear(approved("p2", "B"))
    changed, _ = lane.hear(approved("r1", "A", kind=PromotionKind.ROLLBACK, expected_current_artifact_id="B"))
    assert (changed.revision, changed.stable_artifact_id, changed.cause) == (3, "A", "rollback")


def test_a_revoked_artifact_is_refused(lane: Lane) -> None:
    assert lane.hear(ArtifactRevoked(artifact_id="A", model="m", reason="bad", revoked_by="o")) == []
    (status,) = lane.hear(approved("p1", "A"))
    assert status.reason.startswith("artifact_revoked: ")


def test_the_revocation_of_what_serves_holds_and_alarms_until_something_else_is_applied(lane: Lane) -> None:
    lane.hear(approved("p1", "A"))
    lane.hear(approved("p2", "A", target_env=Environment.STAGING))
    revoked = ArtifactRevoked(artifact_id="A", model="m", reason="bad", revoked_by="o")
    alarms = lane.hear(revoked)
    assert [(a.env, a.state, a.promotion_id) for a in alarms] == [
        ("staging", "holding", "p2"),
        ("prod", "holding", "p1"),
    ]
    assert lane.hear(revoked) == []
    assert lane.hear(approved("p3", "B"))[0].revision == 2


def test_an_environment_that_it_does_not_know_is_refused(lane: Lane) -> None:
    with pytest.raises(Refuse):
        lane.hear(approved("p1", "A", target_env=Environment.UNKNOWN))
