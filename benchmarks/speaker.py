"""Signed events of one principal, made in advance, so that what is measured is what comes after them.

They are made with the room that services use (`events.compose`), numbered like a service's where that is wanted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from ai_infra.bus.kafka.config import producer_config
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Cause
from ai_infra.events.generated import DatasetRef, JobQueued, JobStatus, JobStatusKind
from ai_infra.events.generated.job_queued import Resources
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings
from ai_infra.trust.keyring_files import latest_keyring
from ai_infra.trust.open import open_client_signer
from ai_infra.trust.session import Session

FLUSH_SECONDS = 120.0


def now_ms() -> datetime:
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def open_session(settings: Settings, key_id: str) -> Session:
    """A session of any key of the stack's keys directory."""
    if settings.keys.dir is None or (keyring := latest_keyring(settings.keys.dir)) is None:
        raise RuntimeError("the benchmark's stack has no keys; is it up?")
    principal = keyring.principal_of(key_id)
    if principal is None:
        raise RuntimeError(f"the keyring has no key {key_id}")
    signer = open_client_signer(settings, key_id, keyring)
    return Session(signer, principal.id, keyring.events_of(principal.id), lambda: keyring.version)


class Speaker:
    """Composes events of one key. A counted one numbers them per lane, in an epoch of its own."""

    def __init__(self, settings: Settings, key_id: str, *, counted: bool) -> None:
        self.session = open_session(settings, key_id)
        self.lanes = settings.log.lanes
        self._counted = counted
        self._epoch = int(time.time() * 1000)
        self._heads: dict[int, tuple[int, str | None]] = {}

    def say(self, body: Any, *, causes: tuple[Cause, ...] = ()) -> SignedRecord:
        lane = lane_of(body.model, self.lanes)
        counted: dict[str, Any] = {}
        seq, prev = self._heads.get(lane, (0, None))
        if self._counted:
            producer = f"{self.session.service}/{lane}"
            counted = {"producer": producer, "epoch": self._epoch, "seq": seq + 1, "prev": prev}
        signed = compose(
            body,
            key=body.model,
            lane=lane,
            id=uuid7(),
            time=now_ms(),
            source="/benchmarks",
            subject=None,
            signer=self.session.signer_id,
            keyring=self.session.keyring,
            delegation=self.session.delegation,
            sign=self.session.sign,
            causes=causes,
            **counted,
        )
        self._heads[lane] = (seq + 1, signed.hash)
        return signed


@dataclass
class Flood:
    """Puts records on their topics as fast as librdkafka takes them."""

    producer: Producer

    @classmethod
    def open(cls, settings: Settings) -> Flood:
        return cls(Producer(producer_config(settings, "bench", **{"queue.buffering.max.messages": 1_000_000})))

    def send(self, records: list[SignedRecord], *, topic: str | None = None) -> None:
        """Returns when all are acknowledged. `topic` instead of the records' own."""
        for record in records:
            produce(self.producer, record, topic or record.topic)
        if self.producer.flush(FLUSH_SECONDS) != 0:
            raise RuntimeError(f"the broker has not acknowledged all records within {FLUSH_SECONDS:.0f} s")

    def send_one(self, record: SignedRecord) -> float:
        """Returns the broker's append time, seconds since the epoch."""
        appended: list[float] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                appended.append(message.timestamp()[1] / 1000)

        self.producer.produce(
            record.topic,
            key=record.key,
            value=record.value,
            headers=list(record.headers),
            partition=record.partition,
            on_delivery=delivered,
        )
        self.producer.flush(FLUSH_SECONDS)
        if not appended:
            raise RuntimeError(f"{record.topic} was not acknowledged")
        return appended[0]


def produce(producer: Producer, record: SignedRecord, topic: str) -> None:
    """One record into the producer's queue, waiting while that is full."""
    while True:
        try:
            producer.produce(
                topic, key=record.key, value=record.value, headers=list(record.headers), partition=record.partition
            )
        except BufferError:
            producer.poll(0.01)
        else:
            return


def job(number: int, requested_by: str) -> JobQueued:
    """A job as an orchestrator asks for it, of one of 64 models."""
    return JobQueued(
        job_id=uuid7(),
        model=f"bench-{number % 64}",
        template="https://example.org/templates/digits/v1",
        code_ref="git+https://example.org/models/digits@" + "a" * 40,
        container_digest="sha256:" + "b" * 64,
        dataset_refs=(
            DatasetRef(id="digits", checksum="sha256:" + "c" * 64, version="1", uri="s3://datasets/digits.csv"),
        ),
        hyperparams_json='{"c":0.1,"epochs":20}',
        seed=number,
        training_cmd=("python", "train.py", "--epochs", "20"),
        resources=Resources(cpu_millis=1000, memory_mib=1024),
        time_limit_s=600,
        requested_by=requested_by,
        parent_artifacts=(),
    )


def status(asked: JobQueued, kind: JobStatusKind) -> JobStatus:
    """What a trainer says about a job."""
    now = now_ms()
    return JobStatus(
        job_id=asked.job_id,
        model=asked.model,
        status=kind,
        attempt=1,
        runner="bench-0",
        log_uri=f"s3://models/logs/{asked.job_id}.log",
        log_sha256="d" * 64,
        queued_time=now,
        started_time=now,
        ended_time=None if kind is JobStatusKind.RUNNING else now,
        reason_code="" if kind is JobStatusKind.RUNNING else "exit_code",
        reason="",
        rules="trainer/v1",
    )


def statuses(trainer: Speaker, number: int) -> list[SignedRecord]:
    """So many counted events of one type: what a service hears most of."""
    return [trainer.say(status(job(i, "orchestrator"), JobStatusKind.RUNNING)) for i in range(number)]


def histories(orchestrator: Speaker, trainer: Speaker, events: int) -> Iterator[SignedRecord]:
    """Jobs with their course: asked for (uncounted), running, failed (counted, each caused by the one before)."""
    for i in range(events // 3):
        asked = job(i, "orchestrator")
        queued = orchestrator.say(asked)
        yield queued
        running = trainer.say(status(asked, JobStatusKind.RUNNING), causes=(Cause(queued.id, queued.partition),))
        yield running
        yield trainer.say(status(asked, JobStatusKind.FAILED), causes=(Cause(running.id, running.partition),))
