"""Bringing a lane's state back from the compacted topic, in the only order that is safe.

First the committed offsets of the whole lane (the broker answers only when no transaction is pending on them), then the
end of the state partition, then the state up to that end. The end read first would give new offsets with old state: one
batch lost, a version number given twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.config import opened, reader_config
from ai_infra.bus.kafka.consume import LostOffsetsError, RestartNeededError, record_from_message
from ai_infra.bus.lane import Lane
from ai_infra.bus.state_records import read_state_record
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.trust.exceptions import AwaitKeyring
from ai_infra.trust.verify import Verifier

log = structlog.get_logger(__name__)

STALLED_SECONDS: Final = 60.0  # with nothing new to read: longer than a dead process's transaction can hold it back
CALL_SECONDS: Final = 30.0
Offsets = dict[tuple[str, int], int]


class Restorer:
    """Reads lanes' state back; use from one thread.

    `make_lane(number)` gives an empty lane; `catch_up()` reads the broadcast topics to their ends as of now.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        service: str,
        verifier: Verifier,
        make_lane: Callable[[int], Lane],
        catch_up: Callable[[], None],
    ) -> None:
        self._service = service
        self._topic = f"{service}.state"
        self._verifier = verifier
        self._make_lane = make_lane
        self._catch_up = catch_up
        self._admin = KafkaAdmin(settings, timeout=CALL_SECONDS)
        self._reader = opened(Consumer, reader_config(settings, f"{service}.restore"))

    def restore(
        self,
        number: int,
        partitions: list[tuple[str, int]],
        consumer: Consumer,
        group: str,
        place: Callable[[Offsets], None],
    ) -> tuple[Lane, Offsets]:
        """The lane as it was after the last committed transaction, and where its input goes on. `place` is told that
        first: what it raises ends the restoring before the state is read."""
        with metrics.BUS_RESTORE.labels(self._service).time():
            offsets = self._committed(partitions, consumer, group)
            place(offsets)
            end = self._end_of_state(number)
            lane = self._make_lane(number)
            read, ignored = self._read(lane, number, end)
            lane.loaded()
        log.info("lane restored", lane=number, records=len(lane.state), read=read, ignored=ignored)
        return lane, offsets

    def close(self) -> None:
        self._reader.close()

    def _committed(self, partitions: list[tuple[str, int]], consumer: Consumer, group: str) -> Offsets:
        deadline = time.monotonic() + CALL_SECONDS
        while True:
            try:
                found = consumer.committed([TopicPartition(t, p) for t, p in partitions], timeout=CALL_SECONDS)
                break
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise RestartNeededError(
                        f"the committed offsets of {group} cannot be read: {error.args[0].str()}"
                    ) from error
        offsets: Offsets = {}
        for place in found:
            if place.error is not None:
                raise RestartNeededError(
                    f"the committed offset of {place.topic}[{place.partition}]: {place.error.str()}"
                )
            if place.offset == OFFSET_INVALID:
                raise LostOffsetsError(
                    f"group {group} has no committed offset for {place.topic}[{place.partition}]: expected one from "
                    "the start, made by `ai-infra topics create`. If the group was deleted, place it with "
                    "`ai-infra groups seek`"
                )
            offsets[(place.topic, place.partition)] = place.offset
        return offsets

    def _end_of_state(self, number: int) -> int:
        """The end of the state partition, open transactions included: LSO would hide what was committed behind them."""
        place = (self._topic, number)
        return self._admin.ends([place])[place]

    def _read(self, lane: Lane, number: int, end: int) -> tuple[int, int]:
        """Loads the partition up to `end`; how many records were read, and how many of them ignored."""
        loading = _Loading(lane, self._service, self._verifier, self._catch_up)
        if end == 0:
            return 0, 0
        self._reader.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING)])
        deadline = time.monotonic() + STALLED_SECONDS
        try:
            while True:
                messages = self._reader.consume(1_000, timeout=0.2)
                if any(message.error() is None for message in messages):
                    deadline = time.monotonic() + STALLED_SECONDS
                elif time.monotonic() > deadline:
                    raise RestartNeededError(
                        f"{self._topic}[{number}] was not read to {end}: nothing new came within "
                        f"{STALLED_SECONDS:.0f} s, after {loading.read} records"
                    )
                for message in messages:
                    error = message.error()
                    if error is None:
                        loading.take(record_from_message(message, own=True))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        if (message.offset() or 0) >= end:
                            return loading.read, loading.ignored
                        # Else the last stable offset: a dead process's transaction has yet to time out.
                    elif error.code() in {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}:
                        raise RestartNeededError(f"{self._topic}[{number}] cannot be read: {error.str()}")
        finally:
            self._reader.unassign()


class _Loading:
    """State records of one lane into its state, each once it is proven and in its order."""

    def __init__(self, lane: Lane, service: str, verifier: Verifier, catch_up: Callable[[], None]) -> None:
        self.read = self.ignored = 0
        self._state = lane.state
        self._service = service
        self._verifier = verifier
        self._catch_up = catch_up
        self._caught_up = False

    def take(self, record: Record) -> None:
        self.read += 1
        try:
            key, counter = self._proven(record)
        except AiInfraError as refused:
            self._ignore(record, refused.code, str(refused))
            return
        # Numbers only grow in a lane, and compaction keeps the order: what comes later with a lower one was brought
        # back by somebody, be it to a key of which nothing newer is left.
        if counter <= self._state.counter:
            self._ignore(record, "old_state", f"{key} has number {counter}, after {self._state.counter}")
            return
        self._state.counter = counter
        self._state.load(key, record.value)

    def _proven(self, record: Record) -> tuple[str, int]:
        try:
            return read_state_record(record, self._verifier, service=self._service)
        except AwaitKeyring:
            if self._caught_up:
                raise
            # Who wrote it had read that keyring, so it is on the broadcast topic by now, or nowhere: one look will do.
            self._caught_up = True
            self._catch_up()
            return read_state_record(record, self._verifier, service=self._service)

    def _ignore(self, record: Record, code: str, why: str) -> None:
        self.ignored += 1
        metrics.BUS_ERRORS.labels(self._service, code).inc()
        log.error("state record ignored", topic=record.topic, offset=record.offset, code=code, why=why)
