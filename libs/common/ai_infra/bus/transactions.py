"""The transactional producer: begin, produce, send offsets, commit, each with the answer that its error asks for.

Errors (KIP-447, librdkafka): `retriable()` means the same call again under one deadline; `txn_requires_abort()` means
abort and begin again from the input; anything else has an unknown outcome, and the process must give the producer up.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any, Final

from confluent_kafka import KafkaException, Producer, TopicPartition

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.consume import RestartNeededError
from ai_infra.bus.kafka_config import transactional_config, transactional_id_prefix
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings

CALL_DEADLINE_SECONDS: Final = 30.0


class AbortNeededError(AiInfraError):
    """The transaction was aborted; nothing of it happened, and its input must be read again."""

    code = "aborted"


class TransactionalProducer:
    """One producer with a transactional id of its own; use from one thread."""

    def __init__(self, settings: Settings, *, service: str) -> None:
        # Random per process: a name that outlives it would have to be given out, and two owners would fence each other.
        transactional_id = f"{transactional_id_prefix(service)}{uuid.uuid4()}"
        self._producer = Producer(transactional_config(settings, service, transactional_id))

    def initialise(self) -> None:
        self._call("init_transactions", self._producer.init_transactions)

    def transact(self, records: Iterable[Outgoing], offsets: list[TopicPartition], group_metadata: Any) -> None:
        """Produces all records and commits all offsets, or neither. Raises `AbortNeededError`, `RestartNeededError`."""
        try:
            self._call("begin_transaction", lambda _: self._producer.begin_transaction())
            for record in records:
                self._produce(record)
            if offsets:
                self._call(
                    "send_offsets_to_transaction",
                    lambda t: self._producer.send_offsets_to_transaction(offsets, group_metadata, t),
                )
            self._call("commit_transaction", self._producer.commit_transaction)
        except AbortNeededError:
            self._call("abort_transaction", self._producer.abort_transaction)
            raise

    def close(self) -> None:
        """Waits a little for what is on its way; an open transaction is left to time out."""
        self._producer.flush(1.0)

    def _produce(self, record: Outgoing) -> None:
        deadline = time.monotonic() + CALL_DEADLINE_SECONDS
        while True:
            try:
                self._producer.produce(
                    record.topic,
                    key=record.key,
                    value=record.value,
                    headers=list(record.headers),
                    partition=record.partition,
                )
            except BufferError:
                if time.monotonic() > deadline:
                    raise AbortNeededError(
                        f"the producer's queue has been full for {CALL_DEADLINE_SECONDS:.0f} s; is the broker there?"
                    ) from None
                self._producer.poll(0.1)
            except KafkaException as error:
                self._raise("produce", error)
            else:
                return

    def _call(self, what: str, call: Callable[[float], Any]) -> None:
        deadline = time.monotonic() + CALL_DEADLINE_SECONDS
        while True:
            try:
                call(max(0.1, deadline - time.monotonic()))
            except KafkaException as error:
                if error.args[0].retriable() and time.monotonic() < deadline:
                    self._producer.poll(0.1)
                    continue
                self._raise(what, error)
            else:
                return

    @staticmethod
    def _raise(what: str, error: KafkaException) -> None:
        kafka_error = error.args[0]
        if kafka_error.txn_requires_abort():
            raise AbortNeededError(f"{what}: {kafka_error.str()}", code=kafka_error.name().lower()) from error
        raise RestartNeededError(
            f"{what} failed with {kafka_error.name()}: {kafka_error.str()}. What became of the transaction is not "
            "known here, so this process ends; started again, it goes on from what was committed"
        ) from error
