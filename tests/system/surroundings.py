"""What is around the lanes of an indexer, in the hands of a test: real lanes, in a real database, without Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra_indexer.lane import Lane
from ai_infra_indexer.order import Source
from ai_infra_indexer.together import Outcome, work


class Around:
    """A broadcast topic with these records, and inputs that end where they are said to."""

    def __init__(self) -> None:
        self.broadcast: list[Record] = []
        self.end: Mapping[Source, int] = {}
        self.dead: list[str] = []

    def broadcasts(self, after: Mapping[str, int]) -> list[Record]:
        return [record for record in self.broadcast if record.offset >= after.get(record.topic, 0)]

    def catch_up(self) -> None: ...

    def ends(self, lane: int) -> Mapping[Source, int]:
        return self.end

    def dead_letter(self, record: Record, error: AiInfraError) -> None:
        self.dead.append(error.code)

    def flush_dead_letters(self, lane: int) -> None: ...


def turn(connection: Any, lane: Lane) -> Outcome:
    """A turn of one lane."""
    return work(connection, {lane.number: lane})[lane.number]
