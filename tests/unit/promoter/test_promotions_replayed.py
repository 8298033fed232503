"""What promoter and canary have decided is decided again from the log alone, whatever the order in which they heard."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai_infra.bus.refusing import Sender, refusal
from ai_infra.bus.replay import Known, Placed, Replayed, first_difference, replay
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import ManifestSignature, OperatorAction, PromotionDecided, PromotionStatus, Reason
from ai_infra.manifest.decision import sign_decision, unverified_decision
from ai_infra.manifest.registration import Registration, sign_registration
from ai_infra.trust.keyring import MANIFEST, PROMOTION, Key
from ai_infra.trust.signers import LocalSigner
from ai_infra_canary.replaying import REPLAYER as CANARY
from ai_infra_promoter.questions import ASK_POLICY, VERIFY_MANIFEST, PolicyAnswer
from ai_infra_promoter.replaying import REPLAYER as PROMOTER
from ai_infra_promoter.replaying import THRESHOLD
from ai_infra_promoter.verification import judge_manifest

_LANE = Path(__file__).with_name("test_lane_of_promotions.py")
_spec = importlib.util.spec_from_file_location("lane_of_promotions", _LANE)
assert _spec is not None
assert _spec.loader is not None
lane_of_promotions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lane_of_promotions)

MODEL = "digits"
MANIFEST_KEY = LocalSigner("manifest-1", bytes(range(1, 33)))
PROMOTION_KEY = LocalSigner("promotion-1", bytes(range(32)))
KEYS = {
    k.key_id: Key(k.key_id, k.public_key, "", use) for k, use in ((MANIFEST_KEY, MANIFEST), (PROMOTION_KEY, PROMOTION))
}
KEYRING: Any = SimpleNamespace(
    version=1, keys=KEYS, revocations={}, key_of=lambda i, use: k if (k := KEYS.get(i)) and k.use == use else None
)
KEYRINGS: Any = SimpleNamespace(latest=KEYRING, latest_version=1, get={1: KEYRING}.get)
KNOWN = Known(KEYRINGS, {})
FORGER = LocalSigner("manifest-1", bytes(32))


def signed(artifact: str, signer: LocalSigner) -> Any:
    registration = Registration(
        artifact_id=artifact,
        model=MODEL,
        version=1,
        artifact_sha256="a" * 64,
        artifact_bytes=1,
        manifest_sha256="b" * 64,
        provenance_sha256="c" * 64,
        input_checksum="c" * 64,
        builder_id="urn:trainer",
        produced_event_id="p",
        keyring_version=1,
        rules="registry/v1",
        registered_at=datetime(2025, 1, 1, tzinfo=UTC),
    )
    return sign_registration(registration, signer.sign, "manifest-1")


def with_real_signatures(new_world: Any) -> Any:
    """A world whose artifacts carry what a manifest key signed, or a forger, and where that is looked at."""

    class World(new_world):  # type: ignore[misc]  # a fixture's class
        def register(self, artifact: str, **changes: Any) -> Event[Any]:
            made = signed(artifact, FORGER if artifact in self.bad_signatures else MANIFEST_KEY)
            signature = ManifestSignature(
                signer_id=made.signer_id, signature=made.signature, ts=made.ts, envelope=made.envelope
            )
            about = {"manifest_signature": signature, "manifest_signature_id": made.manifest_signature_id}
            return super().register(artifact, **(about | changes))  # type: ignore[no-any-return]

        def answer(self, kind: str, args: Any) -> Any:
            return (judge_manifest(args, KEYRING), None) if kind == VERIFY_MANIFEST else super().answer(kind, args)

    return World()


def in_log(events: list[Event[Any]], seed: int | None = None) -> list[Placed]:
    """The lane's log: each topic in its order, effects behind their causes; between topics in any order."""
    if seed is None:
        return [Placed(n, e) for n, e in enumerate(events)]
    chance, topics = random.Random(seed), dict[str, list[Event[Any]]]()
    for event in events:
        topics.setdefault(event.type, []).append(event)
    ids, placed = {e.id for e in events}, dict[str, Event[Any]]()
    while topics:
        ready = sorted(t for t, es in topics.items() if all(c.id in placed or c.id not in ids for c in es[0].causes))
        topic = chance.choice(ready)
        event = topics[topic].pop(0)
        placed[event.id] = event
        if not topics[topic]:
            del topics[topic]
    return [Placed(n, e) for n, e in enumerate(placed.values())]


def replayed(placed: list[Placed]) -> tuple[Replayed, Replayed]:
    return replay(PROMOTER, 0, placed, KNOWN), replay(CANARY, 0, placed, KNOWN)


@given(lane_of_promotions.stories, st.integers(0, 99))
# Always the same stories: the search is bounded, and misses the order in about one of a thousand of such shuffled logs.
@settings(max_examples=200, derandomize=True)
def test_every_decision_is_recomputed_whatever_was_heard_when(new_world: Any, story: Any, seed: int) -> None:
    world = with_real_signatures(new_world)
    for what in story:
        lane_of_promotions.happen(world, what)
    world.signing_works = True
    world.settle(timers=True)
    for report in replayed(in_log(world.log, seed)):
        assert not report.differences
        assert report.recomputed + report.checked == report.decisions
        assert not report.unanswered
    promoter, canary = replayed(in_log(world.log, seed))
    assert promoter.decisions == world.promoter.said
    assert (canary.decisions, canary.checked) == (world.canary.said, 0)


def story_of(new_world: Any) -> Any:
    """Two promotions: one is applied, the other rejected."""
    world = with_real_signatures(new_world)
    for artifact, score in (("A", 950_000), ("B", 500_000)):
        world.register(artifact)
        world.evaluate(artifact, score)
        world.request(f"p-{artifact}", artifact)
        world.settle()
    return world


def test_an_approval_that_the_rules_reject_is_named_though_the_services_own_keys_signed_it(new_world: Any) -> None:
    # The compromised promoter decides "rejected", says "approved", and has its promotion key sign that.
    world = story_of(new_world)
    (rejected,) = [e for e in world.log if isinstance(e.body, PromotionDecided) and e.body.status == "rejected"]
    said: PromotionDecided = replace(rejected.body, status=PromotionStatus.APPROVED, reasons=())
    forged = replace(rejected, body=replace(said, decision_envelope=resigned(said)))
    promoter, canary = replayed(in_log([forged if e is rejected else e for e in world.log]))
    (difference,) = promoter.differences
    assert (difference.event_id, difference.service) == (rejected.id, "promoter")
    assert difference.said == "promotion.decided approved"
    assert "rejected (score_below_threshold" in difference.given
    assert not canary.differences
    assert [canary.unanswered] == [[world.log.index(rejected)]]


def test_an_approval_of_what_a_forger_signed_is_named(new_world: Any) -> None:
    world = story_of(new_world)
    world.bad_signatures.add("C")
    world.register("C")
    world.evaluate("C", 950_000)
    world.request("p-C", "C")
    honest = world.answer
    world.answer = lambda kind, args: (
        (type(honest(kind, args)[0])(reasons=()), None) if kind == VERIFY_MANIFEST else honest(kind, args)
    )
    world.settle()
    promoter, _ = replayed(in_log(world.log))
    (difference,) = promoter.differences
    assert difference.said == "promotion.decided approved"
    assert "rejected (manifest_signature_invalid" in difference.given


def test_what_the_canary_lets_serve_without_an_approval_is_named(new_world: Any) -> None:
    world = story_of(new_world)
    (changed,) = [e for e in world.log if e.type == "deployment.changed"]
    forged = replace(changed, body=replace(changed.body, stable_artifact_id="B"))
    _, canary = replayed(in_log([forged if e is changed else e for e in world.log]))
    (difference,) = canary.differences
    assert (difference.event_id, difference.given) == (changed.id, "stable_artifact_id 'A', not 'B'")


def test_what_is_taken_from_the_decision_itself_is_told(new_world: Any) -> None:
    promoter, _ = replayed(in_log(story_of(new_world).log))
    assert promoter.carried == {THRESHOLD: 2}  # the policy document sets none


def test_rules_that_are_not_there_any_more_are_a_difference(new_world: Any) -> None:
    world = story_of(new_world)
    (changed,) = [e for e in world.log if e.type == "deployment.changed"]
    other = replace(changed, body=replace(changed.body, rules="canary/v0"))
    _, canary = replayed(in_log([other if e is changed else e for e in world.log]))
    assert "there are no rules 'canary/v0', only canary/v1" in canary.differences[0].given


def test_a_log_that_went_on_in_another_kafka_is_replayed_as_one(new_world: Any) -> None:
    """Offsets began anew there, in a new epoch, and what was pending was said again under its old id."""
    world = story_of(new_world)
    before, first = list(world.log), {topic: len(events) for topic, events in world.topics.items()}
    world.register("C")
    world.evaluate("C", 950_000)
    world.request("p-C", "C", expected_current_artifact_id="nothing-like-it")
    world.settle()

    def later(event: Event[Any]) -> Event[Any]:
        record = replace(event.record, offset=event.record.offset - first.get(event.type, 0))
        epoch = None if event.producer is None else 2
        return replace(event, record=record, attributes=replace(event.attributes, epoch=epoch))

    pending = next(e for e in before if isinstance(e.body, PromotionDecided))
    repeated = replace(pending, attributes=replace(pending.attributes, epoch=2, seq=0))
    restored = world.say(
        OperatorAction(
            action="restore",
            target="bus/0",
            arguments_json=f'{{"size":{len(before)}}}',
            reason="gone",
            operator="op",
        )
    )
    after = [later(e) for e in world.log[len(before) :] if e is not restored]
    # The first of the new cluster may be in the log before the word that there is one.
    promoter, canary = replayed(in_log([*before, repeated, after[0], restored, *after[1:]]))
    assert (promoter.differences, promoter.unanswered) == ([], [])
    assert (canary.differences, canary.unanswered) == ([], [])
    assert any(e.type == "canary.status" and e.body.state == "refused" for e in after)


def test_an_approval_under_the_id_of_its_rejection_is_named(new_world: Any) -> None:
    # It has a number of its own, so the canary has heard it, and let the artifact serve.
    world = story_of(new_world)
    (rejected,) = [e for e in world.log if isinstance(e.body, PromotionDecided) and e.body.status == "rejected"]
    said: PromotionDecided = replace(rejected.body, status=PromotionStatus.APPROVED, reasons=())
    world.promoter.said += 1
    forged = replace(
        rejected,
        body=replace(said, decision_envelope=resigned(said)),
        attributes=replace(rejected.attributes, seq=world.promoter.said),
        record=replace(rejected.record, offset=len(world.topics["promotion.decided"])),
    )
    world.topics["promotion.decided"].append(forged)
    world.log.append(forged)
    world.settle()
    assert world.serves() == "B"
    promoter, canary = replayed(in_log(world.log))
    (difference,) = promoter.differences
    assert (difference.position, difference.said) == (world.log.index(forged), "promotion.decided approved")
    assert difference.given.startswith("reused_id: this id is that of promotion.decided rejected")
    assert first_difference([canary, promoter]) == difference
    assert all("two things were said" in d.given for d in canary.differences)


@pytest.mark.parametrize(("status", "differs"), [(None, False), (PromotionStatus.APPROVED, True)])
def test_a_step_that_is_said_again_after_state_was_lost_may_differ_in_its_reasons_only(
    new_world: Any, status: PromotionStatus | None, differs: bool
) -> None:
    world = story_of(new_world)
    pending = next(e for e in world.log if isinstance(e.body, PromotionDecided))
    body = replace(pending.body, reasons=(Reason(code="evaluation_missing", detail="not heard yet"),))
    again = replace(
        pending,
        body=body if status is None else replace(body, status=status),
        attributes=replace(pending.attributes, epoch=2, seq=1),
    )
    promoter, _ = replayed(in_log([*world.log, again]))
    assert bool(promoter.differences) is differs


def test_nobody_takes_a_decision_away_by_saying_something_under_its_id_before(new_world: Any) -> None:
    world = story_of(new_world)
    (changed,) = [e for e in world.log if e.type == "deployment.changed"]
    request = next(e for e in world.log if e.type == "promotion.requested")
    attributes = replace(request.attributes, id=changed.id)
    squatter = replace(request, body=replace(request.body, promotion_id="p-C"), attributes=attributes)
    _, canary = replayed(in_log([squatter, *world.log]))
    assert (canary.decisions, canary.differences) == (world.canary.said, [])


@pytest.mark.parametrize(
    ("answer", "differs"),
    [
        ('{"decision":"allow"}', False),
        ('{"decision":"deny","rationale":"score far too low"}', True),
        ('{"decision":"allow","allowed":false}', True),
        ("{}", True),
        ("no JSON", True),
    ],
)
def test_an_approval_is_judged_by_the_answer_of_the_policy_service_that_it_encloses(
    new_world: Any, answer: str, differs: bool
) -> None:
    world = with_real_signatures(new_world)
    world.register("B")
    world.evaluate("B", 500_000)
    world.request("p-B", "B")
    honest = world.answer
    said = PolicyAnswer(
        verifier_id="urn:policy", allowed=True, reasons=(), answer_json=answer, threshold_e6=None, fallback=False
    )
    world.answer = lambda kind, args: (said, None) if kind == ASK_POLICY else honest(kind, args)
    world.settle()
    assert world.serves() == "B"
    promoter, _ = replayed(in_log(world.log))
    assert [d.given for d in promoter.differences] == (["rejected, not approved"] if differs else [])


@pytest.mark.parametrize(
    ("code", "differs"),
    [("bad_signature", True), ("not_allowed", True), ("revoked_key", True), ("undecodable_body", False)],
)
def test_a_refusal_of_an_event_that_the_log_has_verified_is_named(new_world: Any, code: str, differs: bool) -> None:
    world = story_of(new_world)
    request = world.request("p-A2", "A", reason="legit")
    reasons = (Reason(code=code, detail="made up"),)
    body = refusal(Sender.of(request), request.type, reasons, service="promoter", rules="promoter/v1")
    refused = world.say(body, (Cause(request.id, 0),), by=world.promoter, subject=request.id)
    promoter, _ = replayed(in_log(world.log))
    assert [d.event_id for d in promoter.differences] == ([refused.id] if differs else [])
    assert promoter.before_rules == (0 if differs else 1)
    if differs:
        assert promoter.differences[0].given.startswith("no refusal: ")
    unheard = [e for e in world.log if e is not request]
    assert replayed(in_log(unheard))[0].before_rules == 1  # it is not in the log, as the refusal says


def resigned(said: PromotionDecided) -> str:
    """The envelope that the promotion key would make of it."""
    stated = unverified_decision(said.decision_envelope or "")
    assert stated is not None
    changed = replace(stated, status=said.status.value, passed=True)
    return sign_decision(changed, PROMOTION_KEY.sign, PROMOTION_KEY.key_id).to_text()
