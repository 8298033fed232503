"""What the trainer decides, whatever comes twice, late or out of order: one result for each job."""

from __future__ import annotations

import uuid
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.bus.decision import Context, Decision, Done, Put, Refuse, Tick, Work, WorkError
from ai_infra.bus.state import LaneState
from ai_infra.events.event import Attributes, Cause, Event, Record
from ai_infra.events.generated import (
    ArtifactProduced,
    DatasetRef,
    EventRefused,
    JobCancelRequested,
    JobQueued,
    JobStatus,
    Resources,
)
from ai_infra_trainer.admission import MAX_INPUT_BYTES, Limits
from ai_infra_trainer.decide import RULES, rules
from ai_infra_trainer.rules.v1 import MAX_TRIES
from ai_infra_trainer.state import CancelWish, Job, Prepared, Product, Trained

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LIMITS = Limits(repositories=("git+https://host.example/ml/*",), datasets=("s3://", "https://"))
FINAL = {"completed", "failed", "cancelled", "timed_out"}


def job(number: int = 0, **changes: Any) -> JobQueued:
    body = JobQueued(
        job_id=str(uuid.uuid5(uuid.NAMESPACE_OID, str(number))),
        model="digits",
        template="https://ai-infra.example/templates/python/v1",
        code_ref=f"git+https://host.example/ml/digits@{COMMIT}#train",
        container_digest=None,
        dataset_refs=(DatasetRef(id="d", checksum="sha256:" + "a" * 64, version="1", uri="s3://bucket/d.csv"),),
        hyperparams_json='{"c":0.1}',
        seed=7,
        training_cmd=("python", "train.py"),
        resources=Resources(cpu_millis=1000, memory_mib=512),
        time_limit_s=60,
        requested_by="ci",
        parent_artifacts=(),
    )
    return replace(body, **changes)


def event(body: Any) -> Event[Any]:
    attributes = Attributes(
        id=str(uuid.uuid4()),
        source="/ci",
        type=body.TOPIC,
        time=BEGIN,
        subject=None,
        dataschema="",
        signer="orchestrator-1",
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
    record = Record(body.TOPIC, 3, 0, 0, b"digits", b"", ())
    return Event(
        body=body,
        attributes=attributes,
        record=record,
        lane=3,
        model="digits",
        hash="f" * 64,
        principal="ci",
        message=b"",
    )


@dataclass
class LaneOfOne:
    """Applies decisions as the runtime does, without Kafka: state, timers, pending work, what was said."""

    now: datetime = BEGIN
    said: list[Any] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    timers: dict[str, datetime] = field(default_factory=dict)
    pending: dict[tuple[str, str], Work] = field(default_factory=dict)
    state: LaneState = field(default_factory=lambda: LaneState((Job, CancelWish)))

    def __post_init__(self) -> None:
        self.decide = rules(LIMITS)

    def give(self, trigger: Any) -> Decision | None:
        context = Context(now=self.now, lane=3, service="trainer", rules=RULES, keyring=1)
        try:
            decision = self.decide(self.state, trigger, context)
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
        for key in decision.cancel:
            self.pending.pop(key, None)
        for work in decision.work:
            self.pending.setdefault((work.kind, work.id), work)
        return decision

    def finish(self, work: Work, *, error: WorkError | None = None, status: str = "completed") -> None:
        self.pending.pop((work.kind, work.id), None)
        self.give(done(work, error=error, status=status, now=self.now))

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for key in [k for k, at in self.timers.items() if at <= self.now]:
            at = self.timers.pop(key, None)
            if at is not None:
                self.give(Tick(id=str(uuid.uuid4()), key=key, at=at, model="digits", cause=Cause("c", 3)))

    def statuses(self, body: JobQueued | None = None) -> list[str]:
        return [str(s.status) for s in self.said if isinstance(s, JobStatus) and s.job_id == (body or job()).job_id]


def done(work: Work, *, error: WorkError | None, status: str, now: datetime, attempt: int = 1) -> Done:
    result: Any = None
    if error is None and work.kind == "prepare":
        result = Prepared(runner="runner-a")
    elif error is None:
        product = Product(
            artifact_id=str(uuid.uuid4()),
            artifact_uri="s3://models/x",
            artifact_sha256="a" * 64,
            artifact_bytes=1,
            manifest_uri="s3://models/m",
            manifest_sha256="b" * 64,
            provenance="{}",
            input_checksum="c" * 64,
        )
        result = Trained(
            status=status,  # type: ignore[arg-type]  # one of the literal's words
            runner="runner-a",
            started=now,
            ended=now,
            exit_code=0 if status == "completed" else 1,
            reason_code="" if status == "completed" else "training_failed",
            reason="",
            log_uri=None,
            log_sha256=None,
            product=product if status == "completed" else None,
        )
    return Done(
        id=str(uuid.uuid4()),
        kind=work.kind,
        work_id=work.id,
        args=work.args,
        result=result,
        error=error,
        attempt=attempt,
        model="digits",
        cause=Cause("c", 3),
    )


AWAY = WorkError("code_unavailable", "host.example does not answer", retriable=True)
WRONG = WorkError("dataset_mismatch", "other bytes", retriable=False)


def only(lane: LaneOfOne) -> Work:
    (work,) = lane.pending.values()
    return work


def test_a_job_is_queued_prepared_run_and_completed_with_its_artifact() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    assert only(lane).kind == "prepare"
    lane.finish(only(lane))
    assert only(lane).kind == "train"
    lane.finish(only(lane))
    assert lane.statuses() == ["queued", "running", "completed"]
    (produced,) = [s for s in lane.said if isinstance(s, ArtifactProduced)]
    final = lane.said[-2]
    assert isinstance(final, JobStatus)
    assert final.artifact_id == produced.artifact_id
    assert (lane.timers, lane.pending) == ({}, {})


def test_a_job_id_is_accepted_once_for_ever() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    lane.give(event(job()))
    lane.finish(only(lane), error=WRONG)
    lane.give(event(job()))
    assert [r.code for r in lane.refused] == ["duplicate_job", "duplicate_job"]
    assert lane.statuses() == ["queued", "failed"]


def test_what_is_wrong_with_the_job_is_not_tried_again() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    lane.finish(only(lane), error=WRONG)
    assert lane.statuses() == ["queued", "failed"]
    assert lane.said[-1].reason_code == "dataset_mismatch"


def test_what_does_not_answer_is_tried_again_and_at_last_fails() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    for _ in range(MAX_TRIES):
        assert not set(lane.statuses()) & FINAL
        lane.finish(only(lane), error=AWAY)
        lane.pass_time(3600)
    assert lane.statuses() == ["queued"] * MAX_TRIES + ["failed"]
    assert lane.said[-1].reason_code == "code_unavailable"
    assert lane.said[-1].attempt == MAX_TRIES


def test_what_an_earlier_try_ends_with_is_not_the_present_one_s_result() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    earlier = only(lane)
    lane.finish(earlier, error=AWAY)
    lane.pass_time(3600)
    lane.give(done(earlier, error=None, status="completed", now=lane.now))
    assert lane.statuses() == ["queued", "queued"]
    assert only(lane).kind == "prepare"


def test_a_running_job_that_is_cancelled_lets_go_of_its_work() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    lane.finish(only(lane))
    late = only(lane)
    lane.give(event(JobCancelRequested(job_id=job().job_id, model="digits", reason="wrong data", requested_by="ann")))
    assert lane.statuses() == ["queued", "running", "cancelled"]
    assert lane.said[-1].reason == "ann: wrong data"
    assert lane.pending == {}
    lane.finish(late)
    assert lane.statuses() == ["queued", "running", "cancelled"]


def test_a_cancellation_that_comes_before_its_job_cancels_it() -> None:
    lane = LaneOfOne()
    lane.give(event(JobCancelRequested(job_id=job().job_id, model="digits", reason="no", requested_by="ann")))
    lane.give(event(job()))
    assert lane.statuses() == ["cancelled"]
    assert (lane.timers, lane.pending, lane.refused) == ({}, {}, [])


def test_a_cancellation_in_the_name_of_another_model_cancels_nothing() -> None:
    lane = LaneOfOne()
    wish = JobCancelRequested(job_id=job().job_id, model="fraud", reason="no", requested_by="mallory")
    lane.give(replace(event(wish), model="fraud"))
    lane.give(event(job()))
    assert lane.statuses() == ["queued"]
    lane.pass_time(61)
    assert [type(said) for said in lane.said] == [JobStatus, EventRefused]
    lane.give(replace(event(wish), model="fraud"))
    assert [r.code for r in lane.refused] == ["unknown_job"]


def test_each_cancellation_of_a_job_that_is_not_there_is_answered() -> None:
    lane = LaneOfOne()
    wish = JobCancelRequested(job_id=job().job_id, model="digits", reason="no", requested_by="ann")
    lane.give(event(wish))
    lane.give(event(wish))
    assert [r.code for r in lane.refused] == ["cancelled_before"]
    lane.pass_time(61)
    assert [type(said) for said in lane.said] == [EventRefused]


def test_a_cancellation_of_a_job_that_never_comes_is_answered() -> None:
    lane = LaneOfOne()
    wish = event(JobCancelRequested(job_id=job().job_id, model="digits", reason="no", requested_by="ann"))
    lane.give(wish)
    assert lane.said == []
    lane.pass_time(61)
    (answer,) = lane.said
    assert isinstance(answer, EventRefused)
    assert (answer.event_id, answer.reasons[0].code) == (wish.id, "unknown_job")
    assert list(lane.state.all(CancelWish)) == []


def test_cancelling_what_is_over_is_refused() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    lane.finish(only(lane), error=WRONG)
    lane.give(event(JobCancelRequested(job_id=job().job_id, model="digits", reason="no", requested_by="ann")))
    assert [r.code for r in lane.refused] == ["job_over"]


def test_a_runner_that_is_never_heard_of_again_is_given_up() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    lane.finish(only(lane))
    lane.pass_time(3 * 60 + 1801)
    assert lane.statuses() == ["queued", "running", "timed_out"]
    assert lane.pending == {}


def test_a_takeover_counts_as_an_attempt() -> None:
    lane = LaneOfOne()
    lane.give(event(job()))
    lane.finish(only(lane))
    lane.give(done(only(lane), error=None, status="completed", now=lane.now, attempt=3))
    assert [s.attempt for s in lane.said if isinstance(s, JobStatus)] == [1, 1, 3]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"job_id": "seven"}, "bad_job_id"),
        ({"template": "python"}, "bad_template"),
        ({"code_ref": "git+https://host.example/ml/digits@main"}, "bad_code_ref"),
        ({"code_ref": f"git+https://host.example/other@{COMMIT}"}, "repository_not_allowed"),
        ({"container_digest": "latest"}, "bad_container_digest"),
        ({"container_digest": "sha256:" + "b" * 64}, "container_mismatch"),
        ({"training_cmd": ()}, "bad_training_cmd"),
        ({"training_cmd": ("/bin/sh", "-c", "x")}, "bad_training_cmd"),
        ({"training_cmd": ("python", "a\nb")}, "bad_training_cmd"),
        ({"hyperparams_json": '{"b":1, "a":2}'}, "bad_hyperparams"),
        ({"hyperparams_json": "[1]"}, "bad_hyperparams"),
        ({"hyperparams_json": "{"}, "bad_hyperparams"),
        ({"hyperparams_json": '{"a":"' + "x" * MAX_INPUT_BYTES + '"}'}, "job_too_large"),
        ({"seed": -1}, "bad_seed"),
        ({"time_limit_s": 0}, "bad_resources"),
        ({"resources": Resources(cpu_millis=1000, memory_mib=1 << 20)}, "bad_resources"),
        ({"parent_artifacts": ("x",)}, "bad_parent_artifacts"),
        ({"dataset_refs": job().dataset_refs * 2}, "bad_dataset"),
        ({"dataset_refs": (replace(job().dataset_refs[0], uri="file:///proc/self/environ"),)}, "dataset_not_allowed"),
    ],
)
def test_a_job_that_cannot_be_taken_on_is_refused_with_the_reason(changes: dict[str, Any], code: str) -> None:
    lane = LaneOfOne()
    lane.give(event(job(**changes)))
    assert code in [reason.code for reason in lane.refused[0].reasons]
    assert lane.said == []
    assert list(lane.state.all(Job)) == []


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/d.csv",
        "https://user:secret@host/d.csv",
        "https://host/d.csv?token=secret",
        "https://host/",
        "file://host/d.csv",
        "s3:///d.csv",
        "gopher://x/y",
        "https://[bad/d",
    ],
)
def test_a_dataset_is_named_by_a_plain_uri(uri: str) -> None:
    lane = LaneOfOne()
    lane.give(event(job(dataset_refs=(replace(job().dataset_refs[0], uri=uri),))))
    assert [reason.code for reason in lane.refused[0].reasons].count("bad_dataset") >= 1


def test_every_reason_is_told_not_only_the_first() -> None:
    lane = LaneOfOne()
    lane.give(event(job(job_id="x", seed=-1, time_limit_s=0, training_cmd=())))
    assert len(lane.refused[0].reasons) == 4


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("queue"), st.integers(0, 2)),
        st.tuples(st.just("cancel"), st.integers(0, 2)),
        st.tuples(st.just("finish"), st.integers(0, 5)),
        st.tuples(st.just("again"), st.integers(0, 5)),
        st.tuples(st.just("wrong"), st.integers(0, 5)),
        st.tuples(st.just("away"), st.integers(0, 5)),
        st.tuples(st.just("fail"), st.integers(0, 5)),
        st.tuples(st.just("time"), st.sampled_from([1, 10, 59, 700, 5000])),
    ),
    max_size=40,
)


@settings(max_examples=examples(100))
@given(ACTIONS)
def test_a_job_never_has_two_results_and_always_gets_one(actions: list[tuple[str, int]]) -> None:
    lane = LaneOfOne()
    old: list[Work] = []
    for action, number in actions:
        works = sorted(lane.pending.values(), key=lambda w: (w.kind, w.id))
        old += works
        match action:
            case "queue":
                lane.give(event(job(number)))
            case "cancel":
                wish = JobCancelRequested(job_id=job(number).job_id, model="digits", reason="r", requested_by="ann")
                lane.give(event(wish))
            case "time":
                lane.pass_time(number)
            case "again" if old:  # a result that comes late, or twice
                lane.give(done(old[number % len(old)], error=None, status="completed", now=lane.now))
            case "finish" | "wrong" | "away" | "fail" if works:
                error = {"wrong": WRONG, "away": AWAY}.get(action)
                status = "failed" if action == "fail" else "completed"
                lane.finish(works[number % len(works)], error=error, status=status)
    for _ in range(50):  # then everything ends
        for work in list(lane.pending.values()):
            lane.finish(work)
        lane.pass_time(3600)
    results = Counter(s.job_id for s in lane.said if isinstance(s, JobStatus) and str(s.status) in FINAL)
    accepted = {job_id for job_id, _ in lane.state.all(Job)}
    assert set(results) == accepted
    assert all(count == 1 for count in results.values())
    for job_id in accepted:
        statuses = [str(s.status) for s in lane.said if isinstance(s, JobStatus) and s.job_id == job_id]
        assert statuses[-1] in FINAL
        produced = [s for s in lane.said if isinstance(s, ArtifactProduced) and s.job_id == job_id]
        assert len(produced) == (statuses[-1] == "completed")
    assert (lane.pending, lane.timers) == ({}, {})
