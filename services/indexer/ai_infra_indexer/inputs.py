"""What surrounds the lanes of one process: broadcasts, the ends of topics, dead letters."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from confluent_kafka import KafkaException, Message, Producer

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.deadletters import dead_letter
from ai_infra.bus.halts import JunkBudget
from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.config import KafkaUnavailableError, producer_config, unavailable
from ai_infra.bus.kafka.topics import BROADCAST_TOPICS, input_partitions
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra_indexer import SERVICE
from ai_infra_indexer.order import Source

log = structlog.get_logger(__name__)

CATCH_UP_SECONDS: Final = 10.0
FLUSH_SECONDS: Final = 30.0


class Around:
    """The one `Surroundings` of all lanes of a process. For the loop's thread."""

    def __init__(self, settings: Settings, broadcast: Broadcast) -> None:
        self._broadcast = broadcast
        self._admin = KafkaAdmin(settings)
        self._lanes = settings.log.lanes
        self._producer = Producer(producer_config(settings, f"{SERVICE}.dlq"))
        self._budgets: dict[int, JunkBudget] = {}
        self._undelivered: dict[int, list[str]] = {}
        self._caught_up = False

    def turn(self) -> None:
        """To be called before records are read: they may name a newer keyring than the last look has shown."""
        self._caught_up = False

    def broadcasts(self, after: Mapping[str, int]) -> list[Record]:
        """Accepted broadcast records from these offsets on, in the order of their append; a keyring before a policy
        of the same moment, which may be signed by it."""
        found = [r for topic in BROADCAST_TOPICS for r in self._broadcast.records_of(topic, after.get(topic, 0))]
        return sorted(found, key=lambda r: (r.append_time_ms, BROADCAST_TOPICS.index(r.topic), r.offset))

    def catch_up(self) -> None:
        """One look serves all that was read before it, in whatever lane: junk that names a keyring which exists nowhere
        must not cost a look for each record, or a writer without a key slows all lanes down."""
        if not self._caught_up:
            self._broadcast.catch_up(CATCH_UP_SECONDS)
            self._caught_up = True

    def ends(self, lane: int) -> Mapping[Source, int]:
        """Where the lane's inputs end now, for readers of committed records. Raises KafkaUnavailableError."""
        return self._admin.committed_ends(input_partitions(SERVICE, self._lanes, lane))

    def begins(self, sources: Sequence[Source]) -> Mapping[Source, int]:
        """The first offset that each source still has."""
        return {source: mark.low for source, mark in self._admin.watermarks(sources).items()}

    def dead_letter(self, record: Record, error: AiInfraError) -> None:
        """Put a record aside, at least once: a crash before the lane's transaction writes it again, with the same
        topic, partition and offset in its headers. Junk of writers without a key is counted, beyond a rate not kept."""
        known = bool(getattr(error, "signer_known", False))
        outcome = "dead_letter"
        lane = record.partition
        if not known and not self._budgets.setdefault(lane, JunkBudget()).take(time.monotonic()):
            outcome = "junk"
        metrics.BUS_RECORDS.labels(SERVICE, record.topic, outcome).inc()
        metrics.BUS_DEAD_LETTERS.labels(SERVICE, error.code).inc()
        if outcome == "junk":
            return  # counted, and no line for each: it would fill the disk instead
        log.log(30 if known else 20, "record refused", topic=record.topic, lane=lane, code=error.code, why=str(error))
        letter = dead_letter(
            record, service=SERVICE, code=error.code, reason=str(error), now_ms=time.time_ns() // 1_000_000
        )
        try:
            self._producer.produce(
                letter.topic,
                key=letter.key,
                value=letter.value,
                headers=list(letter.headers),
                partition=letter.partition % self._lanes,
                on_delivery=partial(self._delivered, lane),
            )
        except BufferError:
            self._flush()
            self.dead_letter(record, error)
        except KafkaException as failed:
            raise unavailable("writing a dead letter", failed) from failed

    def flush_dead_letters(self, lane: int) -> None:
        """Wait until all dead letters are written. Raises KafkaUnavailableError where one of this lane is not: then it
        must not go on. What came of another lane's letters is for that one to hear."""
        self._flush()
        if failed := self._undelivered.pop(lane, None):
            raise _unwritten(", ".join(failed[:3]))

    def _flush(self) -> None:
        if self._producer.flush(FLUSH_SECONDS):
            raise _unwritten("time-out")

    def _delivered(self, lane: int, error: object, _: Message) -> None:
        if error is not None:
            self._undelivered.setdefault(lane, []).append(str(error))


def _unwritten(why: str) -> KafkaUnavailableError:
    return KafkaUnavailableError(f"dead letters of {SERVICE} can't be written ({why}); the lane stops")
