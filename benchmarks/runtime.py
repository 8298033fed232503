"""How fast the runtime is with an empty `decide`: its whole price is verification, order, state and the transaction.

The peer is the shortest honest program with confluent-kafka that does the same to Kafka: consume, produce and commit
offsets in transactions, the same batch size, the same input, the same bytes out; it verifies, signs and remembers
nothing. Both hold their partitions already and work off the same backlog, in this process, by turns.
"""

from __future__ import annotations

import cProfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from ai_infra.bus.decision import NOTHING, Context, Decision, Say, StateView, Trigger
from ai_infra.bus.kafka.admin import KafkaAdmin, Partition
from ai_infra.bus.kafka.config import KafkaUnavailableError, group_config, transactional_config
from ai_infra.bus.kafka.topics import group_of, own_topics
from ai_infra.bus.process import ServiceProcess
from ai_infra.bus.run import build_runtime
from ai_infra.bus.runtime import BATCH_RECORDS, Runtime
from ai_infra.bus.service import Service
from ai_infra.devstack import Stack, environment, hooks
from ai_infra.events.compose import SignedRecord
from ai_infra.events.generated import JobQueued, JobStatus, OperatorAction
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from benchmarks import crypto
from benchmarks.figure import Figure, Span, compared
from benchmarks.speaker import Flood, Speaker, job, statuses
from benchmarks.waiting import until

NAME = "drift"  # a principal of the dev keyring without a service in this repository yet: nobody else speaks as it
DEADLINE_SECONDS = 120.0
TURNS = 2
LISTENS = (JobStatus,)


class NotInTimeError(RuntimeError):
    """The input was not worked off before the deadline."""


@dataclass(frozen=True)
class Bench:
    """What both sides need."""

    settings: Settings
    admin: KafkaAdmin
    flood: Flood
    trainer: Speaker
    answer: SignedRecord

    @property
    def inputs(self) -> list[Partition]:
        topics = (*(t.TOPIC for t in LISTENS), OperatorAction.TOPIC, f"{NAME}.retry")
        return [(t, p) for t in topics for p in range(self.settings.log.lanes)]

    def at_the_end(self, group: str) -> None:
        """Places a group behind all that its inputs hold."""
        self.admin.set_offsets(group, {p: marks.high for p, marks in self.admin.watermarks(self.inputs).items()})


@dataclass(frozen=True)
class Transactions:
    """Transactions that the runtime has committed in this process, and the seconds that they took."""

    number: int
    seconds: float

    @classmethod
    def so_far(cls) -> Transactions:
        samples = {
            s.name: s.value for m in metrics.BUS_TRANSACTION.collect() for s in m.samples if "le" not in s.labels
        }
        name = "ai_infra_bus_transaction_seconds"
        return cls(int(samples.get(f"{name}_count", 0)), samples.get(f"{name}_sum", 0.0))


def measure(
    stack: Stack, settings: Settings, events: int, progress: Callable[[str], None], profile: Path | None = None
) -> list[Figure]:
    """Figures of the runtime, nothing out and one event out per event in."""
    bench = _bench(stack, settings)
    empty: dict[bool, list[Span]] = {False: [], True: []}
    plain: dict[bool, list[Span]] = {False: [], True: []}
    transactions: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    verifying: list[Span] = []
    for turn in range(TURNS):
        for saying in (False, True):
            progress(f"the runtime, {events} events, {'one' if saying else 'none'} out, turn {turn + 1} of {TURNS} …")
            records = statuses(bench.trainer, events)
            target = profile.with_stem(f"{profile.stem}-{'one' if saying else 'none'}") if profile else None
            before = Transactions.so_far()
            empty[saying].append(run_runtime(bench, records, saying=saying, profile=target))
            after = Transactions.so_far()
            number = after.number - before.number
            transactions[saying].append(
                {"records": round(events / number), "ms": round((after.seconds - before.seconds) / number * 1000, 1)}
            )
            verifying.append(crypto.verifications(0.25))
            plain[saying].append(run_plain(bench, records, saying=saying))
    peer = f"plain transactions of {BATCH_RECORDS}"
    figures = [
        compared("runtime, none out", "verify, decide nothing, commit", peer, empty[False], plain[False]),
        compared("runtime, one out", "verify, decide, sign one, commit", peer, empty[True], plain[True]),
    ]
    for figure, saying in zip(figures, (False, True), strict=True):
        figure.detail["transactions"] = transactions[saying]
    limit = "one core's verifications are the upper limit"
    peer = "Ed25519 verifications, 1 core"
    ours = [span for pair in zip(empty[False], empty[True], strict=True) for span in pair]
    figures.append(
        compared("runtime, none out", figures[0].what, peer, ours[::2], verifying[::2], limit=limit),
    )
    return figures


def run_runtime(bench: Bench, records: list[SignedRecord], *, saying: bool, profile: Path | None = None) -> Span:
    """From the last record's acknowledgement, all lanes being there, to the commit of what follows from it."""
    bench.at_the_end(group_of(NAME))
    _at_rest()
    service = _service(saying)
    process = _Timed((JobQueued,), bench, records)
    stop = process.stop
    guard = threading.Timer(DEADLINE_SECONDS, stop.set)
    guard.start()
    profiler = cProfile.Profile() if profile is not None else None
    try:
        runtime = build_runtime(service, process)
        process.runtime = runtime
        if profiler is not None:
            profiler.runcall(runtime.run, stop)
        else:
            runtime.run(stop)
    finally:
        guard.cancel()
        process.close()
    if profiler is not None and profile is not None:
        profiler.dump_stats(profile)
    if process.span is None:
        raise NotInTimeError(f"the runtime did not decide {len(records)} events within {DEADLINE_SECONDS:.0f} s")
    return process.span


def run_plain(bench: Bench, records: list[SignedRecord], *, saying: bool) -> Span:
    """The same without us: consume, produce as many equal bytes, commit offsets, in transactions."""
    _at_rest()
    group = f"{group_of(NAME)}.plain"
    bench.at_the_end(group)
    consumer = Consumer(group_config(bench.settings, group))
    producer = Producer(transactional_config(bench.settings, NAME, f"ai-infra.{NAME}.plain.{time.time_ns()}"))
    producer.init_transactions(30)
    consumer.subscribe(sorted({topic for topic, _ in bench.inputs}))
    answer, done = bench.answer, 0
    headers: Any = answer.headers
    deadline = time.monotonic() + DEADLINE_SECONDS
    try:
        while not consumer.assignment():
            if time.monotonic() > deadline or consumer.poll(0.1) is not None:
                raise NotInTimeError("the plain consumer was given no partitions")
        bench.flood.send(records)
        began, cpu = time.perf_counter(), time.process_time()
        while done < len(records):
            if time.monotonic() > deadline:
                raise NotInTimeError(f"plain consume-produce did not end within {DEADLINE_SECONDS:.0f} s")
            message = consumer.poll(0.2)
            if message is None:
                continue
            messages = [message, *consumer.consume(BATCH_RECORDS - 1, timeout=0)]
            metadata = consumer.consumer_group_metadata()
            producer.begin_transaction()
            offsets: dict[Partition, int] = {}
            for message in messages:
                topic, partition, offset, error = (
                    message.topic(),
                    message.partition(),
                    message.offset(),
                    message.error(),
                )
                if error is not None or topic is None or partition is None or offset is None:
                    raise RuntimeError(f"the plain consumer was given an error: {error}")
                offsets[(topic, partition)] = offset + 1
                if saying:
                    producer.produce(
                        answer.topic,
                        key=answer.key,
                        value=answer.value,
                        headers=headers,
                        partition=partition,
                    )
            producer.send_offsets_to_transaction(
                [TopicPartition(t, p, offset) for (t, p), offset in offsets.items()], metadata, 30
            )
            producer.commit_transaction(30)
            done += len(messages)
        return Span(done, time.perf_counter() - began, time.process_time() - cpu)
    finally:
        consumer.close()


class _Timed(ServiceProcess):
    """A service's process that notes when all lanes are there and when the last event is committed."""

    def __init__(self, says: tuple[type, ...], bench: Bench, records: list[SignedRecord]) -> None:
        super().__init__(NAME, says, bench.settings, {})
        self.stop = threading.Event()
        self.span: Span | None = None
        self.runtime: Runtime | None = None
        self._flood = bench.flood
        self._records = records
        self._before = _decided()
        self._began: tuple[float, float] | None = None

    def turn(self) -> None:
        """Called between two transactions."""
        super().turn()
        if self._began is None:
            if self.runtime is not None and len(self.runtime.lanes) == self.settings.log.lanes:
                self._flood.send(self._records)
                self._began = time.perf_counter(), time.process_time()
        elif _decided() - self._before >= len(self._records):
            began, cpu = self._began
            self.span = Span(len(self._records), time.perf_counter() - began, time.process_time() - cpu)
            self.stop.set()


def _decided() -> int:
    """Events decided and committed by the runtime in this process, ever."""
    return int(metrics.BUS_RECORDS.labels(NAME, JobStatus.TOPIC, "decided")._value.get())


def _service(saying: bool) -> Service:
    answer = job(0, NAME)

    def nothing(state: StateView, trigger: Trigger, context: Context) -> Decision:
        return NOTHING

    def one(state: StateView, trigger: Any, context: Context) -> Decision:
        return Decision(events=(Say(_answer(answer, trigger.body), subject=trigger.body.job_id),))

    return Service(NAME, listens=LISTENS, says=(JobQueued,), decide=one if saying else nothing, rules="bench/v1")


def _answer(template: JobQueued, heard: JobStatus) -> JobQueued:
    return JobQueued(
        job_id=heard.job_id,
        model=heard.model,
        template=template.template,
        code_ref=template.code_ref,
        container_digest=template.container_digest,
        dataset_refs=template.dataset_refs,
        hyperparams_json=template.hyperparams_json,
        seed=template.seed,
        training_cmd=template.training_cmd,
        resources=template.resources,
        time_limit_s=template.time_limit_s,
        requested_by=template.requested_by,
        parent_artifacts=template.parent_artifacts,
    )


def _bench(stack: Stack, settings: Settings) -> Bench:
    shared = environment.stack_environment(stack.name, stack.directory, stack._started())
    own = environment.service_environment(NAME, stack.directory, shared)
    admin, lanes = KafkaAdmin(settings), settings.log.lanes
    plain = {"message.timestamp.type": "LogAppendTime"}
    policies = {f"{NAME}.state": {"cleanup.policy": "compact"}}
    present = admin.topics()
    missing = [(t, lanes, 1, plain | policies.get(t, {})) for t in own_topics(NAME) if t not in present]
    admin.create(missing)
    until(lambda: _served(admin, [(t, p) for t, *_ in missing for p in range(lanes)]), 60, "new topics are not served")
    speaker = Speaker(settings, f"{NAME}-1", counted=True)
    return Bench(
        settings=hooks.settings_for(own, stack.directory),
        admin=admin,
        flood=Flood.open(settings),
        trainer=Speaker(settings, "trainer-1", counted=True),
        answer=speaker.say(job(0, NAME)),
    )


def _served(admin: KafkaAdmin, places: list[Partition]) -> bool:
    try:
        return not admin.leaderless({topic for topic, _ in places}) and len(admin.watermarks(places)) == len(places)
    except KafkaUnavailableError:  # a broker knows of a partition a moment before it leads it
        return False


def _at_rest() -> None:
    """What was measured before leaves garbage; it is not this figure's."""
    import gc

    gc.collect()
