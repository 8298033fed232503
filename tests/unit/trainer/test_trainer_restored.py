"""The trainer comes back from its log: what is over stays over, what was under way begins again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from tests.unit.bus.restored import LATER, Restored, restored
from tests.unit.trainer.test_trainer_decide import BEGIN, LIMITS, event, job

from ai_infra.bus.records import SELF, Head, Seen, SeenId
from ai_infra.bus.service import Service, WorkKind
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import (
    ArtifactProduced,
    EventRefused,
    JobCancelRequested,
    JobQueued,
    JobStatus,
    JobStatusKind,
    OperatorAction,
    Reason,
)
from ai_infra_trainer.decide import RULES, rules
from ai_infra_trainer.restoring import RESTORER
from ai_infra_trainer.service import LISTENS, SAYS
from ai_infra_trainer.state import CancelWish, Job, Prepared, Task, Trained

TRAINER = Service(
    name="trainer",
    listens=LISTENS,
    says=SAYS,
    decide=rules(LIMITS),
    rules=RULES,
    records=(Job, CancelWish),
    work={
        "prepare": WorkKind(run=lambda _: None, args=Task, result=Prepared),
        "train": WorkKind(run=lambda _: None, args=Task, result=Trained),
    },
)


class Log:
    """What the log has, in its order."""

    def __init__(self) -> None:
        self.events: list[Event[Any]] = []
        self.said = 0

    def hears(self, body: Any, **attributes: Any) -> Event[Any]:
        return self._add(body, **attributes)

    def says(self, body: Any, cause: Event[Any], epoch: int = 7) -> Event[Any]:
        self.said += 1
        causes = (Cause(cause.id, 3),)
        return self._add(body, producer="trainer/3", epoch=epoch, seq=self.said, causes=causes)

    def _add(self, body: Any, **attributes: Any) -> Event[Any]:
        plain = event(body)
        time = BEGIN + timedelta(minutes=len(self.events))
        record = replace(plain.record, append_time_ms=int(LATER.timestamp() * 1000))
        made = replace(plain, attributes=replace(plain.attributes, time=time, **attributes), record=record)
        self.events.append(made)
        return made

    def restored(self) -> Restored:
        return restored(TRAINER, RESTORER, 3, self.events)


def status(body: JobQueued, kind: JobStatusKind, artifact_id: str | None = None) -> JobStatus:
    return JobStatus(
        job_id=body.job_id,
        model="digits",
        status=kind,
        attempt=1,
        runner="r",
        queued_time=BEGIN,
        reason_code="",
        reason="",
        artifact_id=artifact_id,
        rules=RULES,
    )


def produced(body: JobQueued) -> ArtifactProduced:
    return ArtifactProduced(
        artifact_id="a", model="digits", job_id=body.job_id, artifact_uri="s3://m/a", artifact_sha256="a" * 64,
        artifact_bytes=1, manifest_uri="s3://m/m", manifest_sha256="b" * 64, provenance="{}", input_checksum="c" * 64,
        rules=RULES,
    )  # fmt: skip


def cancel(body: JobQueued) -> JobCancelRequested:
    return JobCancelRequested(job_id=body.job_id, model="digits", reason="no", requested_by="ci")


def test_a_job_that_is_over_stays_over_and_one_under_way_begins_again() -> None:
    log = Log()
    over, running = log.hears(job(0)), log.hears(job(1))
    log.says(status(job(0), JobStatusKind.QUEUED), over)
    log.says(status(job(1), JobStatusKind.QUEUED), running)
    log.says(status(job(0), JobStatusKind.RUNNING), over)
    log.says(status(job(0), JobStatusKind.COMPLETED, "a"), over)
    log.says(produced(job(0)), over)
    log.says(status(job(1), JobStatusKind.RUNNING), running)
    lane = log.restored()
    assert {i: (j.phase, j.status) for i, j in lane.state.all(Job)} == {
        job(0).job_id: ("over", "completed"),
        job(1).job_id: ("preparing", "queued"),
    }
    assert lane.restored.again == (running.id,)
    assert lane.restored.pending == (f"prepare/{job(1).job_id}.1",)


def test_a_job_that_completed_without_its_artifact_in_the_log_is_not_over() -> None:
    log = Log()
    asked = log.hears(job(0))
    log.says(status(job(0), JobStatusKind.QUEUED), asked)
    log.says(status(job(0), JobStatusKind.COMPLETED, "a"), asked)
    assert log.restored().restored.pending == (f"prepare/{job(0).job_id}.1",)


def test_a_cancellation_that_was_answered_is_not_refused_now_and_one_that_was_not_counts() -> None:
    log = Log()
    early, first = log.hears(cancel(job(0))), log.hears(job(0))
    log.says(status(job(0), JobStatusKind.CANCELLED), first)
    second = log.hears(job(1))
    log.says(status(job(1), JobStatusKind.QUEUED), second)
    late = log.hears(cancel(job(1)))
    lane = log.restored()
    assert {j.status for _, j in lane.state.all(Job)} == {"cancelled"}
    assert early.id not in lane.restored.again
    assert late.id in lane.restored.again
    assert lane.restored.pending == ()


def test_the_lane_speaks_in_a_newer_epoch_whatever_the_clock_says_and_numbers_its_state_beyond_the_old_one() -> None:
    log = Log()
    asked = log.hears(job(0))
    future = int(LATER.timestamp() * 1000) + 5_000
    log.says(status(job(0), JobStatusKind.FAILED), asked, epoch=future)
    lane = log.restored()
    head = lane.state.get(Head, SELF)
    assert head is not None
    assert (head.epoch, head.seq, head.prev) == (future + 1, 0, None)
    assert (lane.restored.last, lane.restored.epoch) == ((future, 1), future + 1)
    counters = [int(dict(r.headers)["counter"]) for r in lane.restored.records]
    assert counters == list(range(head.epoch + 1, head.epoch + 1 + len(counters)))


def refusal(event: Event[Any]) -> EventRefused:
    return EventRefused(
        model=event.model, event_id=event.id, event_type=event.type, event_hash=event.hash, service="trainer",
        signer=event.signer, reasons=(Reason(code="duplicate_job", detail=""),), rules=RULES,
    )  # fmt: skip


def redrive(event: Event[Any], service: str) -> OperatorAction:
    arguments = f'{{"event_id":"{event.id}"}}'
    return OperatorAction(
        action="dlq.redrive", target=service, arguments_json=arguments, reason="mended", operator="op"
    )


def test_what_was_redriven_after_its_refusal_is_heard_again_unless_it_was_refused_again() -> None:
    log = Log()
    mended, other, refused_twice = log.hears(job(0)), log.hears(job(1)), log.hears(job(2))
    for event_ in (mended, other, refused_twice):
        log.says(refusal(event_), event_)
    for event_, service in ((mended, "trainer"), (other, "registry"), (refused_twice, "trainer")):
        log._add(redrive(event_, service))
    log.says(refusal(refused_twice), refused_twice)
    lane = log.restored()
    assert lane.restored.again == (mended.id,)
    assert {i for i, s in lane.state.all(SeenId) if s.failed} == {other.id, refused_twice.id}


def test_what_was_heard_before_is_known_again_and_what_was_refused_may_be_redriven() -> None:
    log = Log()
    accepted = log.hears(job(0))
    log.says(status(job(0), JobStatusKind.FAILED), accepted)
    counted = log.hears(job(1), producer="drift/3", epoch=2, seq=9)
    log.says(status(job(1), JobStatusKind.FAILED), counted)
    refused = log.hears(job(0))
    log.says(refusal(refused), refused)
    lane = log.restored()
    assert dict(lane.state.all(Seen)) == {"job.queued/drift/3": Seen(2, 9)}
    assert {i: s.failed for i, s in lane.state.all(SeenId)} == {accepted.id: False, refused.id: True}
    assert (lane.restored.said, lane.restored.again) == (0, ())
