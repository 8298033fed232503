"""How far each service is in each of its inputs: what `lag`, `status` and `groups show` are made of.

The indexer's place is in Postgres, since it moves with the rows; everybody else's is in Kafka. Offsets are no count of
events (transaction markers take some), so whether anything is unread at all is found out by looking for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from ai_infra.bus.kafka.admin import KafkaAdmin, Partition
from ai_infra.bus.kafka.topics import SERVICES, group_of, input_partitions
from ai_infra.bus.kafka.unread import first_unread
from ai_infra.cli.event_text import append_time
from ai_infra.cli.reading import LogReader
from ai_infra.errors import UnavailableError
from ai_infra.settings import Settings

INDEXER: Final = "indexer"


@dataclass(frozen=True, slots=True)
class Position:
    """A service in one partition of its inputs.

    `position`: None where the group has none. `behind`: offsets up to the end; 0 where nothing is unread, although
    markers may follow. `oldest_unread`: append time of the next record. `lost`: records deleted before they were read.
    """

    service: str
    topic: str
    lane: int
    position: int | None
    end: int
    behind: int
    oldest_unread: datetime | None
    lost: int


def positions(settings: Settings, reader: LogReader, services: Sequence[str] = SERVICES) -> list[Position]:
    """Positions of services in all their inputs. The indexer is left out where no database is configured."""
    found: list[Position] = []
    for service in services:
        partitions = input_partitions(service, settings.log.lanes)
        if service == INDEXER and not settings.database.configured:
            continue
        placed = stored_positions(settings, reader.admin, service, partitions)
        marks = reader.admin.watermarks(partitions)
        # Who has never read a lane (the indexer, before its first turn) begins at its beginning.
        known = {p: offset for p, offset in placed.items() if offset is not None}
        unread = first_unread(settings, reader.admin, known, "cli")
        for topic, lane in partitions:
            place = (topic, lane)
            offset, record = placed[place], unread.get(place)
            low, high = marks[place].low, marks[place].high
            found.append(
                Position(
                    service=service,
                    topic=topic,
                    lane=lane,
                    position=offset,
                    end=high,
                    behind=high - max(offset or 0, low) if record is not None or offset is None else 0,
                    oldest_unread=append_time(record) if record is not None else None,
                    lost=max(0, low - offset) if offset is not None else 0,
                )
            )
    return found


def stored_positions(
    settings: Settings, admin: KafkaAdmin, service: str, partitions: Iterable[Partition]
) -> dict[Partition, int | None]:
    """Where a service goes on reading, from where that is kept."""
    wanted = list(partitions)
    if service != INDEXER:
        return admin.committed(group_of(service), wanted)
    import psycopg

    from ai_infra.readmodel.connection import connect
    from ai_infra.readmodel.exceptions import NotMigrated

    with connect(settings.database.url, application="ai-infra lag", read_only=True) as connection:
        try:
            rows = connection.execute("SELECT topic, partition, next_offset FROM lane_offsets").fetchall()
        except psycopg.errors.UndefinedTable:
            raise NotMigrated from None
    stored = {(str(topic), int(partition)): int(offset) for topic, partition, offset in rows}
    return {p: stored.get(p, 0) for p in wanted}


def age(found: datetime | None) -> float:
    """Seconds since then; 0 for never."""
    return max(0.0, (datetime.now(UTC) - found).total_seconds()) if found is not None else 0.0


def total(found: Iterable[Position]) -> tuple[int, float]:
    """Offsets behind and the age of the oldest unread record, seconds, over several partitions."""
    chosen = list(found)
    return sum(p.behind for p in chosen), max((age(p.oldest_unread) for p in chosen), default=0.0)


def set_positions(settings: Settings, admin: KafkaAdmin, service: str, offsets: dict[Partition, int]) -> None:
    """Moves a service that stands still. Raises GroupActiveError while it runs."""
    admin.set_offsets(group_of(service), offsets)  # also the check that no replica of the indexer is alive
    if service != INDEXER:
        return
    from ai_infra.readmodel.connection import connect

    with connect(settings.database.url, application="ai-infra seek") as connection, connection.transaction():
        for (topic, partition), offset in offsets.items():
            moved = connection.execute(
                "UPDATE lane_offsets SET next_offset = %s WHERE topic = %s AND partition = %s",
                (offset, topic, partition),
            ).rowcount
            if moved > 1:
                raise UnavailableError(
                    f"{topic}/{partition} has more than one place in lane_offsets; nothing was moved"
                )
