"""How fast the log grows: events through the indexer, by one replica and by two, against Ed25519 verifications.

The indexer runs as it always does, as processes of its own beside real Kafka, Postgres (with fsync) and S3. Projected
means in Postgres; final means archived and covered by a checkpoint; published means on `audit-events`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from ai_infra.devstack import Stack
from ai_infra.events.compose import SignedRecord
from ai_infra.settings import Settings
from benchmarks import crypto
from benchmarks.figure import Figure, Span
from benchmarks.speaker import Flood, Speaker, histories
from benchmarks.waiting import ready, until

DEADLINE_SECONDS = 150.0
SERVICE = "indexer"


@dataclass(frozen=True, slots=True)
class Position:
    """Entries of all lanes, by how far they have come."""

    projected: int
    final: int
    published: int


def measure(stack: Stack, settings: Settings, events: int, progress: Callable[[str], None]) -> list[Figure]:
    """Figures of one replica, then of two."""
    figures: list[Figure] = []
    orchestrator = Speaker(settings, "orchestrator-1", counted=False)
    trainer = Speaker(settings, "trainer-1", counted=True)
    flood = Flood.open(settings)
    replicas = 0
    with psycopg.connect(settings.database.url, autocommit=True) as connection:
        try:
            for wanted in (1, 2):
                progress(f"starting indexer replica {wanted} …")
                stack.start_service(SERVICE, wanted - 1)
                replicas = wanted
                _settle(stack, settings, connection, wanted)
                records = list(histories(orchestrator, trainer, events))
                progress(f"the indexer with {wanted} replica{'s' if wanted > 1 else ''}, {len(records)} events …")
                before = [crypto.verifications(0.4)]
                measured = _index(stack, connection, wanted, flood, records)
                before.append(crypto.verifications(0.4))
                figures.append(_figure(wanted, *measured, before))
        finally:
            for number in range(replicas):
                stack.stop_service(SERVICE, number)
    return figures


def _index(
    stack: Stack, connection: Any, replicas: int, flood: Flood, records: list[SignedRecord]
) -> tuple[dict[str, float], Span, dict[str, float]]:
    """When so many more entries were projected, final, published: seconds from the first byte produced. With the CPU
    seconds of the replicas, and of the stack's parts meanwhile."""
    start, events = position(connection), len(records)
    processes = [psutil.Process(_pid(stack, f"{SERVICE}-{n}")) for n in range(replicas)]
    parts = {part: _tree(stack, part) for part in ("kafka", "postgres", "s3")}
    parts_cpu = {part: _cpu(tree) for part, tree in parts.items()}
    cpu, began = _cpu(processes), time.perf_counter()
    flood.send(records)
    reached: dict[str, float] = {}
    span = Span(0, 0.0, 0.0)

    def all_through() -> bool:
        nonlocal span
        now, passed = position(connection), time.perf_counter() - began
        for stage in ("projected", "final", "published"):
            if stage not in reached and getattr(now, stage) - getattr(start, stage) >= events:
                reached[stage] = passed
                if stage == "published":
                    span = Span(events, passed, _cpu(processes) - cpu)
        return len(reached) == 3

    until(all_through, DEADLINE_SECONDS, f"the indexer has not taken {events} events through", every=0.02)
    return reached, span, {part: _cpu(tree) - parts_cpu[part] for part, tree in parts.items()}


def _figure(
    replicas: int, reached: dict[str, float], whole: Span, parts: dict[str, float], verifying: list[Span]
) -> Figure:
    events = whole.events
    peer = sum(s.rate for s in verifying) / len(verifying)
    peer_cpu = sum(s.cpu_rate for s in verifying) / len(verifying)
    rate = events / reached["projected"]
    return Figure(
        name=f"indexer, {replicas} replica{'s' if replicas > 1 else ''}",
        what="verify, sequence, project, archive, checkpoint, publish",
        value=rate,
        unit="events/s",
        peer="Ed25519 verifications, 1 core",
        peer_value=peer,
        ratio=rate / peer,
        limit=f"a plain prototype without archive: {0.38 if replicas == 1 else 0.67}",
        detail={
            "events": events,
            "per_replica": round(rate / replicas),
            "final_per_second": round(events / reached["final"]),
            "published_per_second": round(events / reached["published"]),
            "seconds": {stage: round(value, 2) for stage, value in reached.items()},
            "cpu_us_per_event": round(whole.cpu_us, 1),
            "cpu_us_per_event_elsewhere": {part: round(cpu / events * 1e6, 1) for part, cpu in parts.items()},
            "cpu_ratio": round(whole.cpu_rate / peer_cpu, 3),
        },
    )


def position(connection: Any) -> Position:
    row = connection.execute(
        "SELECT (SELECT coalesce(sum(size), 0) FROM lanes), coalesce(sum(checkpoint_size), 0), "
        "coalesce(sum(published_size), 0) FROM lane_progress"
    ).fetchone()
    return Position(int(row[0]), int(row[1]), int(row[2]))


def _settle(stack: Stack, settings: Settings, connection: Any, replicas: int) -> None:
    """Every replica is ready and holds its share, and nothing is on its way any more."""
    share = settings.log.lanes // replicas
    for number in range(replicas):
        ready(stack, SERVICE, number, lanes=share)
    last: list[Position] = []

    def still() -> bool:
        last.append(position(connection))
        settled = len(last) > 10 and len(set(last[-10:])) == 1
        return settled and last[-1].projected == last[-1].published and last[-1].projected > 0

    until(still, DEADLINE_SECONDS, "the indexer does not come to rest", every=0.1)


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
