"""Filling the log with a history and taking it through the indexer, for whatever reads the log afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import psycopg

from ai_infra.devstack import Stack
from ai_infra.settings import Settings
from benchmarks.speaker import Flood, Speaker, histories
from benchmarks.waiting import ready, until

SERVICE = "indexer"
DEADLINE_SECONDS = 300.0
PORTION = 3_000  # records made and produced at a time: what is held in memory


@dataclass(frozen=True, slots=True)
class Position:
    """Entries of all lanes, by how far they have come."""

    projected: int
    final: int
    published: int


def position(connection: Any) -> Position:
    row = connection.execute(
        "SELECT (SELECT coalesce(sum(size), 0) FROM lanes), coalesce(sum(checkpoint_size), 0), "
        "coalesce(sum(published_size), 0) FROM lane_progress"
    ).fetchone()
    return Position(int(row[0]), int(row[1]), int(row[2]))


def produce_histories(settings: Settings, events: int) -> int:
    """So many events on their topics; returns how many it were."""
    orchestrator = Speaker(settings, "orchestrator-1", counted=False)
    trainer = Speaker(settings, "trainer-1", counted=True)
    flood, done = Flood.open(settings), 0
    said = histories(orchestrator, trainer, events)
    while portion := list(islice(said, PORTION)):
        flood.send(portion)
        done += len(portion)
    return done


def settle(stack: Stack, settings: Settings, connection: Any) -> None:
    """The replica is ready and holds all lanes, and nothing is on its way any more."""
    ready(stack, SERVICE, 0, lanes=settings.log.lanes)
    last: list[Position] = []

    def still() -> bool:
        last.append(position(connection))
        settled = len(last) > 10 and len(set(last[-10:])) == 1
        return settled and last[-1].projected == last[-1].published and last[-1].projected > 0

    until(still, DEADLINE_SECONDS, "the indexer does not come to rest", every=0.1)


def fill(stack: Stack, settings: Settings, events: int, progress: Callable[[str], None]) -> None:
    """The log has at least so many entries when this returns, all of them final, and no indexer runs."""
    stack.start_service(SERVICE)  # makes the tables, and the lanes in them
    try:
        with psycopg.connect(settings.database.url, autocommit=True) as connection:
            settle(stack, settings, connection)
            before = position(connection).published
            if before < events:
                progress(f"filling the log with {events - before} events …")
                wanted = before + produce_histories(settings, events - before)
                until(
                    lambda: position(connection).published >= wanted,
                    DEADLINE_SECONDS,
                    f"the indexer has not taken {events - before} events through",
                )
    finally:
        stack.stop_service(SERVICE, 0)


__all__ = ["DEADLINE_SECONDS", "SERVICE", "Position", "fill", "position", "produce_histories", "settle"]
