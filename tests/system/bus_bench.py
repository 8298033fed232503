"""A workbench for the runtime: replicas of a small service on the stack's broker, as threads or as processes, and all
that was said to and by them.

Each test begins with an empty state and with the group at the ends of its inputs, so that none sees another's events.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import structlog
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.commands import run_command
from tests.system.bus_service import NAME, service

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.config import client_config, producer_config, reader_config
from ai_infra.bus.kafka.consume import record_from_message
from ai_infra.bus.kafka.topics import group_of, own_topics
from ai_infra.bus.process import ServiceProcess, health_server
from ai_infra.bus.run import build_runtime
from ai_infra.bus.service import Service
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.devstack import Stack
from ai_infra.errors import AiInfraError
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Event, Record
from ai_infra.events.generated import (
    CanaryStatus,
    DatasetRef,
    EvaluationRecorded,
    EventRefused,
    OperatorAction,
    PromotionRequested,
)
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings
from ai_infra.telemetry.health import Check
from ai_infra.trust.open import open_client_signer
from ai_infra.trust.session import Session

log = structlog.get_logger(__name__)
ROOT = Path(__file__).resolve().parents[2]
GROUP = group_of(NAME)
STATE, RETRY, DEAD = own_topics(NAME)
INPUTS = (EvaluationRecorded.TOPIC, PromotionRequested.TOPIC, OperatorAction.TOPIC, RETRY)
SECONDS = 45.0  # how long anything may take before a test gives up
DATASET = DatasetRef(id="d", checksum="sha256:" + "0" * 64, version="1", uri="s3://b/d")


def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """Waits until `condition` holds; fails with `what` when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        pause.wait(0.02)  # between two looks
    return found


class Interrupted(TransactionalProducer):
    """The usual producer, with a place to step in: everything of a transaction was sent, only its commit was not."""

    def __init__(self, settings: Settings, before_commit: Callable[[], None]) -> None:
        super().__init__(settings, service=NAME)
        self.before_commit = before_commit
        self.offsets: list[list[TopicPartition]] = []

    def transact(self, records: Iterable[Outgoing], offsets: list[TopicPartition], group_metadata: Any) -> None:
        self.offsets.append(offsets)
        super().transact(records, offsets, group_metadata)

    def _call(self, what: str, call: Callable[[float], Any]) -> None:
        if what == "commit_transaction":
            self.before_commit()
        super()._call(what, call)


class Replica:
    """One replica as a thread of this process: all that a process has, but for its signals."""

    def __init__(self, settings: Settings, what: Service, producer: TransactionalProducer | None = None) -> None:
        self.checks: dict[str, Check] = {}
        self.health = health_server(what.name, settings, self.checks).start()
        self.process = ServiceProcess(what.name, what.says, settings, self.checks)
        self.runtime = build_runtime(what, self.process, producer=producer)
        self.checks |= {
            "lanes": self.runtime.check_lanes,
            "halts": self.runtime.check_halts,
            "transactions": self.runtime.check_transactions,
            "loop": self.runtime.check_loop,
        }
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)

    def start(self) -> Replica:
        self._thread.start()
        return self

    def stop(self) -> None:
        """As a signal would: finish the batch, leave the group."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive(), "the replica does not stop"

    @property
    def lanes(self) -> list[int]:
        return self.runtime.lanes

    def ready(self) -> tuple[int, str]:
        """Status and text of /readyz."""
        answer = httpx.get(f"{self.health.url}/readyz", trust_env=False)
        return answer.status_code, answer.text

    def _run(self) -> None:
        try:
            self.runtime.run(self._stop)
        except BaseException as error:
            self.error = error
            log.exception("the replica has ended")
        finally:
            self.process.close()
            self.health.close()


@dataclass
class Bench:
    """What a test of the runtime works with."""

    stack: Stack
    settings: Settings
    directory: Path
    replicas: list[Replica] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admin = KafkaAdmin(self.settings)
        self.lanes = self.settings.log.lanes
        self._producer = Producer(producer_config(self.settings, "bench"))
        self._broadcast = Broadcast(self.settings, service="bench")
        self._broadcast.catch_up(SECONDS)
        signer = open_client_signer(self.settings)
        self.session = Session(signer, "orchestrator", [EvaluationRecorded.TOPIC], lambda: 1)
        self.empty()
        heard = self._places(*INPUTS, CanaryStatus.TOPIC, EventRefused.TOPIC)
        self.began = {p: m.high for p, m in self.admin.watermarks(heard).items()}

    # -- before and after ----------------------------------------------------------------------------------------------

    def empty(self) -> None:
        """No state, and nothing left to read."""
        until(lambda: not self.admin.group(GROUP).members, "the group of the tests before is gone")
        client = AdminClient(client_config(self.settings, "bench"))
        self.admin.set_topic_config(STATE, {"cleanup.policy": "compact,delete"})
        places = [TopicPartition(STATE, lane, -1) for lane in range(self.lanes)]
        until(lambda: _deleted(client, places), "the state is deleted")
        self.admin.set_topic_config(STATE, {"cleanup.policy": "compact"})
        inputs = self._places(*INPUTS, "promotion.decided", "artifact.revoked")
        self.admin.set_offsets(GROUP, {p: m.high for p, m in self.admin.watermarks(inputs).items()})

    def forget_positions(self) -> None:
        """As if the group had been deleted."""
        client = AdminClient(client_config(self.settings, "bench"))
        client.delete_consumer_groups([GROUP])[GROUP].result()

    def delete_records(self, topic: str) -> None:
        """As if retention had taken everything."""
        client = AdminClient(client_config(self.settings, "bench"))
        until(lambda: _deleted(client, [TopicPartition(topic, lane, -1) for lane in range(self.lanes)]), "deleted")

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for replica in self.replicas:
            replica.stop()
        self.empty()
        self._broadcast.close()

    # -- replicas ------------------------------------------------------------------------------------------------------

    def replica(self, what: Service | None = None, producer: TransactionalProducer | None = None) -> Replica:
        """Starts a replica as a thread."""
        replica = Replica(self.settings, what or service(), producer).start()
        self.replicas.append(replica)
        return replica

    def working(self, *replicas: Replica) -> None:
        """Waits until these replicas share all lanes between them."""
        everything = list(range(self.lanes))
        until(
            lambda: all(r.lanes for r in replicas) and sorted(n for r in replicas for n in r.lanes) == everything,
            f"{len(replicas)} replicas share the lanes",
        )

    def process(self) -> subprocess.Popen[bytes]:
        """Starts a replica as a process of its own."""
        env = {k: v for k, v in self.stack.env().items() if not k.startswith("AI_INFRA_SIGNER")}
        key = self.stack.directory / "keys" / "private" / f"{NAME}-1.key"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.system.bus_service", str(self.directory)],
            cwd=ROOT,
            env={**os.environ, **env, "AI_INFRA_SERVICE_KEY": f"file:{key}"},
            stdout=(self.directory / f"process-{len(self.processes)}.log").open("wb"),
            stderr=subprocess.STDOUT,
        )
        self.processes.append(process)
        return process

    def members(self) -> int:
        """Members of the group as the broker sees them."""
        return len(self.admin.group(GROUP).members)

    def lanes_of_members(self) -> list[set[int]]:
        """Lanes of each member that has some, as the broker sees them."""
        return [{p for _, p in m.partitions} for m in self.admin.group(GROUP).members if m.partitions]

    def positions(self) -> dict[tuple[str, int], int | None]:
        return self.admin.committed(GROUP, self._places(EvaluationRecorded.TOPIC, OperatorAction.TOPIC, RETRY))

    # -- saying --------------------------------------------------------------------------------------------------------

    def model(self, lane: int | None = None) -> str:
        """A model of the test's own, in a lane of its choice."""
        while True:
            name = f"bench-{secrets.token_hex(4)}"
            if lane is None or lane_of(name, self.lanes) == lane:
                return name

    def sign(self, model: str, wish: str = "count", *, keyring: int | None = None) -> SignedRecord:
        """An evaluation that asks the service for something, signed and not sent."""
        event_id = uuid7()
        body = EvaluationRecorded(
            evaluation_id=event_id,
            artifact_id="bench",
            model=model,
            dataset_ref=DATASET,
            score_e6=1,
            metrics_e6={},
            evaluator=wish,
            report_uri=None,
            report_sha256=None,
        )
        now = datetime.now(UTC)
        return compose(
            body,
            key=model,
            lane=lane_of(model, self.lanes),
            id=event_id,
            time=now.replace(microsecond=now.microsecond // 1000 * 1000),
            source="/ai-infra/bench",
            subject=None,
            signer=self.session.signer_id,
            keyring=keyring or self.session.keyring,
            delegation=self.session.delegation,
            sign=self.session.sign,
        )

    def send(self, *records: SignedRecord | Record) -> None:
        """Appends records as they are; returns once the broker has them."""
        for record in records:
            headers = list(record.headers)
            self._producer.produce(
                record.topic, partition=record.partition, key=record.key, value=record.value, headers=headers
            )
        assert self._producer.flush(SECONDS) == 0

    def ask(self, model: str, *wishes: str) -> list[str]:
        """Says one evaluation for each wish; returns their ids."""
        records = [self.sign(model, wish) for wish in wishes or ("count",)]
        self.send(*records)
        return [record.id for record in records]

    # -- hearing -------------------------------------------------------------------------------------------------------

    def records(self, topic: str) -> list[Record]:
        """All committed records of a topic since the test began (of its own topics: all that there are)."""
        marks = self.admin.watermarks(self._places(topic))
        begin = {p: self.began.get(p, m.low) for p, m in marks.items()}
        return read(self.settings, {p: (begin[p], m.high) for p, m in marks.items()})

    def said(self, body: type = CanaryStatus, model: str | None = None) -> list[Event[Any]]:
        """Verified events of a type since the test began, in the order of their lanes."""
        verify = self._broadcast.verifier.verify
        self._broadcast.poll()
        events = [verify(record) for record in self.records(body.TOPIC)]  # type: ignore[attr-defined]  # bodies have TOPIC
        return [event for event in events if model in (None, event.model)]

    def await_said(self, number: int, model: str | None = None, body: type = CanaryStatus) -> list[Event[Any]]:
        """Waits until at least so many were said."""
        return until(
            lambda: found if len(found := self.said(body, model)) >= number else None,
            f"{number} {body.__name__} of {model or 'any model'}",
        )  # type: ignore[no-any-return]  # what the condition gave

    def letters(self, model: str) -> list[tuple[str, Record]]:
        """(error, dead letter) of a model's events."""
        return [
            (dict(r.headers)["dlq_error"].decode(), r) for r in self.records(DEAD) if (r.key or b"").decode() == model
        ]

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs an `ai-infra` command beside the stack."""
        return run_command(self.stack, *arguments)

    def _places(self, *topics: str) -> list[tuple[str, int]]:
        return [(topic, lane) for topic in topics for lane in range(self.lanes)]


def check_sequences(events: list[Event[Any]]) -> None:
    """What the service said has no hole: a lane's numbers go up by one, and each names the hash of the one before."""
    lanes: dict[tuple[int, int], list[Event[Any]]] = {}
    for event in events:
        assert event.epoch is not None
        lanes.setdefault((event.lane, event.epoch), []).append(event)
    for said in lanes.values():
        said.sort(key=lambda e: e.seq or 0)
        assert [e.seq for e in said] == list(range(1, len(said) + 1))
        assert [e.attributes.prev for e in said] == [None, *(e.hash for e in said[:-1])]


def read(settings: Settings, spans: dict[tuple[str, int], tuple[int, int]]) -> list[Record]:
    """Committed records of partitions from one offset to another."""
    wanted = {place: span for place, span in spans.items() if span[0] < span[1]}
    if not wanted:
        return []
    with _reading(settings, wanted) as consumer:
        found: list[Record] = []
        left = set(wanted)
        deadline = time.monotonic() + SECONDS
        while left:
            assert time.monotonic() < deadline, f"not read to the end: {left}"
            for message in consumer.consume(1_000, timeout=0.1):
                place = (message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    if (message.offset() or 0) < wanted[place][1]:
                        found.append(record_from_message(message))
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise AiInfraError(error.str())
                if (message.offset() or 0) >= wanted[place][1] - (error is None):
                    left.discard(place)
    return sorted(found, key=lambda r: (r.topic, r.partition, r.offset))


@contextmanager
def _reading(settings: Settings, wanted: dict[tuple[str, int], tuple[int, int]]) -> Iterator[Consumer]:
    consumer = Consumer(reader_config(settings, "bench"))
    try:
        consumer.assign([TopicPartition(t, p, begin) for (t, p), (begin, _) in wanted.items()])
        yield consumer
    finally:
        consumer.close()


def _deleted(client: AdminClient, places: list[TopicPartition]) -> bool:
    try:
        for future in client.delete_records(places).values():
            future.result()
    except Exception:  # noqa: BLE001 - the new policy has not reached the broker yet: ask again
        return False
    return True
