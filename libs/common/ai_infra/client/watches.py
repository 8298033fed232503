"""How it is recognised, among a lane's events, what became of a wish. Pure: fed with events, it knows no Kafka.

`see` returns the result once it is known, None while it is not, and raises the negative answer. Events of different
topics come in no order between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from ai_infra.client.exceptions import (
    ArtifactRefusedError,
    EventRefusedError,
    JobFailedError,
    NegativeAnswer,
    PromotionRejectedError,
)
from ai_infra.client.handles import JobResult, PromotionAsked, PromotionResult
from ai_infra.events.codec import encode_body
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    CanaryStatus,
    DeploymentChanged,
    EventRefused,
    JobQueued,
    JobStatus,
    JobStatusKind,
    PromotionDecided,
    PromotionRequested,
    PromotionStatus,
    Reason,
    RollbackRequested,
)

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    "job.queued": (JobStatus.TOPIC, ArtifactProduced.TOPIC, ArtifactRegistered.TOPIC, ArtifactRefused.TOPIC),
    "job.cancel_requested": (JobStatus.TOPIC,),
    "artifact.produced": (ArtifactRegistered.TOPIC, ArtifactRefused.TOPIC),
    "promotion.requested": (PromotionDecided.TOPIC, DeploymentChanged.TOPIC, CanaryStatus.TOPIC),
    "rollback.requested": (PromotionDecided.TOPIC, DeploymentChanged.TOPIC, CanaryStatus.TOPIC),
    "promotion.approval": (PromotionDecided.TOPIC,),
    "artifact.revoked": (PromotionDecided.TOPIC, CanaryStatus.TOPIC),
}
"""Topics that answer an event of a type, beside `event.refused`, which answers all of them."""

_JOB_ENDED_BADLY: Final = {JobStatusKind.FAILED, JobStatusKind.CANCELLED, JobStatusKind.TIMED_OUT}
_PROMOTION_ENDED_BADLY: Final = {
    PromotionStatus.REJECTED,
    PromotionStatus.EXPIRED,
    PromotionStatus.REVOKED,
    PromotionStatus.REVERTED,
}


def answer_topics(event_type: str) -> tuple[str, ...]:
    """Topics on which an answer to an event of this type can come."""
    return (*ANSWERS.get(event_type, ()), EventRefused.TOPIC)


class Watch(Protocol[R_co]):
    """Looks for one answer."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Topics to be read for it."""
        ...

    def see(self, event: Event[Any]) -> R_co | None:
        """The result, once it is known. Raises NegativeAnswer."""
        ...

    def seen(self) -> str:
        """What is known so far, as half a sentence for a time-out."""
        ...


class JobWatch:
    """From `job.queued` to a registered artifact, or to why there is none."""

    def __init__(self, job_id: str, event_id: str | None) -> None:
        """`event_id` is None where the job was asked for elsewhere; it is then found by the job's id."""
        self._job_id = job_id
        self._ids = set() if event_id is None else {event_id}
        self._refusals: list[Event[EventRefused]] = []
        self._status: Event[JobStatus] | None = None
        self._registered: dict[str, Event[ArtifactRegistered]] = {}
        self.topics = (*answer_topics(JobQueued.TOPIC), *(() if event_id else (JobQueued.TOPIC,)))

    def see(self, event: Event[Any]) -> JobResult | None:
        body = event.body
        match body:
            case EventRefused():
                self._refusals.append(event)
            case JobQueued() | ArtifactProduced() if body.job_id == self._job_id:
                self._ids.add(event.id)
            case JobStatus() if body.job_id == self._job_id:
                self._status = event
                if body.status in _JOB_ENDED_BADLY:
                    raise JobFailedError(
                        f"job {self._job_id} {body.status}: {body.reason or body.reason_code}"
                        + (f" (its log: {body.log_uri})" if body.log_uri else ""),
                        reasons=(Reason(code=body.reason_code or body.status.value, detail=body.reason),),
                        event=event,
                        code=body.reason_code or f"job_{body.status}",
                    )
            case ArtifactRefused() if body.job_id == self._job_id:
                raise ArtifactRefusedError(
                    f"the registry refused what job {self._job_id} produced: {_sentences(body.reasons)}",
                    reasons=body.reasons,
                    event=event,
                    code=body.reasons[0].code if body.reasons else None,
                )
            case ArtifactRegistered() if body.job_id == self._job_id:
                self._registered[body.artifact_id] = event
            case _:
                return None
        _raise_refusal(self._refusals, self._ids)
        return self._result()

    def seen(self) -> str:
        """What is known so far."""
        if self._registered:
            return "its artifact is registered, its completion was not said yet"
        return "nothing was said about it yet" if self._status is None else f"it is {self._status.body.status}"

    def _result(self) -> JobResult | None:
        status = self._status
        if status is None or status.body.status != JobStatusKind.COMPLETED or status.body.artifact_id is None:
            return None
        registered = self._registered.get(status.body.artifact_id)
        if registered is None:
            return None
        body = registered.body
        return JobResult(self._job_id, body.artifact_id, body.version, body.new_version, status, registered)


class PromotionWatch:
    """From a request to the deployment that it became, or to why it became none.

    `again`: what was asked under an id that may have been asked for before. Then all answers may lie before it; they
    count if the first request of that id asked the same. If not, it gets a refusal of its own.
    """

    def __init__(self, promotion_id: str, event_id: str | None, again: PromotionAsked | None = None) -> None:
        self._promotion_id = promotion_id
        self._ids = set() if event_id is None else {event_id}
        self._again = None if again is None else encode_body(again)
        self._first: bytes | None = None
        self._refusals: list[Event[EventRefused]] = []
        self._decision: Event[PromotionDecided] | None = None
        self._deployment: Event[DeploymentChanged] | None = None
        asked = (PromotionRequested.TOPIC, RollbackRequested.TOPIC) if event_id is None or again is not None else ()
        self.topics = (*answer_topics(PromotionRequested.TOPIC), *asked)

    def see(self, event: Event[Any]) -> PromotionResult | None:
        body = event.body
        match body:
            case EventRefused():
                self._refusals.append(event)
            case PromotionRequested() | RollbackRequested() if body.promotion_id == self._promotion_id:
                if self._again is None:
                    self._ids.add(event.id)
                elif self._first is None:
                    self._first = encode_body(body)
            case DeploymentChanged() if body.promotion_id == self._promotion_id:
                self._deployment = event
            case PromotionDecided() if body.promotion_id == self._promotion_id:
                self._decision = event
            case _:
                return None
        _raise_refusal(self._refusals, self._ids)
        return self._result() if self._again is None or self._again == self._first else None

    def seen(self) -> str:
        """What is known so far."""
        if self._decision is None:
            return "nothing was said about it yet"
        body = self._decision.body
        return f"it is {body.status}" + (f" ({_sentences(body.reasons)})" if body.reasons else "")

    def _result(self) -> PromotionResult | None:
        decision, deployment = self._decision, self._deployment
        if decision is None:
            return None
        decided = decision.body
        if decided.status in _PROMOTION_ENDED_BADLY:
            raise PromotionRejectedError(
                f"promotion {self._promotion_id} is {decided.status}: {_sentences(decided.reasons)}",
                reasons=decided.reasons,
                event=decision,
                code=decided.reasons[0].code if decided.reasons else decided.status.value,
            )
        if deployment is None or decided.status != PromotionStatus.APPLIED:
            return None
        body = deployment.body
        return PromotionResult(self._promotion_id, decided.artifact_id, body.env, body.revision, decision, deployment)


class PredicateWatch(Generic[T]):
    """Whatever `until` recognises; a refusal of the event itself ends it too."""

    def __init__(self, event_id: str, topics: tuple[str, ...], until: Callable[[Event[Any]], T | None]) -> None:
        self._event_id = event_id
        self._until = until
        self.topics = tuple(dict.fromkeys((*topics, EventRefused.TOPIC)))

    def see(self, event: Event[Any]) -> T | None:
        """What `until` returns; None and False are no answer."""
        if isinstance(event.body, EventRefused):
            _raise_refusal([event], {self._event_id})
        found = self._until(event)
        return None if found is False else found

    def seen(self) -> str:
        """What is known so far."""
        return "no event that was asked for has come yet"


def _raise_refusal(refusals: list[Event[EventRefused]], ids: set[str]) -> None:
    for event in refusals:
        body = event.body
        if body.event_id in ids:
            raise EventRefusedError(
                f"{body.service} refused {body.event_type} {body.event_id}: {_sentences(body.reasons)}",
                reasons=body.reasons,
                event=event,
                code=body.reasons[0].code if body.reasons else None,
            )


def _sentences(reasons: tuple[Reason, ...]) -> str:
    return "; ".join(f"{r.code}: {r.detail}" for r in reasons) or "without a reason"


__all__ = ["ANSWERS", "JobWatch", "NegativeAnswer", "PredicateWatch", "PromotionWatch", "Watch", "answer_topics"]
