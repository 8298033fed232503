"""What everyone must know, read whole before anything else is done and followed from then on: keyrings and policies.

`signer.changed` and `policy.changed` have one partition and are read without a group. A keyring proves itself by the
root keys; a policy is an event like any other, verified by the keyring. What does not verify is counted and passed
over: it must never stop a reader, and never become known to it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from ai_infra.bus.decision import NO_POLICY, PolicyView
from ai_infra.bus.kafka.admin import BETWEEN_ATTEMPTS, LEADER_MOVED, UNREACHABLE
from ai_infra.bus.kafka.config import no_broker, opened, reader_config
from ai_infra.bus.kafka.consume import check_reader_error, record_from_message
from ai_infra.bus.kafka.schema_registry import verifier_for
from ai_infra.bus.policy import successor
from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.event import Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import PolicyChanged, SignerChanged
from ai_infra.events.parse import parse_headers
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyring_event import take_keyring_event
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import load_roots
from ai_infra.trust.verify import Verifier

log = structlog.get_logger(__name__)

TOPICS: Final = (SignerChanged.TOPIC, PolicyChanged.TOPIC)
SETTLE_SECONDS: Final = 10.0  # how long a policy that names a newer keyring may hold up its reader
# How long one question may take, the first and any later one: while the client waits, nobody sees that it should stop.
FIRST_ASK_SECONDS: Final = 0.5
ASK_SECONDS: Final = 3.0


class Patience:
    """How long something may take; no longer at all once `stop` is set."""

    def __init__(self, seconds: float, stop: threading.Event | None = None) -> None:
        self._deadline = time.monotonic() + seconds
        self._stop = stop

    @property
    def left(self) -> float:
        """Seconds, 0 when it is over."""
        if self._stop is not None and self._stop.is_set():
            return 0.0
        return max(0.0, self._deadline - time.monotonic())


class Broadcast:
    """Follows the broadcast topics. Use from one thread; `keyrings` and `policy` may be read from any."""

    def __init__(
        self,
        settings: Settings,
        *,
        service: str = "reader",
        keyrings: Keyrings | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """Connects; reads nothing yet. What is not given is made from the pinned roots of the settings."""
        self.keyrings = keyrings if keyrings is not None else Keyrings(load_roots(settings))
        self.verifier = verifier if verifier is not None else verifier_for(settings, self.keyrings)
        self._settings = settings
        self._service = service
        self._policy = NO_POLICY
        self._records: dict[str, list[Record]] = {topic: [] for topic in TOPICS}
        self._waiting: list[Record] = []  # policies, in their order, the first of which names an unknown keyring
        self._since: list[tuple[int, Keyring]] = []  # append time (ms) of what brought a keyring
        self._positions = dict.fromkeys(TOPICS, 0)
        self._consumer = opened(Consumer, reader_config(settings, f"{service}.broadcast"))
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in TOPICS])

    @property
    def policy(self) -> PolicyView:
        """The newest policy; version 0 with an empty document before the first."""
        return self._policy

    def catch_up(self, timeout: float, *, keyring: bool = True, stop: threading.Event | None = None) -> None:
        """Reads both topics to their ends. Raises UnavailableError where that takes longer than `timeout` seconds, or
        until `stop` is set, and where no keyring has been published (unless `keyring` is False: for who publishes the
        first)."""
        patience = Patience(timeout, stop)
        self._read_to({topic: self._end(topic, patience) for topic in TOPICS}, patience)
        self._settle(patience)
        if keyring and self.keyrings.latest_version == 0:
            raise UnavailableError(
                f"no keyring that the pinned roots have signed is published on {SignerChanged.TOPIC}; publish one with "
                "`ai-infra keys publish`, or see that AI_INFRA_TRUST_ROOTS names the roots of this log"
            )

    def poll(self) -> None:
        """Takes what has come; does not wait, but for the keyring that a policy names and that is not known yet."""
        self._read(0)
        if self._waiting and self.keyrings.latest_version:
            self._settle(Patience(SETTLE_SECONDS))

    def records_of(self, topic: str, from_offset: int = 0) -> list[Record]:
        """Accepted records of a broadcast topic from an offset on, in their order."""
        return [r for r in self._records[topic] if r.offset >= from_offset]

    def _end(self, topic: str, patience: Patience) -> int:
        ask = FIRST_ASK_SECONDS
        while True:
            timeout, ask = max(0.1, min(patience.left, ask)), min(2 * ask, ASK_SECONDS)
            try:
                marks = self._consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout)
            except KafkaException as error:
                # A topic that was just made is known before its leader is, and a broker that just started knows its
                # partitions before it leads them.
                if error.args[0].code() in LEADER_MOVED | UNREACHABLE and patience.left:
                    time.sleep(BETWEEN_ATTEMPTS)  # between two questions
                    continue
                if error.args[0].code() in UNREACHABLE:
                    raise no_broker(self._settings, f"reading {topic}") from None
                raise UnavailableError(
                    f"the end of {topic} cannot be read: {error.args[0].str()}; is the broker there, and has "
                    "`ai-infra topics create` been run?"
                ) from error
            if marks is None:
                raise UnavailableError(f"the end of {topic} was not told in time; is the broker there?")
            return int(marks[1])

    def close(self) -> None:
        self._consumer.close()

    def _read(self, timeout: float) -> None:
        for message in self._consumer.consume(100, timeout=timeout):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    check_reader_error(error, "the reader of the broadcast topics")
                continue
            record = record_from_message(message)
            self._positions[record.topic] = record.offset + 1
            self._take(record)

    def _read_to(self, ends: Mapping[str, int], patience: Patience) -> None:
        while behind := [topic for topic, end in ends.items() if self._positions[topic] < end]:
            if not patience.left:
                raise UnavailableError(
                    f"the broadcast topics were not read to their ends in time (behind: {', '.join(behind)}); is the "
                    "broker there?"
                )
            self._read(0.05)

    def _settle(self, patience: Patience) -> None:
        """Judges the policies that wait for a keyring: who signed one had read that keyring, so it is on its topic by
        now, or nowhere. So junk that names none that exists cannot wait here for ever."""
        while self._waiting and self.keyrings.latest_version:
            number = len(self._waiting)
            self._read_to({SignerChanged.TOPIC: self._end(SignerChanged.TOPIC, patience)}, patience)
            judged, self._waiting = self._waiting[:number], self._waiting[number:]
            for record in judged:
                self._accept(record, self._take_policy)

    def _take(self, record: Record) -> None:
        if record.topic == SignerChanged.TOPIC:
            self._accept(record, self._take_keyring)
        elif self._waiting or self._names_unknown(record):
            self._waiting.append(record)  # and what comes after it, so that all readers judge in one order
        else:
            self._accept(record, self._take_policy)

    def _accept(self, record: Record, take: Callable[[Record], None]) -> None:
        try:
            take(record)
        except UnavailableError:
            raise  # the schema registry: what it would have said must not be passed over
        except AiInfraError as refused:
            metrics.BUS_ERRORS.labels(self._service, refused.code).inc()
            log.error("broadcast record ignored", topic=record.topic, offset=record.offset, why=str(refused))
        except Exception:  # a fault of ours, and no reason for every process to end at every start
            metrics.BUS_ERRORS.labels(self._service, "unreadable").inc()
            log.exception("broadcast record ignored", topic=record.topic, offset=record.offset)

    def _names_unknown(self, record: Record) -> bool:
        return self.keyrings.latest_version == 0 or _named(record) > self.keyrings.latest_version

    def _take_keyring(self, record: Record) -> None:
        before = self.keyrings.latest_version
        try:
            take_keyring_event(record, self.keyrings, self.verifier, lanes=1)
            self._records[record.topic].append(record)
        finally:  # the roots' word counts, whoever brings it
            if self.keyrings.latest_version != before:
                self._since.append((record.append_time_ms, self.keyrings.latest))
                metrics.TRUST_KEYRING_VERSION.labels(self._service).set(self.keyrings.latest_version)

    def _take_policy(self, record: Record) -> None:
        # By the keyring of its time. Judged by today's, a policy in force would end with the key that once signed it,
        # and only in the processes that started after that.
        event = self.verifier.verify(record, caught_up=True, by=self._keyring_at(record))
        body = event.body
        if not isinstance(body, PolicyChanged):
            raise TypeError(f"{record.topic} carries {type(body).__name__}")
        self._policy = successor(self._policy, body)
        self._records[record.topic].append(record)

    def _keyring_at(self, record: Record) -> Keyring:
        """The keyring that was in force when a record was appended, or the newer one that it names itself: brokers'
        clocks differ a little."""
        named = _named(record)
        found = self._since[0][1]
        for since, keyring in self._since:
            if since <= record.append_time_ms or keyring.version <= named:
                found = keyring
        return found


def _named(record: Record) -> int:
    """Version of the keyring that a record names; 0 where it names none."""
    try:
        return parse_headers(record).keyring
    except EventError:
        return 0
