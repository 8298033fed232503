"""What a long run costs: memory of the indexer and CPU time of an event, from a tenth of many events to all of them.

One replica works while events are made and produced, a bounded number ahead of it, so that what Kafka's client holds in
memory is the same from beginning to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import Any

import psutil
import psycopg

from ai_infra.devstack import Stack
from ai_infra.settings import Settings
from benchmarks import cost
from benchmarks.figure import Figure
from benchmarks.filling import SERVICE, position, settle
from benchmarks.speaker import Flood, Speaker, histories

STRETCHES = 10
PORTION = 1_000  # records made between two looks
AHEAD = 12_000  # records produced and not yet published, at most
PATIENCE_SECONDS = 120.0  # without an event that gets through
GROWTH_MB = 50.0
BAR = 30
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Stretch:
    """A tenth of the events: how many there had been at its end, the most memory within it, CPU time of an event."""

    events: int
    rss_mb: float
    cpu_us: float


def measure(stack: Stack, settings: Settings, events: int, progress: Callable[[str], None]) -> list[Figure]:
    """Memory and CPU of one replica over so many events."""
    stack.start_service(SERVICE)
    try:
        with psycopg.connect(settings.database.url, autocommit=True) as connection:
            settle(stack, settings, connection)
            replica = psutil.Process(cost.pid_of(stack, f"{SERVICE}-0"))
            return _figures(_run(settings, connection, replica, events, progress))
    finally:
        stack.stop_service(SERVICE, 0)


def _run(
    settings: Settings, connection: Any, replica: psutil.Process, events: int, progress: Callable[[str], None]
) -> list[Stretch]:
    orchestrator = Speaker(settings, "orchestrator-1", counted=False)
    said = histories(orchestrator, Speaker(settings, "trainer-1", counted=True), events)
    flood, events = Flood.open(settings), events // 3 * 3
    begin = position(connection).published
    made, done, moved = 0, 0, time.monotonic()
    stretches: list[Stretch] = []
    mark, counted, cpu, most = 0, 0, cost.cpu([replica]), 0.0
    while done < events:
        if made < events and made - done < AHEAD:
            portion = list(islice(said, PORTION))
            flood.send(portion)
            made += len(portion)
        else:
            time.sleep(0.02)
        before, done = done, position(connection).published - begin
        most = max(most, replica.memory_info().rss / MB)
        if done > before:
            moved = time.monotonic()
        elif time.monotonic() - moved > PATIENCE_SECONDS:
            raise RuntimeError(f"{done} of {events} events were published, then none for {PATIENCE_SECONDS:.0f} s")
        if done * STRETCHES // events > mark:
            mark = done * STRETCHES // events
            now = cost.cpu([replica])
            stretches.append(Stretch(done, round(most, 1), round((now - cpu) / (done - counted) * 1e6, 1)))
            progress(f"{done} of {events} events, {most:.0f} MB …")
            counted, cpu, most = done, now, 0.0
    return stretches


def _figures(stretches: Sequence[Stretch]) -> list[Figure]:
    first, last = stretches[0], stretches[-1]
    growth = last.rss_mb - first.rss_mb
    later = stretches[1:]  # the first one pays for connections, caches and code that runs for the first time
    half = len(later) // 2
    early, late = median(s.cpu_us for s in later[:half]), median(s.cpu_us for s in later[-half:])
    detail = {"stretches": [{"events": s.events, "rss_mb": s.rss_mb, "cpu_us": s.cpu_us} for s in stretches]}
    span = f"from {first.events:,} to {last.events:,} events"
    return [
        Figure(
            "indexer's memory",
            f"most in a stretch, {span}",
            last.rss_mb,
            "MB",
            peer=f"MB at {first.events:,} events",
            peer_value=first.rss_mb,
            ratio=last.rss_mb / first.rss_mb,
            limit=f"at most {GROWTH_MB:.0f} MB more",
            met=growth <= GROWTH_MB,
            detail=detail,
            below=plot(stretches),
        ),
        Figure(
            "indexer's CPU an event",
            f"median of the later half of the stretches, {span}",
            late,
            "µs",
            peer="µs in the earlier half",
            peer_value=early,
            ratio=late / early,
            limit="1.00 is flat",
        ),
    ]


def plot(stretches: Sequence[Stretch]) -> str:
    """Table and plot in one: a line a stretch, a bar each for memory and CPU."""
    memory, cpu = max(s.rss_mb for s in stretches), max(s.cpu_us for s in stretches)
    lines = [f"{'events':>9}  {'memory':<{BAR + 9}}  CPU an event"]
    for s in stretches:
        bars = ("█" * round(BAR * s.rss_mb / memory), "█" * round(BAR * s.cpu_us / cpu))
        lines.append(f"{s.events:>9,}  {s.rss_mb:>5.0f} MB {bars[0]:<{BAR}}  {s.cpu_us:>5.0f} µs {bars[1]}")
    return "\n".join(lines)
