"""A small service with every kind of decision, and a lane of it on a clock that tests turn by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ai_infra.bus.batch import Batch
from ai_infra.bus.decision import (
    Context,
    Decision,
    Delete,
    Done,
    Put,
    Refuse,
    Say,
    StateView,
    Tick,
    Timer,
    Trigger,
    Work,
)
from ai_infra.bus.lane import Lane
from ai_infra.bus.service import Service, WorkKind
from ai_infra.bus.speech import Speech
from ai_infra.bus.voice import Surroundings
from ai_infra.events.compose import compose, uuid7
from ai_infra.events.event import Attributes, Event, Record
from ai_infra.events.generated import ArtifactRevoked, JobCancelRequested, Reason
from ai_infra.events.lanes import lane_of

LANES = 4
MODEL = "digits"
LANE = lane_of(MODEL, LANES)


@dataclass(frozen=True)
class Counted:
    times: int


@dataclass(frozen=True)
class Note:
    text: str


@dataclass(frozen=True)
class Errand:
    word: str


@dataclass(frozen=True)
class Answer:
    word: str


def decide(state: StateView, trigger: Trigger, context: Context) -> Decision:
    """What it does is written in the reason of the event: 'count', 'refuse', 'fail', 'timer', 'work', 'forget' …"""
    if isinstance(trigger, Tick):
        return Decision(events=(_said("ticked"),))
    if isinstance(trigger, Done):
        word = trigger.error.code if trigger.error else trigger.result.word
        return Decision(events=(_said(f"done {word}"),), state=(Put("done", Counted(trigger.attempt)),))
    wish = trigger.body.reason
    if wish == "refuse":
        raise Refuse(Reason(code="no", detail="not today"))
    if wish == "fail":
        raise RuntimeError("a defect")
    if wish == "undeclared":
        return Decision(events=(Say(JobCancelRequested(job_id="j", model=MODEL, reason="", requested_by="x")),))
    if wish == "half":
        return Decision(events=(_said("one"), Say(object())), state=(Put("total", Counted(99)),))
    if wish == "timer":
        return Decision(timers=(Timer("later", context.now + timedelta(seconds=10)),))
    if wish == "no timer":
        return Decision(timers=(Timer("later", None),))
    if wish == "work":
        return Decision(work=(Work("errand", "e1", Errand("bread")),))
    if wish == "cancel":
        return Decision(cancel=(("errand", "e1"),))
    if wish.startswith("note "):
        return Decision(events=(_said("noted"),), state=(Put("note", Note("x" * int(wish[5:]))),))
    if wish.startswith("long work "):
        return Decision(work=(Work("errand", "e1", Errand("x" * int(wish[10:]))),))
    if wish == "forget":
        return Decision(state=(Delete(Counted, "total"),))
    before = state.get(Counted, "total")
    return Decision(events=(_said("counted"),), state=(Put("total", Counted((before.times if before else 0) + 1)),))


def _said(reason: str) -> Say:
    return Say(ArtifactRevoked(artifact_id="a", model=MODEL, reason=reason, revoked_by="tester"), subject="a")


class PlainSession:
    """A session without keys: lanes do not look at signatures."""

    signer_id = "tester-1"
    keyring = 1
    delegation = bytes(100)

    def sign(self, message: bytes) -> bytes:
        return bytes(64)


@dataclass
class Bench:
    """A lane, its open batch and its clock."""

    service: Service
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    batch: Batch = field(default_factory=Batch)
    said: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.surroundings = Surroundings(
            service=self.service,
            speech=Speech(self.service.name, PlainSession()),  # type: ignore[arg-type]  # duck-typed on purpose
            clock=lambda: self.now,
            keyring_version=lambda: 1,
            policy=lambda: None,  # type: ignore[arg-type,return-value]  # not looked at by this decide
        )
        self.lane = Lane(LANE, self.surroundings)
        self.lane.loaded()

    def commit(self) -> list[tuple[str, bytes | None]]:
        """Commits the open batch; returns (topic, value) of what it holds, state records included."""
        if self.lane.state.changed:
            self.batch.outgoing.extend(self.lane.state_records())
        records = [(o.topic, o.value) for o in self.batch.outgoing]
        self.lane.commit()
        self.batch = Batch()
        return records

    def topics(self) -> list[str]:
        return [o.topic for o in self.batch.outgoing]


def make_event(reason: str, *, event_id: str | None = None, seq: int | None = None, epoch: int = 1) -> Event[Any]:
    """An event as the verifier would give it; counted where `seq` is given."""
    body = ArtifactRevoked(artifact_id="a", model=MODEL, reason=reason, revoked_by="sender")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    counted: dict[str, Any] = {}
    if seq is not None:
        prev = None if seq == 1 else "0" * 64
        counted = {"producer": f"sender/{LANE}", "epoch": epoch, "seq": seq, "prev": prev}
    identity = event_id or uuid7()
    signed = compose(
        body,
        key=MODEL,
        lane=LANE,
        id=identity,
        time=now,
        source="/tests",
        subject=None,
        signer="sender-1",
        keyring=1,
        delegation=bytes(100),
        sign=lambda _: bytes(64),
        **counted,
    )
    record = Record(signed.topic, LANE, 0, int(now.timestamp() * 1000), signed.key, signed.value, tuple(signed.headers))
    attributes = Attributes(
        id=identity,
        source="/tests",
        type=body.TOPIC,
        time=now,
        subject=None,
        dataschema="",
        signer="sender-1",
        keyring=1,
        delegation=bytes(100),
        signature=bytes(64),
        producer=counted.get("producer"),
        epoch=counted.get("epoch"),
        seq=counted.get("seq"),
        prev=counted.get("prev"),
        causes=(),
        traceparent=None,
    )
    return Event(
        body=body,
        attributes=attributes,
        record=record,
        lane=LANE,
        model=MODEL,
        hash=signed.hash,
        principal="sender",
        message=b"",
    )


def make_service(run: Callable[[Any], Any] = lambda item: Answer(item.args.word)) -> Service:
    return Service(
        name="tester",
        listens=(ArtifactRevoked,),
        says=(ArtifactRevoked,),
        decide=decide,
        rules="tester/v1",
        records=(Counted, Note),
        work={"errand": WorkKind(run=run, args=Errand, result=Answer, quick=True)},
    )
