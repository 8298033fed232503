"""How fast events are said: composed, signed and produced to a real broker, against producing the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.client import Client
from ai_infra.events.compose import SignedRecord
from ai_infra.settings import Settings
from benchmarks import crypto
from benchmarks.figure import Figure, Span, compared
from benchmarks.speaker import Flood, Speaker, job, produce

TOPIC = "bench.written"  # of its own, so that the indexer does not find these events in its backlog
TURNS = 3
ONE_BY_ONE = 100


def measure(settings: Settings, events: int, progress: Callable[[str], None]) -> list[Figure]:
    """Figures of the writing side."""
    KafkaAdmin(settings).create([(TOPIC, settings.log.lanes, 1, {"message.timestamp.type": "LogAppendTime"})])
    speaker, flood = Speaker(settings, "orchestrator-1", counted=False), Flood.open(settings)
    bodies = [job(i, "orchestrator") for i in range(events)]
    flood.send([speaker.say(b) for b in bodies[:200]], topic=TOPIC)  # metadata, connections, caches
    ours: list[Span] = []
    plain: list[Span] = []
    signing: list[Span] = []
    for turn in range(TURNS):
        progress(f"compose, sign and produce, {events} events, turn {turn + 1} of {TURNS} …")
        records: list[SignedRecord] = []

        def signed(records: list[SignedRecord] = records) -> None:
            for body in bodies:
                record = speaker.say(body)
                records.append(record)
                produce(flood.producer, record, TOPIC)
            flood.producer.flush(60)

        ours.append(_timed(signed, events))
        plain.append(_timed(lambda records=records: flood.send(records, topic=TOPIC), events))  # type: ignore[misc]
        signing.append(crypto.signatures())
    limit = "one core's signatures are the upper limit"
    what = "compose + sign + produce (job.queued)"
    figures = [
        compared("events said", what, "plain produce of equal bytes", ours, plain),
        compared("events said", what, "Ed25519 signatures, 1 core", ours, signing, limit=limit),
    ]
    progress("the SDK, one event at a time, each acknowledged …")
    with Client(settings) as client:
        client.publish(bodies[0])
        alone = _timed(lambda: [client.publish(job(i, "orchestrator")) for i in range(ONE_BY_ONE)], ONE_BY_ONE)
    detail = {"ms_per_event": round(1000 / alone.rate, 1), "cpu_us_per_event": round(alone.cpu_us, 1)}
    figures.append(Figure("SDK publish", "one at a time, acknowledged", alone.rate, "events/s", detail=detail))
    return figures


def _timed(step: Callable[[], object], events: int) -> Span:
    began, cpu = time.perf_counter(), time.process_time()
    step()
    return Span(events, time.perf_counter() - began, time.process_time() - cpu)
