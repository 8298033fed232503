"""How fast the log grows: events through the indexer, by one replica and by two, against Ed25519 verifications.

The indexer runs as it always does, as processes of its own beside real Kafka, Postgres (with fsync) and S3. It works
off a backlog that was produced while it was down, and counts between two moments in the middle of that: neither its
start, nor the making of events, nor a cold broker is in the figure. An event counts when it is through everything:
published on `audit-events`, which comes after Postgres, archive and checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from ai_infra.devstack import Stack
from ai_infra.settings import Settings
from benchmarks import cost, crypto
from benchmarks.cost import PARTS
from benchmarks.figure import Figure, Span
from benchmarks.filling import DEADLINE_SECONDS, SERVICE, Position, position, produce_histories, settle
from benchmarks.waiting import ready, until

BACKLOG = 8  # times the events of the other figures: what is counted should take several checkpoint intervals
BEGIN, END = 0.25, 0.9  # parts of the backlog between which is counted


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
            settle(stack, settings, connection)
            for wanted in (1, 2):
                _stop(stack, running)
                running = 0
                count = events * BACKLOG
                progress(f"making a backlog of {count} events …")
                start = position(connection)
                count = produce_histories(settings, count)
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


def _drain(stack: Stack, settings: Settings, connection: Any, replicas: int, start: Position, events: int) -> Measured:
    """What happens between the two moments, both when something has just been published."""
    for number in range(replicas):
        ready(stack, SERVICE, number, lanes=settings.log.lanes // replicas)
    processes = {part: cost.tree(stack, part) for part in PARTS}
    processes["indexer"] = [psutil.Process(cost.pid_of(stack, f"{SERVICE}-{n}")) for n in range(replicas)]
    moments: list[Moment] = []

    def look() -> bool:
        now = position(connection)
        if not moments or now.published != moments[-1].position.published:
            cpu = {part: cost.cpu(tree) for part, tree in processes.items()}
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


def _stop(stack: Stack, replicas: int) -> None:
    for number in range(replicas):
        stack.stop_service(SERVICE, number)


__all__ = ["measure"]
