"""What the registry decides: versions dense and unique, bytes registered once, refusals with every reason."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.bus.decision import Context, Decision, Done, Put, Refuse, Tick, Work, WorkError
from ai_infra.bus.state import LaneState
from ai_infra.events.event import Attributes, Cause, Event, Record
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    ArtifactRevoked,
    EventRefused,
    Reason,
)
from ai_infra_registry.decide import RULES, decide
from ai_infra_registry.rules.v1 import OWN_FAILURES
from ai_infra_registry.state import (
    Artifact,
    Attestation,
    Facts,
    Finding,
    Signature,
    Signing,
    Verified,
    Versions,
    Waiting,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
AWAY = WorkError("objects_unavailable", "the store does not answer", retriable=True)
BUG = WorkError("work_failed", "KeyError: 'x'", retriable=False)
BAD = (Reason(code="hash", detail="other bytes"), Reason(code="size", detail="longer"))


def hexes(*parts: object) -> str:
    return uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))).hex * 2


def identity(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


def produced(model: str = "digits", content: int = 0, run: int = 0) -> ArtifactProduced:
    sha256 = hexes("artifact", content)
    return ArtifactProduced(
        artifact_id=identity(model, content),
        model=model,
        job_id=identity("job", run),
        artifact_uri=f"s3://models/{sha256}.tar",
        artifact_sha256=sha256,
        artifact_bytes=10,
        manifest_uri=f"s3://models/m-{model}-{content}-{run}.json",
        manifest_sha256=hexes("manifest", model, content, run),
        provenance="{}",
        input_checksum=hexes("input"),
        rules="trainer/v1",
    )


def event(body: Any) -> Event[Any]:
    attributes = Attributes(
        id=str(uuid.uuid4()),
        source="/trainer",
        type=body.TOPIC,
        time=BEGIN,
        subject=None,
        dataschema="",
        signer="trainer-1",
        keyring=1,
        delegation=b"",
        signature=b"",
        producer=None,
        epoch=None,
        seq=None,
        prev=None,
        causes=(),
        traceparent=None,
    )
    record = Record(body.TOPIC, 3, 0, 0, body.model.encode(), b"", ())
    return Event(
        body=body,
        attributes=attributes,
        record=record,
        lane=3,
        model=body.model,
        hash="f" * 64,
        principal="trainer",
        message=b"",
    )


@dataclass
class LaneOfOne:
    """Applies decisions as the runtime does, without Kafka."""

    now: datetime = BEGIN
    said: list[Any] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    timers: dict[str, datetime] = field(default_factory=dict)
    pending: dict[tuple[str, str], Work] = field(default_factory=dict)
    prompt: bool = True  # the signing service answers at once
    state: LaneState = field(
        default_factory=lambda: LaneState((Versions, Artifact, Attestation, Waiting, Verified, Signing))
    )

    def give(self, trigger: Any) -> Decision | None:
        context = Context(now=self.now, lane=3, service="registry", rules=RULES, keyring=1)
        try:
            decision = decide(self.state, trigger, context)
        except Refuse as refusal:
            self.refused.append(refusal)
            return None
        self.said += [say.body for say in decision.events]
        for change in decision.state:
            if isinstance(change, Put):
                self.state.put(change.id, change.record)
            else:
                self.state.delete(change.record_type, change.id)
        self.state.commit()
        for timer in decision.timers:
            self.timers.pop(timer.key, None)
            if timer.at is not None:
                self.timers[timer.key] = timer.at
        self.pending.update({(work.kind, work.id): work for work in decision.work})
        return decision

    def verified(self, work: Work, *, reasons: Sequence[Reason] = (), error: WorkError | None = None) -> None:
        result = None if error else finding(work.args, tuple(reasons))
        self.done(work, result, error)
        if self.prompt:
            self.sign()

    def sign(self, *, error: WorkError | None = None) -> None:
        for work in [w for w in self.pending.values() if w.kind == "sign"]:
            self.done(work, None if error else signature(work.args.registration), error)

    def done(self, work: Work, result: Any, error: WorkError | None) -> None:
        self.pending.pop((work.kind, work.id))
        self.give(
            Done(
                id=str(uuid.uuid4()),
                kind=work.kind,
                work_id=work.id,
                args=work.args,
                result=result,
                error=error,
                attempt=1,
                model=work.args.model if work.kind == "verify" else work.args.registration.model,
                cause=Cause("c", 3),
            )
        )

    def verifications(self) -> list[Work]:
        return [w for w in self.pending.values() if w.kind == "verify"]

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for key in [k for k, at in self.timers.items() if at <= self.now]:
            at = self.timers.pop(key)
            self.give(Tick(id=str(uuid.uuid4()), key=key, at=at, model="digits", cause=Cause("c", 3)))

    def register(self, body: ArtifactProduced) -> None:
        self.give(event(body))
        for work in self.verifications():
            self.verified(work)


def finding(claim: Any, reasons: tuple[Reason, ...]) -> Finding:
    if reasons:
        return Finding(reasons=reasons)
    facts = Facts(
        artifact_sha256=claim.artifact_sha256,
        artifact_bytes=10,
        manifest_sha256=claim.manifest_sha256,
        provenance_sha256=hexes("provenance"),
        code_ref="sha256:" + "a" * 64,
        container_digest=None,
        dataset_refs=(),
        parent_artifacts=(),
        input_checksum=claim.input_checksum,
        builder_id="trainer-1",
        metadata_json="{}",
        created_by="ci",
        keyring_version=1,
    )
    return Finding(reasons=(), facts=facts)


def signature(registration: Any) -> Signature:
    return Signature(
        id=identity("s"), signer_id="manifest-1", signature="", ts=registration.registered_at, envelope="{}"
    )


def versions(lane: LaneOfOne) -> list[tuple[int, bool, int]]:
    return [(s.version, s.new_version, s.attestation) for s in lane.said if isinstance(s, ArtifactRegistered)]


def test_new_bytes_are_the_next_version() -> None:
    lane = LaneOfOne()
    lane.register(produced(content=0))
    lane.register(produced(content=1))
    assert versions(lane) == [(1, True, 1), (2, True, 1)]


def test_the_same_bytes_from_another_run_are_an_attestation_and_no_version() -> None:
    lane = LaneOfOne()
    lane.register(produced(content=0, run=0))
    lane.register(produced(content=1, run=1))
    lane.register(produced(content=0, run=2))
    lane.register(produced(content=2, run=3))
    assert versions(lane) == [(1, True, 1), (2, True, 1), (1, False, 2), (3, True, 1)]


def test_each_model_has_its_own_numbers() -> None:
    lane = LaneOfOne()
    lane.register(produced("digits"))
    lane.register(produced("letters"))
    assert versions(lane) == [(1, True, 1), (1, True, 1)]


def test_the_same_run_sent_twice_attests_once() -> None:
    lane = LaneOfOne()
    lane.register(produced())
    lane.register(produced())
    assert versions(lane) == [(1, True, 1)]
    assert [r.code for r in lane.refused] == ["attested_before"]


def test_the_same_run_sent_twice_and_verified_side_by_side_attests_once_and_both_are_answered() -> None:
    lane = LaneOfOne()
    lane.give(event(produced()))
    lane.give(event(produced()))
    first, second = lane.pending.values()
    lane.verified(second)
    lane.verified(first)
    assert versions(lane) == [(1, True, 1)]
    answer = lane.said[-1]
    assert isinstance(answer, EventRefused)
    assert answer.event_id == first.args.event_id


def test_a_refusal_lists_every_reason() -> None:
    lane = LaneOfOne()
    lane.give(event(produced()))
    lane.verified(next(iter(lane.pending.values())), reasons=BAD)
    (said,) = lane.said
    assert isinstance(said, ArtifactRefused)
    assert said.reasons == BAD
    assert list(lane.state.all(Versions)) == []


def test_what_was_refused_may_come_again_once_it_is_repaired() -> None:
    lane = LaneOfOne()
    lane.give(event(produced()))
    lane.verified(next(iter(lane.pending.values())), reasons=BAD)
    lane.register(produced())
    assert versions(lane) == [(1, True, 1)]


def test_a_store_that_does_not_answer_is_waited_for_and_never_a_refusal() -> None:
    lane = LaneOfOne()
    lane.give(event(produced()))
    for _ in range(40):
        (work,) = lane.pending.values()
        lane.verified(work, error=AWAY)
        assert lane.said == []
        lane.pass_time(300)
    (work,) = lane.pending.values()
    lane.verified(work)
    assert versions(lane) == [(1, True, 1)]
    assert list(lane.state.all(Waiting)) == []
    assert lane.timers == {}


def test_an_error_of_our_own_is_answered_at_last() -> None:
    lane = LaneOfOne()
    lane.give(event(produced()))
    for _ in range(OWN_FAILURES):
        assert lane.said == []
        lane.verified(next(iter(lane.pending.values())), error=BUG)
        lane.pass_time(300)
    assert [r.code for r in lane.said[-1].reasons] == ["work_failed"]
    assert list(lane.state.all(Waiting)) == []


def revoke(body: ArtifactProduced) -> ArtifactRevoked:
    return ArtifactRevoked(
        artifact_id=body.artifact_id, model=body.model, reason="poisoned data", revoked_by="operator"
    )


def test_revoked_bytes_are_not_registered_again() -> None:
    lane = LaneOfOne()
    lane.register(produced(run=0))
    lane.give(event(revoke(produced())))
    lane.register(produced(run=1))
    assert versions(lane) == [(1, True, 1)]
    assert [r.code for r in lane.said[-1].reasons] == ["artifact_revoked"]


def test_revoking_what_is_not_registered_or_twice_is_refused() -> None:
    lane = LaneOfOne()
    lane.give(event(revoke(produced())))
    lane.register(produced())
    lane.give(event(revoke(produced())))
    lane.give(event(revoke(produced())))
    assert [r.code for r in lane.refused] == ["unknown_artifact", "revoked_before"]


def test_a_signing_service_that_is_away_holds_up_its_model_and_no_other() -> None:
    lane = LaneOfOne(prompt=False)
    for body in (produced("digits", 0), produced("digits", 1, 1), produced("letters", 2, 2)):
        lane.give(event(body))
    for work in lane.verifications():
        lane.verified(work)
    first, other = [w for w in lane.pending.values() if w.kind == "sign"]
    lane.done(first, None, AWAY)
    lane.done(other, signature(other.args.registration), None)
    assert [s.model for s in lane.said] == ["letters"]
    lane.pass_time(2)
    lane.sign()
    lane.sign()
    assert [(s.model, s.version) for s in lane.said] == [("letters", 1), ("digits", 1), ("digits", 2)]


def test_what_is_revoked_while_a_repetition_is_signed_is_not_attested() -> None:
    lane = LaneOfOne(prompt=False)
    lane.register(produced(run=0))
    lane.sign()
    lane.register(produced(run=1))
    lane.give(event(revoke(produced())))
    lane.sign()
    assert versions(lane) == [(1, True, 1)]
    assert [r.code for r in lane.said[-1].reasons] == ["artifact_revoked"]


def test_numbers_are_given_in_the_order_in_which_verifications_end() -> None:
    lane = LaneOfOne(prompt=False)
    bodies = [produced(content=i, run=i) for i in range(5)]
    for body in bodies:
        lane.give(event(body))
    order = [3, 0, 4, 2, 1]
    works = {w.args.artifact_id: w for w in lane.verifications()}
    for i in order:
        lane.verified(works[bodies[i].artifact_id])
    for _ in order:
        lane.sign()
    said = {s.artifact_id: s.version for s in lane.said if isinstance(s, ArtifactRegistered)}
    assert [said[bodies[i].artifact_id] for i in order] == [1, 2, 3, 4, 5]


def test_the_manifest_key_signs_nothing_for_what_was_revoked_while_it_waited_its_turn() -> None:
    lane = LaneOfOne(prompt=False)
    lane.register(produced(run=0))
    lane.sign()
    lane.register(produced(content=1, run=1))
    lane.register(produced(run=2))
    lane.give(event(revoke(produced())))
    lane.sign()
    assert [r.code for r in lane.said[-1].reasons] == ["artifact_revoked"]
    assert not lane.pending


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["produce", "produce", "verify", "verify", "refuse", "away", "bug", "revoke", "sign", "kms", "time"]
        ),
        st.integers(0, 7),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=examples(100))
@given(ACTIONS)
def test_versions_are_dense_and_unique_and_every_claim_has_one_answer(actions: list[tuple[str, int, int]]) -> None:
    lane = LaneOfOne(prompt=False)
    sent: list[str] = []
    for action, number, content in actions:
        works = sorted(lane.verifications(), key=lambda w: w.args.manifest_sha256)
        body = produced(["digits", "letters"][number % 2], content, number)
        match action:
            case "produce":
                claim = event(body)
                before = len(lane.refused)
                lane.give(claim)
                if len(lane.refused) == before:
                    sent.append(claim.id)
            case "revoke":
                lane.give(event(revoke(body)))
            case "time":
                lane.pass_time(number * 60)
            case "sign":
                lane.sign()
            case "kms":
                lane.sign(error=AWAY if number % 2 else BUG)
            case "verify" if works:
                lane.verified(works[number % len(works)])
            case "refuse" if works:
                lane.verified(works[number % len(works)], reasons=BAD)
            case "away" | "bug" if works:
                lane.verified(works[number % len(works)], error=AWAY if action == "away" else BUG)
    for _ in range(60):
        lane.pass_time(3600)
        for work in lane.verifications():
            lane.verified(work)
        lane.sign()
    registered = [s for s in lane.said if isinstance(s, ArtifactRegistered)]
    answers = [s for s in lane.said if not (isinstance(s, ArtifactRefused) and s.job_id is None)]
    assert len(answers) == len(sent)
    for model in ("digits", "letters"):
        said_in_order = [s.version for s in registered if s.model == model and s.new_version]
        assert said_in_order == sorted(said_in_order)
        new = [s.version for s in registered if s.model == model and s.new_version]
        assert new == list(range(1, len(new) + 1))
    by_artifact: dict[str, list[ArtifactRegistered]] = {}
    for said in registered:
        by_artifact.setdefault(said.artifact_id, []).append(said)
    for same in by_artifact.values():
        assert len({s.version for s in same}) == 1
        assert [s.attestation for s in same] == list(range(1, len(same) + 1))
        assert [s.new_version for s in same] == [True] + [False] * (len(same) - 1)
        assert len({s.manifest_sha256 for s in same}) == len(same)
    assert (lane.pending, lane.timers) == ({}, {})
    assert [r for t in (Waiting, Verified, Signing) for r in lane.state.all(t)] == []
