"""What the promoter answers to each kind of request, with the canary applying what it approves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from ai_infra.bus.decision import WorkError
from ai_infra.events.generated import Environment
from ai_infra.manifest.decision import open_decision
from ai_infra.trust.signers import LocalSigner

PROMOTION_PUBLIC_KEY = LocalSigner("promotion-1", bytes(range(32))).public_key


def serving(world: Any, *artifacts: str) -> None:
    for artifact in artifacts:
        world.register(artifact)
        world.evaluate(artifact, 950_000)
        world.request(f"p-{artifact}", artifact)
        world.settle()
        assert world.serves() == artifact


def test_a_good_artifact_is_approved_then_applied(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 900_000, evaluation="e1")
    request = world.request("p1", "A")
    world.settle()
    assert world.statuses("p1") == ["pending", "approved", "applied"]
    approved, applied = world.steps("p1")[1:]
    assert (approved.evaluation_id, approved.score_e6, approved.threshold_e6) == ("e1", 900_000, 850_000)
    assert approved.manifest_signature_id == "sig-A"
    assert approved.decision_envelope != applied.decision_envelope
    assert world.serves() == "A"
    said = world.topics["promotion.decided"]
    assert request.id in {c.id for c in said[1].causes}
    assert said[2].causes[0].id == world.topics["deployment.changed"][0].id


def test_a_score_below_the_threshold_is_rejected_and_nothing_serves(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 849_999)
    world.request("p1", "A")
    world.settle()
    assert world.statuses("p1") == ["pending", "rejected"]
    assert world.reasons("p1") == ["score_below_threshold"]
    assert world.serves() is None


def test_the_policy_document_sets_the_threshold_of_an_environment(world: Any) -> None:
    world.policy = {"promotion": {"min_score_e6": {"prod": 990_000}}}
    world.register("A")
    world.evaluate("A", 950_000)
    world.request("p1", "A")
    world.request("p2", "A", target_env=Environment.STAGING)
    world.settle()
    assert world.steps("p1")[-1].threshold_e6 == 990_000
    assert world.statuses("p1")[-1] == "rejected"
    assert world.statuses("p2")[-1] == "applied"


@pytest.mark.parametrize("late", ["artifact", "evaluation", "both"])
def test_a_request_that_is_heard_before_its_facts_waits_for_them(world: Any, late: str) -> None:
    if late == "evaluation":
        world.register("A")
    if late == "artifact":
        world.evaluate("A", 900_000)
    world.request("p1", "A")
    world.settle()
    assert world.statuses("p1") == ["pending"]
    assert world.reasons("p1")
    world.pass_time(5)
    if late != "evaluation":
        world.register("A")
    if late != "artifact":
        world.evaluate("A", 900_000)
    world.settle()
    assert world.statuses("p1") == ["pending", "approved", "applied"]
    assert not world.promoter.timers


def test_a_request_whose_facts_never_come_is_rejected_with_every_reason(world: Any) -> None:
    world.request("p1", "A")
    world.settle(timers=True)
    assert world.statuses("p1") == ["pending", "rejected"]
    assert world.reasons("p1") == ["artifact_unknown", "evaluation_missing"]


def test_a_named_evaluation_is_judged_and_not_the_newest(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 100_000, evaluation="old")
    world.evaluate("A", 990_000, evaluation="new")
    world.request("p1", "A", evaluation_id="old")
    world.request("p2", "A", evaluation_id="unheard of")
    world.settle(timers=True)
    assert world.steps("p1")[-1].score_e6 == 100_000
    assert world.statuses("p1")[-1] == "rejected"
    assert world.reasons("p2") == ["evaluation_missing"]


def test_an_artifact_whose_manifest_signature_fails_is_rejected(world: Any) -> None:
    world.bad_signatures.add("A")
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A")
    world.settle()
    assert world.statuses("p1") == ["pending", "rejected"]
    assert world.reasons("p1") == ["manifest_signature_invalid"]


def test_a_revoked_artifact_is_rejected_at_once(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    world.revoke("A")
    world.settle()
    world.request("p1", "A")
    world.settle()
    assert world.reasons("p1") == ["artifact_revoked"]


def test_a_revocation_between_policy_and_signature_still_counts(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    for topic in ("artifact.registered", "evaluation.recorded"):
        world.hear(world.promoter, topic)
    world.request("p1", "A")
    world.hear(world.promoter, "promotion.requested")
    for kind in ("verify_manifest", "ask_policy"):
        world.finish(world.promoter, (kind, "digits/p1"))
    world.revoke("A")
    world.hear(world.promoter, "artifact.revoked")
    world.settle()
    assert world.statuses("p1") == ["pending", "rejected"]
    assert world.reasons("p1") == ["artifact_revoked"]


def test_a_revocation_of_what_serves_marks_its_promotion_revoked_and_changes_nothing_by_itself(world: Any) -> None:
    serving(world, "A", "B")
    world.revoke("B")
    world.settle()
    assert world.statuses("p-B")[-1] == "revoked"
    assert world.serves() == "B"
    held = world.topics["canary.status"][-1].body
    assert (held.state.value, held.artifact_id) == ("holding", "B")


def test_a_revoked_promotion_does_not_become_applied_when_its_older_step_is_signed_later(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A")
    while not world.promoter.work:
        for topic in ("artifact.registered", "evaluation.recorded", "promotion.requested"):
            world.hear(world.promoter, topic)
    for key in (("verify_manifest", "p1"), ("ask_policy", "p1"), ("sign_decision", "p1/approved")):
        world.finish(world.promoter, (key[0], f"digits/{key[1]}"))
    while world.hear(world.canary, "promotion.decided"):
        pass
    world.hear(world.promoter, "deployment.changed")
    world.revoke("A")
    world.hear(world.promoter, "artifact.revoked")
    assert set(world.promoter.work) == {("sign_decision", "digits/p1/applied"), ("sign_decision", "digits/p1/revoked")}
    world.finish(world.promoter, ("sign_decision", "digits/p1/revoked"))
    world.settle()
    assert world.statuses("p1") == ["pending", "approved", "revoked"]


def test_a_stale_expectation_is_refused_by_the_canary_and_the_promotion_rejected(world: Any) -> None:
    serving(world, "A")
    world.register("B")
    world.evaluate("B", 990_000)
    world.request("p1", "B", expected_current_artifact_id="")
    world.settle()
    assert world.statuses("p1") == ["pending", "approved", "rejected"]
    assert world.reasons("p1") == ["stale"]
    assert world.serves() == "A"


def test_of_two_requests_that_expect_the_same_only_one_is_applied(world: Any) -> None:
    serving(world, "A")
    for artifact in ("B", "C"):
        world.register(artifact)
        world.evaluate(artifact, 990_000)
        world.request(f"p-{artifact}", artifact, expected_current_artifact_id="A")
    world.settle()
    assert sorted(world.statuses(p)[-1] for p in ("p-B", "p-C")) == ["applied", "rejected"]


def test_the_same_request_again_is_answered_with_what_stands(world: Any) -> None:
    serving(world, "A")
    changes = len(world.topics["deployment.changed"])
    world.request("p-A", "A")
    world.settle()
    assert world.statuses("p-A") == ["pending", "approved", "applied", "applied"]
    assert len(world.topics["deployment.changed"]) == changes


def test_another_request_under_a_used_promotion_id_is_refused(world: Any) -> None:
    serving(world, "A")
    event = world.request("p-A", "B")
    world.settle()
    assert world.refused == [(event.id, "promotion_id_taken")]


@pytest.mark.parametrize(("other", "code"), [({}, "duplicate_request"), ({"reason": "x"}, "idempotency_key_taken")])
def test_an_idempotency_key_belongs_to_one_promotion(world: Any, other: dict[str, Any], code: str) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A", idempotency_key="k")
    world.request("p2", "A", idempotency_key="k", **other)
    world.settle()
    assert world.statuses("p1")[-1] == "applied"
    assert world.statuses("p2")[-1] == "rejected"
    assert world.reasons("p2") == [code]


def test_a_request_that_has_lapsed_expires(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A", not_after=world.now)
    world.request("p2", "B", not_after=world.now + timedelta(seconds=3))
    world.settle(timers=True)
    assert world.statuses("p1")[-1] == "expired"
    assert world.statuses("p2")[-1] == "expired"
    assert world.reasons("p2")[0] == "expired"


def test_what_cannot_be_an_id_or_a_score_is_refused(world: Any) -> None:
    events = [
        world.request("p1", "A" * 129),
        world.request("p/1", "A"),
        world.request("", "A"),
        world.rollback("r1", to="A/B"),
        world.evaluate("A", 1_000_001),
        world.evaluate("A", 900_000, evaluation="e" * 129),
    ]
    world.settle()
    assert sorted(i for i, _ in world.refused) == sorted(e.id for e in events)
    assert not world.topics.get("promotion.decided")


def test_a_decision_says_all_that_was_signed(world: Any) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A", expected_current_artifact_id="")
    world.settle()
    for step in world.steps("p1")[1:]:
        decision = open_decision(step.decision_envelope, PROMOTION_PUBLIC_KEY)
        assert decision.status == step.status
        assert decision.passed
        assert decision.request_event_id == world.topics["promotion.requested"][0].id
        assert decision.artifact_sha256 == "a" * 64


@pytest.mark.parametrize(
    ("changes", "code"), [({"emergency": True}, "no_break_glass"), ({"traffic_percent": 10}, "plan_not_supported")]
)
def test_what_these_rules_do_not_offer_is_rejected_and_not_ignored(
    world: Any, changes: dict[str, Any], code: str
) -> None:
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A", **changes)
    world.settle()
    assert world.reasons("p1") == [code]
    assert world.serves() is None


def test_an_unknown_environment_is_refused(world: Any) -> None:
    event = world.request("p1", "A", target_env=Environment.UNKNOWN)
    world.settle()
    assert world.refused == [(event.id, "unknown_environment")]


def test_a_signing_service_that_is_away_delays_the_decision_and_is_said(world: Any) -> None:
    world.signing_works = False
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A")
    world.settle()
    assert world.statuses("p1") == ["pending", "pending"]
    assert world.reasons("p1") == ["signing_unavailable"]
    for _ in range(3):
        world.tick(world.promoter, next(iter(world.promoter.timers)))
        world.settle()
    assert world.statuses("p1") == ["pending", "pending"]  # said once, however often it is tried
    world.signing_works = True
    world.settle(timers=True)
    assert world.statuses("p1")[2:] == ["approved", "applied"]


def test_a_policy_that_does_not_answer_is_asked_again(world: Any) -> None:
    world.policy_error = WorkError("unavailable", "no answer", retriable=True)
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A")
    world.settle()
    assert world.statuses("p1") == ["pending"]
    world.policy_error = None
    world.settle(timers=True)
    assert world.statuses("p1") == ["pending", "approved", "applied"]


def test_a_policy_that_fails_for_good_is_a_rejection(world: Any) -> None:
    world.policy_error = WorkError("bad_question", "no such field", retriable=False)
    world.register("A")
    world.evaluate("A", 990_000)
    world.request("p1", "A")
    world.settle()
    assert world.reasons("p1") == ["bad_question"]


def test_a_rollback_goes_back_step_by_step(world: Any) -> None:
    serving(world, "A", "B", "C")
    world.rollback("r1")
    world.settle()
    assert world.serves() == "B"
    assert world.steps("r1")[-1].kind.value == "rollback"
    assert world.topics["deployment.changed"][-1].body.cause.value == "rollback"
    world.rollback("r2")
    world.settle()
    assert world.serves() == "A"
    world.rollback("r3")
    world.settle(timers=True)
    assert world.reasons("r3") == ["nothing_before"]
    assert world.serves() == "A"


def test_a_rollback_needs_no_new_evaluation_but_never_goes_to_what_was_revoked(world: Any) -> None:
    serving(world, "A", "B")
    world.revoke("A")
    world.settle()
    world.rollback("r1")
    world.settle()
    assert world.reasons("r1") == ["artifact_revoked"]
    assert world.serves() == "B"


def test_a_rollback_to_what_never_served_is_rejected(world: Any) -> None:
    serving(world, "A")
    world.register("B")
    world.evaluate("B", 990_000)
    world.rollback("r1", to="B")
    world.settle(timers=True)
    assert world.reasons("r1") == ["never_served"]


def test_a_rollback_to_what_serves_already_changes_nothing_and_is_rejected(world: Any) -> None:
    serving(world, "A", "B")
    world.rollback("r1", to="B")
    world.settle(timers=True)
    assert world.reasons("r1") == ["serves_already"]
    assert len(world.topics["deployment.changed"]) == 2


def test_a_rollback_heard_before_the_deployment_that_it_is_about_is_never_applied_to_another_one(world: Any) -> None:
    serving(world, "A", "B")
    world.register("C")
    world.evaluate("C", 990_000)
    world.request("p-C", "C")
    for topic in ("artifact.registered", "evaluation.recorded", "promotion.requested"):
        world.hear(world.promoter, topic)
    while world.promoter.work:
        world.finish(world.promoter, next(iter(world.promoter.work)))
    while world.hear(world.canary, "promotion.decided"):
        pass
    assert world.serves() == "C"  # which the promoter hasn't heard yet: for it, the one before B is A
    world.rollback("r1")
    world.hear(world.promoter, "rollback.requested")
    while world.promoter.work:
        world.finish(world.promoter, next(iter(world.promoter.work)))
    world.settle()
    assert world.reasons("r1") == ["stale"]
    assert world.serves() == "C"


def test_a_rollback_that_expects_what_the_promoter_has_not_heard_yet_waits_for_it(world: Any) -> None:
    serving(world, "A", "B")
    world.rollback("r1", expected_current_artifact_id="C")
    world.settle()
    assert world.statuses("r1") == ["pending"]
    world.register("C")
    world.evaluate("C", 990_000)
    world.request("p-C", "C")
    world.settle()
    assert world.statuses("r1") == ["pending", "approved", "applied"]
    assert world.steps("r1")[-1].expected_current_artifact_id == "C"
    assert world.serves() == "B"


def test_an_approval_that_nobody_waits_for_is_refused(world: Any) -> None:
    from ai_infra.events.generated import ApprovalDecision, PromotionApproval

    event = world.say(
        PromotionApproval(
            promotion_id="p1",
            model="digits",
            artifact_id="A",
            target_env=Environment.PROD,
            approver="approver-1",
            decision=ApprovalDecision.APPROVE,
            reason="",
            envelope="{}",
        )
    )
    world.settle()
    assert world.refused == [(event.id, "no_approvals_wanted")]
