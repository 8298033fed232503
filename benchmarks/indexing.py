"""How fast the log grows: events through the indexer, by one replica and by two, against Ed25519 verifications.

The indexer runs as it always does, as processes of its own beside real Kafka, Postgres (with fsync) and S3. It works
off a backlog that was produced while it was down, and counts between two moments in the middle of that: neither its
start, nor the making of events, nor a cold broker is in the figure. An event counts when it is through everything:
published on `audit-events`, which comes after Postgres, archive and checkpoint.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psutil
import psycopg

from ai_infra.devstack import Stack
from ai_infra.settings import Settings
from benchmarks import crypto
from benchmarks.figure import Figure, Span
from benchmarks.speaker import Flood, Speaker, histories
from benchmarks.waiting import ready, until

DEADLINE_SECONDS = 300.0
SERVICE = "indexer"
PARTS = ("kafka", "postgres", "s3")
BACKLOG = 8  # times the events of the other figures: what is counted should take several checkpoint intervals
BEGIN, END = 0.25, 0.9  # parts of the backlog between which is counted
PORTION = 3_000  # records made and produced at a time: what is held in memory


@dataclass(frozen=True, slots=True)
class Position:
    """Entries of all lanes, by how far they have come."""

    projected: int
    final: int
    published: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A position when it had just been reached, and the CPU seconds spent until then, by part of the stack."""

    at: float
    position: Position
    cpu: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """From one moment in the middle of a backlog to another."""

    begin: Moment
    end: Moment

    @property
    def seconds(self) -> float:
        return self.end.at - self.begin.at

    def events(self, stage: str) -> int:
        return int(getattr(self.end.position, stage) - getattr(self.begin.position, stage))

    def cpu_us(self, part: str) -> float:
        return (self.end.cpu[part] - self.begin.cpu[part]) / self.events("published") * 1e6


def measure(stack: Stack, settings: Settings, events: int, progress: Callable[[str], None]) -> list[Figure]:
    """Figures of one replica, then of two."""
    figures: list[Figure] = []
    stack.start_service(SERVICE)  # makes the tables, and the lanes in them
    running = 1
    try:
        with psycopg.connect(settings.database.url, autocommit=True) as connection:
            _settle(stack, settings, connection)
            for wanted in (1, 2):
                _stop(stack, running)
                running = 0
                count = events * BACKLOG
                progress(f"making a backlog of {count} events …")
                start = position(connection)
                count = _produce(settings, count)
                progress(f"the indexer with {wanted} replica{'s' if wanted > 1 else ''}, {count} events …")
                verifying = [crypto.verifications(0.4)]
                for number in range(wanted):
                    stack.start_service(SERVICE, number)
                    running += 1
                measured = _drain(stack, settings, connection, wanted, start, count)
                verifying.append(crypto.verifications(0.4))
                figures.append(_figure(wanted, measured, verifying))
    finally:
        _stop(stack, running)
    return figures


def _produce(settings: Settings, events: int) -> int:
    """So many events on their topics; returns how many it were."""
    orchestrator = Speaker(settings, "orchestrator-1", counted=False)
    trainer = Speaker(settings, "trainer-1", counted=True)
    flood, done = Flood.open(settings), 0
    said = histories(orchestrator, trainer, events)
    while portion := list(islice(said, PORTION)):
        flood.send(portion)
        done += len(portion)
    return done


def _drain(stack: Stack, settings: Settings, connection: Any, replicas: int, start: Position, events: int) -> Measured:
    """What happens between the two moments, both when something has just been published."""
    for number in range(replicas):
        ready(stack, SERVICE, number, lanes=settings.log.lanes // replicas)
    processes = {part: _tree(stack, part) for part in PARTS}
    processes["indexer"] = [psutil.Process(_pid(stack, f"{SERVICE}-{n}")) for n in range(replicas)]
    moments: list[Moment] = []

    def look() -> bool:
        now = position(connection)
        if not moments or now.published != moments[-1].position.published:
            cpu = {part: _cpu(tree) for part, tree in processes.items()}
            moments.append(Moment(time.perf_counter(), now, cpu))
        return now.published - start.published >= events

    until(look, DEADLINE_SECONDS, f"the indexer has not taken {events} events through", every=0.01)
    fair = [
        moment
        for moment in moments[1:]  # when the first look came nobody knows how long its position had stood
        if moment.position.published - start.published >= events * BEGIN
        and moment.position.projected - start.projected <= events * END
    ]
    if len(fair) < 2:
        raise RuntimeError(f"a backlog of {events} events is too short to count in its middle: more --events")
    return Measured(fair[0], fair[-1])


def _figure(replicas: int, measured: Measured, verifying: list[Span]) -> Figure:
    peer = sum(s.rate for s in verifying) / len(verifying)
    peer_cpu = sum(s.cpu_rate for s in verifying) / len(verifying)
    events, seconds = measured.events("published"), measured.seconds
    rate, cpu_us = events / seconds, measured.cpu_us("indexer")
    aim = 0.30 if replicas == 1 else 0.50
    return Figure(
        name=f"indexer, {replicas} replica{'s' if replicas > 1 else ''}",
        what="verify, sequence, project, archive, checkpoint, publish",
        value=rate,
        unit="events/s",
        peer="Ed25519 verifications, 1 core",
        peer_value=peer,
        ratio=rate / peer,
        limit=f"at least {aim:.2f}",
        met=rate / peer >= aim,
        detail={
            "events": events,
            "seconds": round(seconds, 2),
            "per_replica": round(rate / replicas),
            "projected_per_second": round(measured.events("projected") / seconds),
            "final_per_second": round(measured.events("final") / seconds),
            "cpu_us_per_event": round(cpu_us, 1),
            "cpu_us_per_event_elsewhere": {part: round(measured.cpu_us(part), 1) for part in PARTS},
            "cpu_ratio": round(1e6 / cpu_us / peer_cpu, 3),
        },
    )


def position(connection: Any) -> Position:
    row = connection.execute(
        "SELECT (SELECT coalesce(sum(size), 0) FROM lanes), coalesce(sum(checkpoint_size), 0), "
        "coalesce(sum(published_size), 0) FROM lane_progress"
    ).fetchone()
    return Position(int(row[0]), int(row[1]), int(row[2]))


def _settle(stack: Stack, settings: Settings, connection: Any) -> None:
    """The replica is ready and holds all lanes, and nothing is on its way any more."""
    ready(stack, SERVICE, 0, lanes=settings.log.lanes)
    last: list[Position] = []

    def still() -> bool:
        last.append(position(connection))
        settled = len(last) > 10 and len(set(last[-10:])) == 1
        return settled and last[-1].projected == last[-1].published and last[-1].projected > 0

    until(still, DEADLINE_SECONDS, "the indexer does not come to rest", every=0.1)


def _stop(stack: Stack, replicas: int) -> None:
    for number in range(replicas):
        stack.stop_service(SERVICE, number)


def _pid(stack: Stack, name: str) -> int:
    for part in stack.status():
        if part.name == name and part.pid is not None:
            return part.pid
    raise RuntimeError(f"{name} does not run, or not as a program")


def _tree(stack: Stack, part: str) -> list[psutil.Process]:
    """A part's process with its children: Postgres has one for each connection."""
    first = psutil.Process(_pid(stack, part))
    return [first, *first.children(recursive=True)]


def _cpu(processes: list[psutil.Process]) -> float:
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


__all__ = ["measure", "position"]
