"""How long an event takes at a modest rate: from its append in Kafka to its place in Postgres, and to a signed
checkpoint that covers it, with the indexer as it is set by default.

Lane heads are looked at every few milliseconds; an event is in Postgres once its lane's head is beyond its position,
and covered once the size of the lane's archived checkpoint is (Postgres notes that after the archive has it). What a
look adds is in the figure.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import psycopg

from ai_infra.devstack import Stack
from ai_infra.events.compose import SignedRecord
from ai_infra.settings import Settings
from benchmarks.figure import Figure, latencies
from benchmarks.filling import SERVICE, settle
from benchmarks.speaker import Flood, Speaker, histories, produce
from benchmarks.waiting import until

RATE = 500  # events a second
WARM_SECONDS = 3.0  # from the first event on these are not counted: caches, connections, prepared statements
PACE_SECONDS = 0.01
LOOK_SECONDS = 0.005
DEADLINE_SECONDS = 60.0
PLACED_MS = 150.0
COVERED_MS = 2_000.0

_LOOK = "SELECT l.lane, l.size, p.checkpoint_size FROM lanes l JOIN lane_progress p USING (lane)"


class Watch:
    """When each lane's head and checkpoint were first seen at each size."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._ending = Event()
        self._thread = Thread(target=self._run, name="watch", daemon=True)
        self.placed: dict[int, list[tuple[int, float]]] = {}
        self.covered: dict[int, list[tuple[int, float]]] = {}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(DEADLINE_SECONDS)

    def _run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            ending = False
            while not ending:
                ending = self._ending.is_set()  # and a last look then: what somebody else has seen by now counts
                rows = connection.execute(_LOOK).fetchall()
                now = time.time()
                for lane, size, covered in rows:
                    _note(self.placed.setdefault(lane, []), size, now)
                    _note(self.covered.setdefault(lane, []), covered, now)
                self._ending.wait(LOOK_SECONDS)


def measure(stack: Stack, settings: Settings, seconds: float, progress: Callable[[str], None]) -> list[Figure]:
    """Latencies at a steady rate, by one replica that has nothing else to do."""
    stack.start_service(SERVICE)
    try:
        with psycopg.connect(settings.database.url, autocommit=True) as connection:
            settle(stack, settings, connection)
            begins: dict[int, int] = dict(connection.execute("SELECT lane, size FROM lanes").fetchall())
            progress(f"{RATE} events a second for {seconds:.0f} s …")
            records = _records(settings, int(RATE * (WARM_SECONDS + seconds)))
            with Watch(settings.database.url) as watch:
                began = _say(settings, records)
                until(
                    lambda: _covered(connection, begins, len(records)),
                    DEADLINE_SECONDS,
                    "not all events are covered by a checkpoint",
                )
            return _figures(connection, begins, watch, began + WARM_SECONDS, settings)
    finally:
        stack.stop_service(SERVICE, 0)


def _records(settings: Settings, events: int) -> list[SignedRecord]:
    orchestrator = Speaker(settings, "orchestrator-1", counted=False)
    return list(histories(orchestrator, Speaker(settings, "trainer-1", counted=True), events))


def _say(settings: Settings, records: list[SignedRecord]) -> float:
    """Puts the records on their topics at the rate; returns when it began, seconds since the epoch."""
    flood, began, said = Flood.open(settings), time.time(), 0
    while said < len(records):
        due = min(len(records), int((time.time() - began) * RATE) + 1)
        for record in records[said:due]:
            produce(flood.producer, record, record.topic)
        said = due
        flood.producer.poll(PACE_SECONDS)
    flood.producer.flush(DEADLINE_SECONDS)
    return began


def _covered(connection: Any, begins: dict[int, int], events: int) -> bool:
    """Whether so many are in the log, and nothing in it is without a checkpoint: it holds more than these."""
    rows = connection.execute(_LOOK).fetchall()
    return sum(size - begins[lane] for lane, size, _ in rows) >= events and all(size == c for _, size, c in rows)


def _figures(connection: Any, begins: dict[int, int], watch: Watch, since: float, settings: Settings) -> list[Figure]:
    placed: list[float] = []
    covered: list[float] = []
    for lane, begin in begins.items():
        rows = connection.execute(
            "SELECT position, extract(epoch FROM append_time)::float8 FROM entries WHERE lane = %s AND position >= %s "
            "AND position < %s AND append_time >= to_timestamp(%s)",
            (lane, begin, watch.covered[lane][-1][0], since),
        )
        for position, appended in rows:
            placed.append(_beyond(watch.placed[lane], position) - appended)
            covered.append(_beyond(watch.covered[lane], position) - appended)
    interval = settings.log.checkpoint_interval_ms
    in_postgres = latencies(
        "event in Postgres",
        f"append to its place in Postgres, {RATE} events/s",
        placed,
        limit_ms=PLACED_MS,
        limit=f"p95 at most {PLACED_MS:.0f} ms",
    )
    final = latencies(
        "event covered",
        f"append to a signed checkpoint that covers it, {RATE} events/s, one each {interval} ms",
        covered,
        limit_ms=COVERED_MS,
        limit=f"p95 at most {COVERED_MS:.0f} ms",
    )
    return in_postgres + final


def _note(seen: list[tuple[int, float]], size: int, now: float) -> None:
    if not seen or seen[-1][0] != size:
        seen.append((size, now))


def _beyond(seen: list[tuple[int, float]], position: int) -> float:
    """When the size was first seen to be larger than a position."""
    return seen[bisect_right(seen, position, key=lambda each: each[0])][1]
