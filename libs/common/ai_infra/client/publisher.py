"""Says events on behalf of a person or a program: signs once, and sends those bytes until a broker acknowledges them.

There is no transaction and no counter: what makes repeating harmless is the event's id, which every reader remembers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from ai_infra.bus.kafka.config import opened, producer_config, unavailable
from ai_infra.bus.kafka.schema_registry import framing
from ai_infra.client.exceptions import ClientClosed, NotAcknowledged
from ai_infra.client.handles import Published
from ai_infra.errors import ConfigurationError
from ai_infra.events.body import Body
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Cause
from ai_infra.events.keys import BROADCAST_TOPICS
from ai_infra.events.lanes import BROADCAST_KEY, lane_of, lane_of_lane_key
from ai_infra.settings import Settings
from ai_infra.telemetry.traces import new_traceparent
from ai_infra.trust.session import Session

ATTEMPT_SECONDS: Final = 10.0  # how long librdkafka itself tries one sending, retries included
_POLL: Final = 0.05
_PASSING: Final = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError._QUEUE_FULL,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._PURGE_QUEUE,
        KafkaError._PURGE_INFLIGHT,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)


class Publisher:
    """Signs and sends. Safe to use from several threads."""

    def __init__(self, settings: Settings, session: Session, closed: threading.Event) -> None:
        self._settings = settings
        self._session = session
        self._lanes = settings.log.lanes
        self._closed = closed
        self._frame = framing(settings)
        self._lock = threading.Lock()
        self._producer = self._open()

    def sign(
        self,
        body: Body,
        *,
        key: str | None = None,
        subject: str | None = None,
        causes: tuple[Cause, ...] = (),
        traceparent: str | None = None,
    ) -> SignedRecord:
        """The signed record for a body, ready to be sent any number of times.

        `key`: needed where the body names no model (`_lane/<p>`). Raises an EventError for what readers would refuse.
        """
        self._session.renew_beside()
        topic = body.TOPIC
        if key is None:
            key = BROADCAST_KEY if topic in BROADCAST_TOPICS else getattr(body, "model", None)
        if key is None:
            raise ConfigurationError(f"{topic} names no model: say which lane it is about, e.g. key='_lane/0'.")
        named = 0 if topic in BROADCAST_TOPICS else lane_of_lane_key(key)
        now = datetime.now(UTC)
        # In this order: another thread may renew it, and an event never names an older keyring than its delegation.
        delegation, keyring = self._session.delegation, self._session.keyring
        return compose(
            body,
            key=key,
            lane=lane_of(key, self._lanes) if named is None else named,
            id=uuid7(),
            time=now.replace(microsecond=now.microsecond // 1000 * 1000),
            source=f"/ai-infra/clients/{self._session.service}",
            subject=subject,
            signer=self._session.signer_id,
            keyring=keyring,
            delegation=delegation,
            sign=self._session.sign,
            causes=causes,
            traceparent=traceparent or new_traceparent(),
            frame=self._frame,
        )

    def send(self, published: Sequence[Published], timeout: float) -> None:
        """Sends the bytes again and again until a broker has acknowledged all of them.

        Raises NotAcknowledged after `timeout` seconds, KafkaUnavailableError where no repetition can help.
        """
        deadline = time.monotonic() + timeout
        waiting = list(published)
        while waiting:
            failed = self._attempt(waiting, deadline)
            if not failed:
                return
            for one, error in failed:
                if not error.fatal() and error.code() not in _PASSING and not error.retriable():
                    raise unavailable(f"publishing {one.type}", error)
            first, error = failed[0]
            if any(error.fatal() for _, error in failed):
                with self._lock:
                    self._producer = self._open()
            waiting = [one for one, _ in failed]
            if time.monotonic() >= deadline:
                others = f" and {len(waiting) - 1} more" if waiting[1:] else ""
                raise NotAcknowledged(
                    f"{first.type} {first.id}{others} not acknowledged within {timeout:.0f} s ({error.str()}); see "
                    "`ai-infra status`, then send the same bytes again: client.resend(*error.waiting)",
                    waiting,
                )

    def close(self) -> None:
        """Gives what is being sent a moment to arrive."""
        self._producer.flush(1.0)

    def _attempt(self, published: Sequence[Published], deadline: float) -> list[tuple[Published, KafkaError]]:
        """Sends each once; what was not acknowledged, and why not."""
        outcome: dict[int, KafkaError | None] = {}  # by place among `published`
        producer = self._producer
        for place, one in enumerate(published):

            def delivered(error: KafkaError | None, _message: Any, place: int = place) -> None:
                outcome[place] = error

            try:
                self._produce(producer, one.record, delivered, deadline)
            except KafkaException as error:
                cause = error.args[0]
                outcome[place] = cause if isinstance(cause, KafkaError) else KafkaError(KafkaError._FAIL)
        while len(outcome) < len(published) and time.monotonic() <= deadline:
            if self._closed.is_set():
                raise ClientClosed(f"the client was closed while {published[0].type} {published[0].id} was being sent")
            producer.poll(_POLL)
        late = KafkaError(KafkaError._MSG_TIMED_OUT)
        errors = ((one, outcome.get(place, late)) for place, one in enumerate(published))
        return [(one, error) for one, error in errors if error is not None]

    def _produce(self, producer: Producer, record: SignedRecord, delivered: Callable[..., None], end: float) -> None:
        while True:
            try:
                producer.produce(
                    record.topic,
                    partition=record.partition,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    on_delivery=delivered,
                )
            except BufferError:  # the bounded queue is full: give it room
                if time.monotonic() > end:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from None
                producer.poll(_POLL)
            else:
                return

    def _open(self) -> Producer:
        return opened(
            Producer,
            producer_config(
                self._settings,
                "client",
                **{
                    "message.timeout.ms": int(ATTEMPT_SECONDS * 1000),
                    "queue.buffering.max.messages": 10_000,
                    # Who publishes waits for the acknowledgement: lingering would be most of that wait. Many at once
                    # fill their batches all the same, while the ones before are under way.
                    "linger.ms": 0,
                },
            ),
        )
