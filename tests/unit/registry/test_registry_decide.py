"""What the registry decides: versions dense and unique, bytes registered once, refusals with every reason."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

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
from ai_infra_registry.decide import OWN_FAILURES, RULES, decide
from ai_infra_registry.state import Artifact, Attestation, Facts, Signature, Verdict, Versions, Waiting

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
        body=body, attributes=attributes, record=record, lane=3, model=body.model, hash="f" * 64, principal="trainer"
    )


@dataclass
class LaneOfOne:
    """Applies decisions as the runtime does, without Kafka."""

    now: datetime = BEGIN
    said: list[Any] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    timers: dict[str, datetime] = field(default_factory=dict)
    pending: dict[str, Work] = field(default_factory=dict)
    state: LaneState = field(default_factory=lambda: LaneState((Versions, Artifact, Attestation, Waiting)))

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
        self.pending.update({work.id: work for work in decision.work})
        return decision

    def verified(self, work: Work, *, reasons: Sequence[Reason] = (), error: WorkError | None = None) -> None:
        self.pending.pop(work.id, None)
        result = None if error else verdict(work.args, tuple(reasons))
        self.give(
            Done(
                id=str(uuid.uuid4()),
                kind="verify",
                work_id=work.id,
                args=work.args,
                result=result,
                error=error,
                attempt=1,
                model=work.args.model,
                cause=Cause("c", 3),
            )
        )

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for key in [k for k, at in self.timers.items() if at <= self.now]:
            at = self.timers.pop(key)
            self.give(Tick(id=str(uuid.uuid4()), key=key, at=at, model="digits", cause=Cause("c", 3)))

    def register(self, body: ArtifactProduced) -> None:
        self.give(event(body))
        for work in list(self.pending.values()):
            self.verified(work)


def verdict(claim: Any, reasons: tuple[Reason, ...]) -> Verdict:
    if reasons:
        return Verdict(reasons=reasons)
    facts = Facts(
        artifact_sha256=claim.artifact_sha256,
        artifact_bytes=10,
        manifest_sha256=claim.manifest_sha256,
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
    signature = Signature(id=identity("s"), signer_id="manifest-1", signature="", ts=claim.now, envelope="{}")
    return Verdict(reasons=(), facts=facts, signature=signature)


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


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["produce", "produce", "verify", "verify", "refuse", "away", "bug", "revoke", "time"]),
        st.integers(0, 7),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(ACTIONS)
def test_versions_are_dense_and_unique_and_every_claim_has_one_answer(actions: list[tuple[str, int, int]]) -> None:
    lane = LaneOfOne()
    sent: list[str] = []
    for action, number, content in actions:
        works = sorted(lane.pending.values(), key=lambda w: w.args.manifest_sha256)
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
            case "verify" if works:
                lane.verified(works[number % len(works)])
            case "refuse" if works:
                lane.verified(works[number % len(works)], reasons=BAD)
            case "away" | "bug" if works:
                lane.verified(works[number % len(works)], error=AWAY if action == "away" else BUG)
    for _ in range(3):
        lane.pass_time(3600)
        for work in list(lane.pending.values()):
            lane.verified(work)
    registered = [s for s in lane.said if isinstance(s, ArtifactRegistered)]
    answers = [s for s in lane.said if not (isinstance(s, ArtifactRefused) and s.job_id is None)]
    assert len(answers) == len(sent)
    for model in ("digits", "letters"):
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
    assert (lane.pending, lane.timers, list(lane.state.all(Waiting))) == ({}, {}, [])
