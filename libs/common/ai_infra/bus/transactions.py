"""The transactional producer: begin, produce, send offsets, commit, each with the answer that its error asks for.

Errors (KIP-447, librdkafka): `retriable()` means the same call again under one deadline; `txn_requires_abort()` means
abort and begin again from the input; anything else has an unknown outcome, and the process must give the producer up.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaException, Producer, TopicPartition

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.config import opened, transactional_config, transactional_id_prefix
from ai_infra.bus.kafka.consume import RestartNeededError
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings

CALL_DEADLINE_SECONDS: Final = 15.0  # a transaction is given up by the broker before that
STUCK_SECONDS: Final = 5.0  # how much longer than it was told a call may take before its producer is left behind


class AbortNeededError(AiInfraError):
    """The transaction was aborted; nothing of it happened, and its input must be read again."""

    code = "aborted"


class TransactionalProducer:
    """One producer with a transactional id of its own; use from one thread."""

    def __init__(self, settings: Settings, *, service: str, **ours: Any) -> None:
        """`ours`: settings of librdkafka that this producer needs otherwise than others."""
        # Random per process: a name that outlives it would have to be given out, and two owners would fence each other.
        transactional_id = f"{transactional_id_prefix(service)}{uuid.uuid4()}"
        self._producer = opened(Producer, transactional_config(settings, service, transactional_id, **ours))
        self._beside = _Beside(f"transactions of {service}")

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
        self._beside.close()
        # A producer that is broken for good says so here once more: that is why it is closed, and ends nobody.
        with suppress(KafkaException):
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
            left = max(0.1, deadline - time.monotonic())
            try:
                self._beside.run(partial(call, left), left + STUCK_SECONDS, what)
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


class _Beside:
    """Runs calls on a thread of its own, so that one that never returns can be left behind.

    When a broker restarts at the wrong moment librdkafka's transaction calls may ignore the time that they are given
    and wait for ever (its issues 3779 and 4420): the service must then go on with a new producer.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[BaseException | None]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def run(self, call: Callable[[], Any], timeout: float, what: str) -> None:
        """What the call raises; RestartNeededError when it does not return within `timeout` seconds."""
        outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._calls.put((call, outcome))
        try:
            error = outcome.get(timeout=timeout)
        except queue.Empty:
            raise RestartNeededError(
                f"{what} has not returned within {timeout:.0f} s. What became of the transaction is not known here; "
                "the service goes on with a new producer from what was committed"
            ) from None
        if error is not None:
            raise error

    def close(self) -> None:
        self._calls.put(None)

    def _serve(self) -> None:
        while (item := self._calls.get()) is not None:
            call, outcome = item
            try:
                call()
            except BaseException as error:  # noqa: BLE001 - raised where it was asked for
                outcome.put(error)
            else:
                outcome.put(None)
