"""What everyone must know, read whole before anything else is done and followed from then on: keyrings and policies.

`signer.changed` and `policy.changed` have one partition and are read without a group. A keyring proves itself by the
root keys; a policy is an event like any other, verified by the keyring. What does not verify is counted and passed
over: it must never stop a reader, and never become known to it.
"""

from __future__ import annotations

import time
from typing import Final

import orjson
import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from ai_infra.bus.decision import NO_POLICY, PolicyView
from ai_infra.bus.kafka.config import reader_config
from ai_infra.bus.kafka.consume import check_message_error, record_from_message
from ai_infra.bus.kafka.schema_registry import verifier_for
from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Record
from ai_infra.events.generated import PolicyChanged, SignerChanged
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.trust.exceptions import AwaitKeyring
from ai_infra.trust.keyring_event import take_keyring_event
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import load_roots
from ai_infra.trust.verify import Verifier

log = structlog.get_logger(__name__)

TOPICS: Final = (SignerChanged.TOPIC, PolicyChanged.TOPIC)


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
        self._service = service
        self._policy = NO_POLICY
        self._records: dict[str, list[Record]] = {topic: [] for topic in TOPICS}
        self._waiting: list[Record] = []
        self._positions = dict.fromkeys(TOPICS, 0)
        self._consumer = Consumer(reader_config(settings, f"{service}.broadcast"))
        self._consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in TOPICS])

    @property
    def policy(self) -> PolicyView:
        """The newest policy; version 0 with an empty document before the first."""
        return self._policy

    def catch_up(self, timeout: float) -> None:
        """Reads both topics to their ends. Raises UnavailableError where that takes longer than `timeout` seconds, or
        where no keyring has been published."""
        deadline = time.monotonic() + timeout
        ends = {topic: self._end(topic, timeout) for topic in TOPICS}
        while behind := [topic for topic in TOPICS if self._positions[topic] < ends[topic]]:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the broadcast topics were not read to their ends within {timeout:.0f} s "
                    f"(behind: {', '.join(behind)}); is the broker there?"
                )
            self._read(0.05)
        if self.keyrings.latest_version == 0:
            raise UnavailableError(
                f"no keyring that the pinned roots have signed is published on {SignerChanged.TOPIC}; publish one with "
                "`ai-infra keys publish`, or see that AI_INFRA_TRUST_ROOTS names the roots of this log"
            )

    def poll(self) -> None:
        """Takes what has come; does not wait."""
        self._read(0)

    def records_of(self, topic: str, from_offset: int = 0) -> list[Record]:
        """Accepted records of a broadcast topic from an offset on, in their order."""
        return [r for r in self._records[topic] if r.offset >= from_offset]

    def _end(self, topic: str, timeout: float) -> int:
        try:
            marks = self._consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout)
        except KafkaException as error:
            raise UnavailableError(
                f"the end of {topic} cannot be read: {error.args[0].str()}; is the broker there, and has "
                "`ai-infra topics create` been run?"
            ) from error
        if marks is None:
            raise UnavailableError(f"the end of {topic} was not told within {timeout:.0f} s; is the broker there?")
        return int(marks[1])

    def close(self) -> None:
        self._consumer.close()

    def _read(self, timeout: float) -> None:
        for message in self._consumer.consume(100, timeout=timeout):
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    check_message_error(error, f"ai-infra.{self._service}.broadcast")
                continue
            record = record_from_message(message)
            self._positions[record.topic] = record.offset + 1
            self._take(record)

    def _take(self, record: Record) -> None:
        try:
            if record.topic == SignerChanged.TOPIC:
                self._take_keyring(record)
            elif self.keyrings.latest_version == 0:
                self._waiting.append(record)  # the topics come in no order: judged once the first keyring is known
            else:
                self._take_policy(record)
        except AwaitKeyring:
            self._waiting.append(record)
        except UnavailableError:
            raise  # the schema registry: what it would have said must not be passed over
        except AiInfraError as refused:
            metrics.BUS_ERRORS.labels(self._service, refused.code).inc()
            log.error("broadcast record ignored", topic=record.topic, offset=record.offset, why=str(refused))

    def _take_keyring(self, record: Record) -> None:
        take_keyring_event(record, self.keyrings, self.verifier, lanes=1)
        self._records[record.topic].append(record)
        metrics.TRUST_KEYRING_VERSION.labels(self._service).set(self.keyrings.latest_version)
        waiting, self._waiting = self._waiting, []
        for earlier in waiting:
            self._take(earlier)

    def _take_policy(self, record: Record) -> None:
        event = self.verifier.verify(record)
        body = event.body
        if not isinstance(body, PolicyChanged):
            raise TypeError(f"{record.topic} carries {type(body).__name__}")
        text = body.policy_json.encode()
        if sha256_hex(text) != body.policy_sha256 or body.version <= self._policy.version:
            raise AiInfraError(
                f"policy version {body.version} does not follow version {self._policy.version}, or its SHA-256 is not "
                f"{body.policy_sha256}",
                code="bad_policy",
            )
        self._policy = PolicyView(version=body.version, sha256=body.policy_sha256, document=orjson.loads(text))
        self._records[record.topic].append(record)
