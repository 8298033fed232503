"""What the trainer knew, from what it has said: which jobs are over, and how they ended. Pure.

A job that was not over begins again from its request, under the same id and with the first try.
"""

from __future__ import annotations

from typing import Any, Final

from ai_infra.bus.decision import Put
from ai_infra.bus.restoring import Past, Recalled, Restorer
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactProduced, JobCancelRequested, JobQueued, JobStatus, JobStatusKind
from ai_infra_trainer.service import LISTENS, SAYS
from ai_infra_trainer.state import Job

_ENDS: Final = (JobStatusKind.COMPLETED, JobStatusKind.FAILED, JobStatusKind.CANCELLED, JobStatusKind.TIMED_OUT)


def recall(past: Past) -> Recalled:
    """The jobs that are over, and the requests that need no answer any more."""
    produced = {e.body.job_id for e in past.said if isinstance(e.body, ArtifactProduced)}
    over: dict[str, Event[JobStatus]] = {}
    for said in past.said:
        if not isinstance(said.body, JobStatus) or said.body.status not in _ENDS:
            continue
        # A job that completed without its artifact is not over: the log was cut between the two.
        if said.body.artifact_id is None or said.body.job_id in produced:
            over[said.body.job_id] = said
    records = [Put(job_id, _job(end.body)) for job_id, end in over.items()]
    return Recalled(records, {event.id for event in past.heard.values() if _settled(event, over, past)})


def _job(end: JobStatus) -> Job:
    return Job(
        model=end.model,
        phase="over",
        tries=end.attempt,
        queued=end.queued_time,
        started=end.started_time,
        runner=end.runner,
        status=end.status.value,
        order=None,
    )


def _settled(event: Event[Any], over: dict[str, Event[JobStatus]], past: Past) -> bool:
    """Whether this request has had its answer. A second request for a job was refused, which is known anyway."""
    match event.body:
        case JobQueued(job_id=job_id):
            return job_id in over and bool(past.caused.get(event.id))
        case JobCancelRequested(job_id=job_id):
            # A wish that came before its job is answered by the job's end, whose cause is the job.
            return job_id in over and over[job_id].body.status == JobStatusKind.CANCELLED
    return False


RESTORER: Final = Restorer("trainer", frozenset((*LISTENS, *SAYS)), recall)
