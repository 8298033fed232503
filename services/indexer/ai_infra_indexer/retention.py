"""How near a lane's oldest unread input is to being deleted by Kafka: what the log never had can't be rebuilt.

It tells the truth while the lanes stand still, whatever they wait for: by the places in Postgres, and while Postgres is
away by their copy in Kafka. It only reports; it moves nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.topics import group_of, input_partitions
from ai_infra.bus.kafka.unread import RETENTION_ALARM, first_unread, retention_used, retentions
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra_indexer import SERVICE
from ai_infra_indexer.order import Source
from ai_infra_indexer.store import Connection, read_offsets

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 30.0  # retention is days: this is only to have a fresh number for whoever asks


@dataclass(frozen=True, slots=True)
class Oldest:
    """The unread input of a lane that has used up most of its topic's retention."""

    lane: int
    topic: str
    age_seconds: float
    used: float
    """Share of the topic's retention; at 1 it may be deleted."""


class RetentionWatch:
    """Watches the lanes that `lanes` names. `check` is for the health port; `look` may be called by anybody else."""

    def __init__(
        self,
        settings: Settings,
        lanes: Callable[[], Iterable[int]],
        connect: Callable[[], Connection],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._lanes = lanes
        self._connect = connect
        self._clock = clock
        self._admin = KafkaAdmin(settings)
        self._oldest: dict[int, Oldest] = {}
        self._known: dict[Source, int] = {}
        self._shown: set[int] = set()

    def check(self) -> str | None:
        """Which lane is in danger, and of what; None where none is."""
        worst = max(dict(self._oldest).values(), key=lambda o: o.used, default=None)
        if worst is None or worst.used < RETENTION_ALARM:
            return None
        return (
            f"lane {worst.lane}: the oldest unread record of {worst.topic} is {worst.age_seconds / 86_400:.1f} days "
            f"old, {worst.used:.0%} of the topic's retention: the log must read it before Kafka deletes it. Mend what "
            f"the lane waits for, or raise retention.ms of {worst.topic} meanwhile"
        )

    def look(self) -> dict[int, Oldest]:
        """Looks now, and shows it in the metric. Raises UnavailableError where Kafka does not answer."""
        lanes = sorted(self._lanes())
        sources = [source for lane in lanes for source in input_partitions(SERVICE, self._settings.log.lanes, lane)]
        unread = first_unread(self._settings, self._admin, self._places(lanes, sources), f"{SERVICE}.retention")
        kept = retentions(self._admin, {topic for topic, _ in unread})
        found: dict[int, Oldest] = {}
        for (topic, lane), record in unread.items():
            age = max(0.0, self._clock() - record.append_time_ms / 1000)
            one = Oldest(lane, topic, age, retention_used(age, kept[topic]))
            if lane not in found or one.used > found[lane].used:
                found[lane] = one
        for lane in lanes:
            metrics.INDEXER_RETENTION_USED.labels(str(lane)).set(found[lane].used if lane in found else 0.0)
        for lane in self._shown - set(lanes):
            metrics.INDEXER_RETENTION_USED.remove(str(lane))  # another replica shows it now
        self._shown = set(lanes)
        self._oldest = found
        return found

    def _places(self, lanes: list[int], sources: list[Source]) -> dict[Source, int]:
        """Where each source is read from next. The copy in Kafka moves only with what is published, so the furthest
        place that was seen counts; a source that was never read begins at its beginning."""
        places: dict[Source, int] = {}
        try:
            with self._connect() as connection:
                for lane in lanes:
                    places.update(read_offsets(connection, lane))
        except (AiInfraError, psycopg.Error) as error:
            log.info("places asked of Kafka", why=str(error))
            copied = self._admin.committed(group_of(SERVICE), sources)
            places = {s: max(self._known.get(s, 0), offset or 0) for s, offset in copied.items()}
        self._known = {source: places.get(source, 0) for source in sources}
        return self._known
