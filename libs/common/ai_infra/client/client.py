"""The client: one connection's worth of saying, waiting and listening. Thread-safe; close it, or use it in a `with`."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, overload

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.client.approvals import READS, approval
from ai_infra.client.exceptions import AnswerTimeout, ClientClosed
from ai_infra.client.gate import Gate
from ai_infra.client.handles import Job, JobResult, Promotion, PromotionResult, Published
from ai_infra.client.publisher import Publisher
from ai_infra.client.reading import Reader, ends, starts
from ai_infra.client.subscription import From, Subscription, event_types, offsets_from
from ai_infra.client.watches import JobWatch, PredicateWatch, PromotionWatch, Watch, answer_topics
from ai_infra.client.wishes import Wishes, environment
from ai_infra.errors import ConfigurationError
from ai_infra.events.body import Body
from ai_infra.events.compose import SignedRecord
from ai_infra.events.event import Cause, Event
from ai_infra.events.generated import ApprovalDecision, AuditCheckpoint, Environment, JobQueued
from ai_infra.events.keys import model_of
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings, load_settings
from ai_infra.telemetry.logs import log_as_a_library
from ai_infra.trust.exceptions import NotAllowed
from ai_infra.trust.open import open_client_signer, open_signer_for
from ai_infra.trust.session import Session

if TYPE_CHECKING:
    from ai_infra.client.receipts import Receipt

T = TypeVar("T")

SEND_SECONDS: Final = 60.0
ANSWER_SECONDS: Final = 60.0


class Client(Wishes):
    """Says events as one principal. What it may say is in the keyring; what it may not, is refused here already."""

    def __init__(
        self, settings: Settings, *, key_id: str | None = None, speaking: str | None = None, timeout: float = 15.0
    ) -> None:
        """Connects and reads the keyring.

        `key_id` names one key of the keys directory; `speaking` asks for any key at hand that may say that event type.
        Raises ConfigurationError (no broker, no key), UnavailableError (broker or keyring not there).
        """
        log_as_a_library()
        self.settings = settings
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._readers: set[Reader] = set()
        self._admin = KafkaAdmin(settings, timeout=timeout)
        self._check_lanes()
        self._gate = Gate(settings, timeout)
        try:
            keyring = self._gate.keyring
            signer = (
                open_signer_for(settings, speaking, keyring)
                if speaking is not None and key_id is None
                else open_client_signer(settings, key_id, keyring)
            )
            principal = keyring.principal_of(signer.key_id)
            if principal is None:
                raise ConfigurationError(
                    f"the key {signer.key_id} is not in the keyring (version {keyring.version}); an operator adds it "
                    "with `ai-infra keys new`"
                )
            self.principal = principal.id
            self._signer = signer
            session = Session(
                signer,
                principal.id,
                keyring.events_of(principal.id),
                lambda: self._gate.keyring.version,
                timedelta(hours=settings.keys.delegation_hours),
            )
            self._publisher = Publisher(settings, session, self._closed)
        except BaseException:
            self._gate.close()
            raise

    @classmethod
    def from_env(cls, *, key_id: str | None = None, speaking: str | None = None, **overrides: Any) -> Self:
        """A client by the settings of the environment, `.env` and the stack on this machine (docs/configuration.md)."""
        return cls(load_settings(**overrides), key_id=key_id, speaking=speaking)

    # -- saying --------------------------------------------------------------------------------------------------------

    def publish(
        self,
        body: Body,
        *,
        key: str | None = None,
        subject: str | None = None,
        causes: tuple[Cause, ...] = (),
        traceparent: str | None = None,
        timeout: float = SEND_SECONDS,
    ) -> Published:
        """Sign a body and send it until a broker has acknowledged it.

        Raises NotAllowed for what this principal may not say, an EventError for what no reader would take,
        NotAcknowledged after `timeout` seconds.
        """
        self._check_open()
        self._check_allowed(body)
        record = self._publisher.sign(body, key=key, subject=subject, causes=causes, traceparent=traceparent)
        published = self._published([record])
        self._publisher.send(published, timeout)
        return published[0]

    def publish_many(self, bodies: Iterable[Body], *, timeout: float = SEND_SECONDS) -> list[Published]:
        """Sign and send many at once, which is several times as fast as one by one.

        All are signed before the first is sent: where one of them is refused, none was said. They arrive in their order
        within a type and lane, but for what a failing broker makes necessary to send again. Raises as `publish` does;
        `NotAcknowledged.waiting` are those that are not known to have arrived.
        """
        self._check_open()
        records = []
        for body in bodies:
            self._check_allowed(body)
            records.append(self._publisher.sign(body))
        published = self._published(records)
        self._publisher.send(published, timeout)
        return published

    def resend(self, *published: Published, timeout: float = SEND_SECONDS) -> None:
        """Send the very same signed bytes again; who has heard them already hears them once."""
        self._check_open()
        self._publisher.send(published, timeout)

    def approve(
        self,
        promotion_id: str,
        *,
        model: str,
        decision: ApprovalDecision = ApprovalDecision.APPROVE,
        reason: str = "",
        valid_for: timedelta = timedelta(days=14),
        timeout: float = ANSWER_SECONDS,
    ) -> Published:
        """Say yes or no to a promotion, as a statement that anybody can verify offline. Needs an approver's key.

        What is approved (request, artifact, manifest) is read from the log first: an approval binds all of it.
        """
        body = approval(
            self._history(model, READS, timeout),
            promotion_id=promotion_id,
            approver=self.principal,
            decision=decision,
            reason=reason,
            valid_for=valid_for,
            keyring=self._gate.keyring.version,
            key_id=self._signer.key_id,
            sign=self._signer.sign,
        )
        return self.publish(body, subject=promotion_id)

    # -- waiting -------------------------------------------------------------------------------------------------------

    @overload
    def wait(self, what: Job, timeout: float = ...) -> JobResult: ...
    @overload
    def wait(self, what: Promotion, timeout: float = ...) -> PromotionResult: ...

    def wait(self, what: Job | Promotion, timeout: float = ANSWER_SECONDS) -> JobResult | PromotionResult:
        """What came of it: a completed job with its registered artifact, or an applied promotion.

        Raises EventRefusedError, JobFailedError, ArtifactRefusedError or PromotionRejectedError with all reasons, and
        AnswerTimeout after `timeout` seconds: then wait again, nothing is missed.
        """
        event_id = what.published.id if what.published else None
        known = what.published.positions if what.published else {}
        lane = lane_of(what.model, self.settings.log.lanes)
        if isinstance(what, Job):
            jobs = JobWatch(what.job_id, event_id)
            return self._watch(jobs, what.model, lane, known, timeout, f"job {what.job_id}")
        promotions = PromotionWatch(what.promotion_id, event_id, what.again)
        known = {} if what.again else known
        return self._watch(promotions, what.model, lane, known, timeout, f"promotion {what.promotion_id}")

    def wait_for(
        self,
        published: Published,
        until: Callable[[Event[Any]], T | None],
        *,
        types: Iterable[Any] | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> T:
        """The first thing that `until` returns for an event of the lane said since `published` was (None and False
        are no answer). `types`: event types to look at; without them, those that answer the published type.

        Raises EventRefusedError where the published event itself was refused, AnswerTimeout after `timeout` seconds.
        """
        topics = answer_topics(published.type) if types is None else event_types(types)
        watch = PredicateWatch(published.id, topics, until)
        name = f"{published.type} {published.id}"
        return self._watch(watch, published.model, published.lane, published.positions, timeout, name)

    def job(self, job_id: str, *, model: str) -> Job:
        """A job that was asked for elsewhere, to wait for: it is looked for in all that Kafka still has."""
        return Job(_uuid(job_id, "job_id"), model)

    def promotion(self, promotion_id: str, *, model: str, env: Environment | str) -> Promotion:
        """A promotion or rollback that was asked for elsewhere, to wait for."""
        return Promotion(promotion_id, model, environment(env))

    # -- listening -----------------------------------------------------------------------------------------------------

    def subscribe(self, types: Any, *, model: str | None = None, from_: From = "latest") -> Subscription:
        """Verified events of these types (names or body classes), of one model or of all, as they are committed.

        `from_`: "latest" (from now on), "earliest" (all that Kafka still has), or a time.
        """
        self._check_open()
        names = event_types(types)
        offsets = offsets_from(self._admin, names, model, self.settings.log.lanes, from_)
        reader = self._reader(offsets)
        return Subscription(reader, model, lambda: self._end(reader))

    def history(self, types: Any, *, model: str, timeout: float = ANSWER_SECONDS) -> Sequence[Event[Any]]:
        """All events of these types about a model that Kafka still has, in the order in which they were appended."""
        return sorted(
            self._history(model, event_types(types), timeout), key=lambda e: (e.append_time, e.type, e.record.offset)
        )

    # -- proof -------------------------------------------------------------------------------------------------------

    def receipt(self, published: Published, *, archive: str | None = None, timeout: float = ANSWER_SECONDS) -> Receipt:
        """Proof that an own event is in the log, as soon as a checkpoint covers it.

        Reads the archive (`archive`: s3://bucket or a folder; else AI_INFRA_ARCHIVE_BUCKET), so it needs the extra
        `ai-infra[objects]` and the right to read there. Raises AnswerTimeout.
        """
        from ai_infra.client.receipts import Receipts, archive_at, await_receipt

        self._check_open()
        where = archive or f"s3://{self.settings.objects.archive_bucket}"
        reader = self._reader(ends(self._admin, [(AuditCheckpoint.TOPIC, published.lane)]))
        try:
            with archive_at(where, self.settings) as found:
                receipts = Receipts(found, self.settings.log.origin, published.lane, lambda: self._gate.keyring)
                return await_receipt(receipts, published, reader.poll, self._closed, timeout)
        finally:
            self._end(reader)

    # -- the rest ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends waits and subscriptions of all threads with ClientClosed, and the connection."""
        if self._closed.is_set():
            return
        self._closed.set()
        with self._lock:
            readers, self._readers = self._readers, set()
        for reader in readers:
            reader.close()
        self._publisher.close()
        self._gate.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _published(self, records: Sequence[SignedRecord]) -> list[Published]:
        """With the ends of the topics that can answer, taken before anything is sent."""
        places = {(topic, r.partition) for r in records for topic in answer_topics(r.topic)}
        found = ends(self._admin, sorted(places))
        return [
            Published(
                id=record.id,
                type=record.topic,
                model=model_of(record.key.decode()),
                lane=record.partition,
                hash=record.hash,
                record=record,
                positions={topic: found[topic, record.partition] for topic in answer_topics(record.topic)},
            )
            for record in records
        ]

    def _watch(self, watch: Watch[T], model: str, lane: int, known: Mapping[str, int], timeout: float, name: str) -> T:
        """`known`: from where on answers can lie, by topic; without it, all that Kafka has is read."""
        deadline = time.monotonic() + timeout
        offsets = {(topic, lane): known[topic] for topic in watch.topics if topic in known}
        offsets |= starts(self._admin, [(topic, lane) for topic in watch.topics if topic not in known])
        reader = self._reader(offsets)
        try:
            while (left := deadline - time.monotonic()) > 0:
                for event in reader.poll(left):
                    if event.model == model and (found := watch.see(event)) is not None:
                        return found
        finally:
            self._end(reader)
        raise AnswerTimeout(
            f"no answer about {name} within {timeout:.0f} s: {watch.seen()}. Wait again (nothing is missed), or see "
            "`ai-infra status`"
        )

    def _history(self, model: str, types: tuple[str, ...], timeout: float) -> list[Event[Any]]:
        lane = lane_of(model, self.settings.log.lanes)
        marks = self._admin.watermarks([(topic, lane) for topic in types])
        reader = self._reader({p: mark.low for p, mark in marks.items()})
        try:
            found = reader.until({p: mark.high for p, mark in marks.items()}, timeout)
            return [event for event in found if event.model == model]
        finally:
            self._end(reader)

    def _reader(self, offsets: Mapping[tuple[str, int], int]) -> Reader:
        self._check_open()
        reader = Reader(self.settings, self._gate, offsets, self._closed)
        with self._lock:
            self._readers.add(reader)
        return reader

    def _end(self, reader: Reader) -> None:
        with self._lock:
            mine = reader in self._readers
            self._readers.discard(reader)
        if mine:
            reader.close()

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise ClientClosed("this client is closed; make a new one")

    def _check_lanes(self) -> None:
        """More or fewer lanes than the log has would put events where nobody looks for them."""
        found = self._admin.topics().get(JobQueued.TOPIC)
        if found is None:
            raise ConfigurationError(f"there is no topic {JobQueued.TOPIC}; create the topics: ai-infra topics create")
        if found.partitions != self.settings.log.lanes:
            raise ConfigurationError(
                f"the log has {found.partitions} lanes, AI_INFRA_LANES says {self.settings.log.lanes}; set it to "
                f"{found.partitions}"
            )

    def _check_allowed(self, body: Body) -> None:
        keyring = self._gate.keyring
        principal = keyring.principals.get(self.principal)
        if principal is None:
            raise NotAllowed(f"{self.principal} is no longer in the keyring (version {keyring.version})")
        model = getattr(body, "model", None)
        env = getattr(body, "target_env", None) or getattr(body, "env", None)
        if not keyring.may_say(principal, body.TOPIC, model=model, environment=None if env is None else str(env)):
            raise NotAllowed(
                f"{self.principal} may not say {body.TOPIC}"
                + (f" of {model}" if model else "")
                + (f" in {env}" if env else "")
                + f"; it may say {', '.join(keyring.events_of(self.principal)) or 'nothing'} "
                "(`ai-infra keys list` shows the roles, `ai-infra keys grant` gives one)"
            )


def _uuid(text: str, name: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ConfigurationError(f"{name} is a UUID, not {text!r}") from None
