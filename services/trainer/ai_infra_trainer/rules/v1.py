"""What the trainer decides: pure, rules `trainer/v1`.

A job id has exactly one result, whatever comes twice, late or out of order. A job waits (queued), is prepared (a slot
held, code checked out, datasets checked), runs (running), and ends as completed, failed, cancelled or timed_out. What
did not answer is tried again; what is wrong with the job itself is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never

from ai_infra.bus.decision import (
    NOTHING,
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
    Work,
)
from ai_infra.bus.decision import Trigger as AnyTrigger
from ai_infra.bus.fitting import fitted
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    EventRefused,
    JobCancelRequested,
    JobQueued,
    JobStatus,
    JobStatusKind,
    Reason,
)
from ai_infra_trainer.admission import Limits, objections
from ai_infra_trainer.state import CancelWish, Job, Order, Prepared, Task, Trained

RULES: Final = "trainer/v1"
MAX_TRIES: Final = 5
BACKOFF: Final = (timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=10))
WISH_LIFE: Final = timedelta(seconds=60)
"""How long a cancellation waits for its job: topics of a lane are read side by side, so it may be seen first."""
SAFETY: Final = timedelta(minutes=30)
"""The runner holds a training to its limit, and its upload to 15 minutes of a store that is away. This long after three
limits (there may be takeovers), nobody does."""
REASON_LENGTH: Final = 500
_UNDER_WAY: Final = {"preparing": "prepare", "running": "train"}

Decide = Callable[[StateView, AnyTrigger, Context], Decision]


def rules(limits: Limits) -> Decide:
    """The trainer's `decide` under the limits of this installation."""

    def decide(state: StateView, trigger: AnyTrigger, context: Context) -> Decision:
        match trigger:
            case Event(body=JobQueued() as body):
                return _queued(state, trigger, body, context, limits)
            case Event(body=JobCancelRequested() as body):
                return _cancel(state, trigger, body, context)
            case Done():
                return _done(state, trigger, context)
            case Tick():
                return _tick(state, trigger, context)
            case Event():
                return NOTHING
            case _:
                assert_never(trigger)

    return decide


def _queued(state: StateView, event: Event[JobQueued], body: JobQueued, context: Context, limits: Limits) -> Decision:
    known = state.get(Job, body.job_id)
    if known is not None:
        raise Refuse(
            Reason(
                code="duplicate_job",
                detail=f"job {body.job_id} was accepted before, and is {known.status};"
                " a job id has one result: take a new one",
            )
        )
    if reasons := objections(body, limits):
        raise Refuse(*reasons)
    job = Job(model=event.model, phase="preparing", tries=1, queued=context.now, order=Order.of(body))
    wished = _wish_id(event.model, body.job_id)
    wish = state.get(CancelWish, wished)
    if wish is not None:
        over = _end(body.job_id, job, context, "cancelled", "cancelled", f"{wish.requested_by}: {wish.reason}")
        return replace(
            over,
            state=(*over.state, Delete(CancelWish, wished)),
            timers=(Timer(_wish_key(wished), None),),
            cancel=(),
        )
    return Decision(
        events=(_status(body.job_id, job, context),),
        state=(Put(body.job_id, job),),
        work=(_work("prepare", body.job_id, job),),
    )


def _cancel(state: StateView, event: Event[JobCancelRequested], body: JobCancelRequested, context: Context) -> Decision:
    job = state.get(Job, body.job_id)
    if job is None:
        wished = _wish_id(event.model, body.job_id)
        if state.get(CancelWish, wished) is not None:
            raise Refuse(
                Reason(code="cancelled_before", detail=f"job {body.job_id} is to be cancelled already, once it comes")
            )
        wish = CancelWish(
            model=event.model,
            event_id=event.id,
            event_type=event.type,
            event_hash=event.hash,
            signer=event.signer,
            requested_by=body.requested_by,
            reason=body.reason,
        )
        return Decision(state=(Put(wished, wish),), timers=(Timer(_wish_key(wished), context.now + WISH_LIFE),))
    if job.model != event.model:
        raise Refuse(Reason(code="unknown_job", detail=f"model {event.model} has no job {body.job_id}"))
    if job.phase == "over":
        raise Refuse(Reason(code="job_over", detail=f"job {body.job_id} is over already: {job.status}"))
    return _end(body.job_id, job, context, "cancelled", "cancelled", f"{body.requested_by}: {body.reason}")


def _done(state: StateView, done: Done, context: Context) -> Decision:
    job_id = done.args.order.job_id
    job = state.get(Job, job_id)
    if job is None or done.args.tries != job.tries or done.kind != _UNDER_WAY.get(job.phase):
        return NOTHING
    if done.error is not None:
        if not done.error.retriable or job.tries >= MAX_TRIES:
            return _end(
                job_id, job, context, "failed", done.error.code, done.error.message, attempt=_attempt(job, done)
            )
        return _try_again(job_id, job, context, done)
    if isinstance(done.result, Prepared):
        running = replace(job, phase="running", status="running", started=context.now, runner=done.result.runner)
        limit = timedelta(seconds=done.args.order.time_limit_s)
        return Decision(
            events=(_status(job_id, running, context, attempt=_attempt(job, done)),),
            state=(Put(job_id, running),),
            timers=(Timer(_limit_key(job_id), context.now + 3 * limit + SAFETY),),
            work=(_work("train", job_id, running),),
        )
    return _trained(job_id, job, context, done, done.result)


def _trained(job_id: str, job: Job, context: Context, done: Done, result: Trained) -> Decision:
    over = _end(
        job_id,
        replace(job, runner=result.runner, started=result.started or job.started),
        context,
        result.status,
        result.reason_code,
        result.reason,
        attempt=_attempt(job, done),
        result=result,
    )
    product = result.product
    if product is None:
        return over
    produced = product.produced(model=job.model, job_id=job_id, rules=context.rules)
    return replace(over, events=(*over.events, Say(produced, subject=product.artifact_id)))


def _try_again(job_id: str, job: Job, context: Context, done: Done) -> Decision:
    if done.error is None:
        return NOTHING
    wait = BACKOFF[min(job.tries, len(BACKOFF)) - 1]
    waiting = replace(job, phase="waiting", status="queued", tries=job.tries + 1, started=None, runner="")
    reason = f"try {job.tries} of {MAX_TRIES}: {done.error.message}; next in {wait.total_seconds():.0f} s"
    return Decision(
        events=(_status(job_id, waiting, context, reason_code=done.error.code, reason=reason),),
        state=(Put(job_id, waiting),),
        timers=(Timer(_retry_key(job_id), context.now + wait), Timer(_limit_key(job_id), None)),
    )


def _tick(state: StateView, tick: Tick, context: Context) -> Decision:
    purpose, _, job_id = tick.key.partition("/")
    if purpose == "wish":
        return _wish_expired(state, job_id, context)  # of the wish's id: <model>/<job id>
    job = state.get(Job, job_id)
    if job is None or job.phase == "over":
        return NOTHING
    if purpose == "retry" and job.phase == "waiting":
        preparing = replace(job, phase="preparing")
        return Decision(state=(Put(job_id, preparing),), work=(_work("prepare", job_id, preparing),))
    if purpose == "limit" and job.phase == "running":
        why = f"nothing was heard of the training since {job.started:%Y-%m-%dT%H:%M:%SZ}, three time limits ago"
        return _end(job_id, job, context, "timed_out", "runner_lost", why)
    return NOTHING


def _wish_expired(state: StateView, wished: str, context: Context) -> Decision:
    wish = state.get(CancelWish, wished)
    if wish is None:
        return NOTHING
    job_id = wished.rpartition("/")[2]
    refused = EventRefused(
        model=wish.model,
        event_id=wish.event_id,
        event_type=wish.event_type,
        event_hash=wish.event_hash,
        service=context.service,
        signer=wish.signer,
        reasons=(Reason(code="unknown_job", detail=f"model {wish.model} has no job {job_id}"),),
        rules=context.rules,
    )
    return Decision(events=(Say(fitted(refused), subject=wish.event_id),), state=(Delete(CancelWish, wished),))


def _end(
    job_id: str,
    job: Job,
    context: Context,
    status: str,
    code: str,
    reason: str,
    *,
    attempt: int | None = None,
    result: Trained | None = None,
) -> Decision:
    """The one result of a job: says it, forgets the order, and lets go of everything that is under way for it."""
    over = replace(job, phase="over", status=status, order=None)
    said = _status(
        job_id,
        over,
        context,
        attempt=attempt,
        reason_code=code,
        reason=reason,
        result=result,
        ended=True,
    )
    return Decision(
        events=(said,),
        state=(Put(job_id, over),),
        timers=(Timer(_limit_key(job_id), None), Timer(_retry_key(job_id), None)),
        cancel=(("prepare", _work_id(job_id, job.tries)), ("train", _work_id(job_id, job.tries))),
    )


def _status(
    job_id: str,
    job: Job,
    context: Context,
    *,
    attempt: int | None = None,
    reason_code: str = "",
    reason: str = "",
    result: Trained | None = None,
    ended: bool = False,
) -> Say:
    body = JobStatus(
        job_id=job_id,
        model=job.model,
        status=JobStatusKind(job.status),
        attempt=attempt or job.tries,
        runner=job.runner,
        log_uri=result.log_uri if result else None,
        log_sha256=result.log_sha256 if result else None,
        queued_time=job.queued,
        started_time=job.started,
        ended_time=((result.ended if result else None) or context.now) if ended else None,
        reason_code=reason_code,
        reason=reason[:REASON_LENGTH],
        artifact_id=result.product.artifact_id if result and result.product else None,
        exit_code=result.exit_code if result else None,
        rules=context.rules,
    )
    return Say(body, subject=job_id)


def _attempt(job: Job, done: Done) -> int:
    """How many times it was begun: tries that this file asked for, and takeovers that the runtime counted."""
    return job.tries + done.attempt - 1


def _work(kind: str, job_id: str, job: Job) -> Work:
    if job.order is None:
        raise ValueError(f"job {job_id} is over; there is nothing to {kind}")
    return Work(kind, _work_id(job_id, job.tries), Task(order=job.order, tries=job.tries, queued=job.queued))


def _work_id(job_id: str, tries: int) -> str:
    return f"{job_id}.{tries}"


def _limit_key(job_id: str) -> str:
    return f"limit/{job_id}"


def _retry_key(job_id: str) -> str:
    return f"retry/{job_id}"


def _wish_key(wished: str) -> str:
    return f"wish/{wished}"


def _wish_id(model: str, job_id: str) -> str:
    """With the model: who may cancel jobs of one model has no say about another's."""
    return f"{model}/{job_id}"
