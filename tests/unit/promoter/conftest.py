"""A lane in memory: services decide on its events, in any order between topics, with work and timers under control.

Only `decide` runs here. What the runtime guarantees (order within a topic, one decision a trigger, work that ends once)
is imitated in the simplest way; what it really does is tested on a real broker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from ai_infra.bus.decision import Cause, Context, Delete, Done, PolicyView, Put, Refuse, Tick, WorkError, WorkItem
from ai_infra.bus.state import decode_record, encode_record
from ai_infra.events.event import Attributes, Event, Record
from ai_infra.events.generated import (
    ArtifactRegistered,
    ArtifactRevoked,
    DatasetRef,
    DeploymentChanged,
    Environment,
    EvaluationRecorded,
    EventRefused,
    ManifestSignature,
    PromotionDecided,
    PromotionRequested,
    PromotionStatus,
    RollbackRequested,
)
from ai_infra.trust.signers import LocalSigner
from ai_infra_canary import decide as canary
from ai_infra_canary import state as canary_state
from ai_infra_promoter import decide as promoter
from ai_infra_promoter import state as promoter_state
from ai_infra_promoter.questions import (
    ASK_POLICY,
    SIGN_DECISION,
    VERIFY_MANIFEST,
    ManifestAnswer,
)
from ai_infra_promoter.signing import DecisionSigning
from ai_infra_promoter.threshold import StaticThreshold

START = datetime(2025, 1, 1, tzinfo=UTC)
MODEL = "digits"
PROMOTION_KEY = LocalSigner("promotion-1", bytes(range(32)))
THRESHOLD = StaticThreshold(850_000)
SIGNING = DecisionSigning(lambda: PROMOTION_KEY)
POLICY_SHA = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

PROMOTER_HEARS = (
    "promotion.requested",
    "rollback.requested",
    "promotion.approval",
    "artifact.registered",
    "artifact.revoked",
    "evaluation.recorded",
    "deployment.changed",
    "canary.status",
)
CANARY_HEARS = ("promotion.decided", "artifact.revoked")


class Memory:
    """A lane's state in a dictionary."""

    def __init__(self) -> None:
        self.records: dict[tuple[type, str], Any] = {}

    def get(self, record_type: type, record_id: str, /) -> Any:
        return self.records.get((record_type, record_id))

    def all(self, record_type: type, /) -> Any:
        return iter([(i, r) for (t, i), r in sorted(self.records.items(), key=lambda x: x[0][1]) if t is record_type])


@dataclass
class Part:
    """One service of the lane."""

    name: str
    rules: str
    decide: Callable[..., Any]
    hears: tuple[str, ...]
    state: Memory = field(default_factory=Memory)
    read: dict[str, int] = field(default_factory=dict)
    work: dict[tuple[str, str], tuple[Any, Cause]] = field(default_factory=dict)
    timers: dict[str, tuple[datetime, Cause]] = field(default_factory=dict)
    said: int = 0


class World:
    """The lane, its clock, and what answers the promoter's questions."""

    def __init__(self) -> None:
        self.now = START
        self.topics: dict[str, list[Event[Any]]] = {}
        self.log: list[Event[Any]] = []
        """All events, in the order in which they were said."""
        self.policy: dict[str, Any] = {}
        self.bad_signatures: set[str] = set()
        self.signing_works = True
        self.policy_error: WorkError | None = None
        self.refused: list[tuple[str, str]] = []
        self.knew_better: list[Any] = []
        self.ids = count(1)
        self.promoter = Part("promoter", promoter.RULES, promoter.decide, PROMOTER_HEARS)
        keys = {PROMOTION_KEY.key_id: PROMOTION_KEY.public_key}
        decide = partial(canary.decide, promotion_keys=lambda _version, _now: keys)
        self.canary = Part("canary", canary.RULES, decide, CANARY_HEARS)

    # -- saying

    def say(
        self, body: Any, causes: tuple[Cause, ...] = (), *, by: Part | None = None, subject: str | None = None
    ) -> Event[Any]:
        """Enter an event into the lane; `by` a service, which numbers what it says."""
        number = next(self.ids)
        if by is not None:
            by.said += 1
        attributes = Attributes(
            id=str(uuid5(NAMESPACE_OID, f"event-{number}")),
            source="/test",
            type=body.TOPIC,
            time=self.now,
            subject=subject,
            dataschema="",
            signer="someone-1",
            keyring=1,
            delegation=b"",
            signature=bytes(64),
            producer=f"{by.name}/0" if by is not None else None,
            epoch=1 if by is not None else None,
            seq=by.said if by is not None else None,
            prev=None,
            causes=causes,
            traceparent=None,
        )
        log = self.topics.setdefault(body.TOPIC, [])
        append_ms = int(self.now.timestamp() * 1000)
        record = Record(body.TOPIC, 0, len(log), append_ms, MODEL.encode(), b"", ())
        event = Event(body, attributes, record, 0, MODEL, f"{number:064x}", "someone", b"")
        log.append(event)
        self.log.append(event)
        return event

    def register(self, artifact: str, **changes: Any) -> Event[Any]:
        signature = ManifestSignature(signer_id="manifest-1", signature="c2ln", ts=self.now, envelope=f"env:{artifact}")
        values: dict[str, Any] = {
            "artifact_id": artifact,
            "model": MODEL,
            "version": 1,
            "new_version": True,
            "attestation": 1,
            "job_id": None,
            "artifact_uri": "s3://b/k",
            "artifact_sha256": "a" * 64,
            "artifact_bytes": 1,
            "manifest_uri": "s3://b/m",
            "manifest_sha256": "b" * 64,
            "manifest_signature_id": f"sig-{artifact}",
            "manifest_signature": signature,
            "code_ref": "git+https://example.org/r@0#x",
            "container_digest": None,
            "dataset_refs": (),
            "parent_artifacts": (),
            "input_checksum": "c" * 64,
            "builder_id": "urn:trainer",
            "metadata_json": "{}",
            "created_by": "someone",
            "keyring_version": 1,
            "rules": "registry/v1",
        }
        return self.say(ArtifactRegistered(**(values | changes)))

    def evaluate(self, artifact: str, score_e6: int, evaluation: str | None = None) -> Event[Any]:
        dataset = DatasetRef(id="d", checksum="sha256:" + "0" * 64, version="1", uri="s3://b/d")
        evaluation_id = evaluation or f"evaluation-{next(self.ids)}"
        return self.say(
            EvaluationRecorded(
                evaluation_id=evaluation_id,
                artifact_id=artifact,
                model=MODEL,
                dataset_ref=dataset,
                score_e6=score_e6,
                metrics_e6={},
                evaluator="someone",
                report_uri=None,
                report_sha256=None,
            )
        )

    def revoke(self, artifact: str) -> Event[Any]:
        return self.say(ArtifactRevoked(artifact_id=artifact, model=MODEL, reason="bad data", revoked_by="someone"))

    def request(self, promotion: str, artifact: str, **changes: Any) -> Event[Any]:
        values: dict[str, Any] = {
            "promotion_id": promotion,
            "artifact_id": artifact,
            "model": MODEL,
            "target_env": Environment.PROD,
            "reason": "it is better",
            "evaluation_id": None,
            "confidence_e6": None,
            "evidence": (),
            "traffic_percent": None,
            "manifest_signature_id": None,
            "expected_current_artifact_id": None,
            "idempotency_key": None,
            "emergency": False,
            "not_after": None,
            "requested_by": "someone",
        }
        return self.say(PromotionRequested(**(values | changes)))

    def rollback(self, promotion: str, to: str | None = None, **changes: Any) -> Event[Any]:
        values: dict[str, Any] = {
            "promotion_id": promotion,
            "model": MODEL,
            "target_env": Environment.PROD,
            "to_artifact_id": to,
            "reason": "it is worse",
            "expected_current_artifact_id": None,
            "emergency": False,
            "requested_by": "someone",
        }
        return self.say(RollbackRequested(**(values | changes)))

    # -- deciding

    def context(self, part: Part) -> Context:
        policy = PolicyView(version=0, sha256=POLICY_SHA, document=self.policy)
        return Context(now=self.now, lane=0, service=part.name, rules=part.rules, keyring=1, policy=policy)

    def hear(self, part: Part, topic: str) -> bool:
        """Has a service decide the next event of a topic; False where there is none."""
        position = part.read.get(topic, 0)
        log = self.topics.get(topic, [])
        if position >= len(log):
            return False
        part.read[topic] = position + 1
        event = log[position]
        try:
            decision = part.decide(part.state, event, self.context(part))
        except Refuse as refusal:
            self.refused.append((event.id, refusal.code))
            self.say(refused(part, event, refusal), (Cause(event.id, 0),), by=part, subject=event.id)
            return True
        self.apply(part, decision, Cause(event.id, 0))
        return True

    def finish(self, part: Part, key: tuple[str, str]) -> None:
        """Has a piece of work end."""
        args, cause = part.work.pop(key)
        result, error = self.answer(key[0], args)
        done = Done("d", key[0], key[1], args, result, error, 1, MODEL, cause)
        self.apply(part, part.decide(part.state, done, self.context(part)), cause)

    def tick(self, part: Part, key: str) -> None:
        at, cause = part.timers.pop(key)
        self.now = max(self.now, at)
        self.apply(part, part.decide(part.state, Tick("t", key, at, MODEL, cause), self.context(part)), cause)

    def apply(self, part: Part, decision: Any, cause: Cause) -> None:
        for say in decision.events:
            if self.knows_revoked(part, say.body):
                self.knew_better.append(say.body)
            self.say(say.body, (cause, *say.causes), by=part, subject=say.subject)
        for change in decision.state:
            match change:
                case Put(id=record_id, record=record):
                    part.state.records[(type(record), record_id)] = kept(record)
                case Delete(record_type=record_type, id=record_id):
                    part.state.records.pop((record_type, record_id), None)
        for timer in decision.timers:
            part.timers.pop(timer.key, None)
            if timer.at is not None:
                part.timers[timer.key] = (timer.at, cause)
        for work in decision.work:
            part.work.setdefault((work.kind, work.id), (kept(work.args), cause))

    def knows_revoked(self, part: Part, body: Any) -> bool:
        """Whether a service says that an artifact may serve, or serves, that it knows to be revoked."""
        match body:
            case PromotionDecided(status=PromotionStatus.APPROVED):
                kind, artifact = promoter_state.RevokedArtifact, body.artifact_id
                again = body.decision_envelope is not None and body in self.steps(body.promotion_id)
            case DeploymentChanged():
                kind, artifact, again = canary_state.RevokedArtifact, body.stable_artifact_id, False
            case _:
                return False
        return not again and part.state.get(kind, f"{MODEL}/{artifact}") is not None

    def answer(self, kind: str, args: Any) -> tuple[Any, WorkError | None]:
        if kind == VERIFY_MANIFEST:
            bad = args.artifact_id in self.bad_signatures
            reasons = promoter_reason("manifest_signature_invalid") if bad else ()
            return ManifestAnswer(reasons=reasons), None
        if kind == ASK_POLICY:
            if self.policy_error is not None:
                return None, self.policy_error
            return THRESHOLD.judge(args), None
        assert kind == SIGN_DECISION
        if not self.signing_works:
            return None, WorkError("unavailable", "the KMS does not answer", retriable=True)
        return SIGNING.run(WorkItem(kind, "w", args, 1, MODEL, 0, Cause("e", 0), threading.Event())), None

    def settle(self, *, timers: bool = False) -> None:
        """Until nothing more happens; with `timers`, time passes too."""
        while True:
            if any(self.hear(part, topic) for part in (self.promoter, self.canary) for topic in part.hears):
                continue
            if self.promoter.work:
                self.finish(self.promoter, next(iter(self.promoter.work)))
            elif timers and self.promoter.timers:
                self.tick(self.promoter, min(self.promoter.timers, key=lambda k: self.promoter.timers[k][0]))
            else:
                return

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # -- looking

    def steps(self, promotion: str) -> list[Any]:
        return [e.body for e in self.topics.get("promotion.decided", []) if e.body.promotion_id == promotion]

    def statuses(self, promotion: str) -> list[str]:
        return [step.status.value for step in self.steps(promotion)]

    def reasons(self, promotion: str) -> list[str]:
        return [reason.code for reason in self.steps(promotion)[-1].reasons]

    def serves(self, env: Environment = Environment.PROD) -> str | None:
        changes = [e.body for e in self.topics.get("deployment.changed", []) if e.body.env == env]
        return changes[-1].stable_artifact_id if changes else None

    def promotions(self) -> Any:
        return self.promoter.state.all(promoter_state.Promotion)

    def deployments(self) -> Any:
        return self.canary.state.all(canary_state.Deployment)


def refused(part: Part, event: Event[Any], refusal: Refuse) -> EventRefused:
    """As the runtime says it."""
    return EventRefused(
        model=event.model,
        event_id=event.id,
        event_type=event.type,
        event_hash=event.hash,
        service=part.name,
        signer=event.signer,
        reasons=refusal.reasons,
        rules=part.rules,
    )


def kept(record: Any) -> Any:
    """A record as it comes back from the state topic."""
    found = decode_record(type(record), "key", encode_record(record))
    assert found == record
    return found


def promoter_reason(code: str) -> Any:
    from ai_infra.events.generated import Reason

    return (Reason(code=code, detail=code),)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def new_world() -> type[World]:
    """For property tests, which make one an example."""
    return World
