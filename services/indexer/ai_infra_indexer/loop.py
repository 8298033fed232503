"""The indexer's loop: reads whole lanes, hands them what came, takes them and gives them up.

One thread owns the consumer, the database connection and all lanes; finality has a thread of its own. The offsets that
count are in Postgres: on taking a lane the consumer is placed from there. A lane that fails is dropped and taken anew
after a pause; what can't be known (lost offsets, a fenced or unknown transaction) ends the process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from ai_infra.bus.assignment import Assignment
from ai_infra.bus.gauges import LaneGauges
from ai_infra.bus.kafka.config import MAX_POLL_INTERVAL_MS
from ai_infra.bus.kafka.consume import (
    LostOffsetsError,
    RestartNeededError,
    check_message_error,
    record_from_message,
)
from ai_infra.bus.membership import Membership
from ai_infra.errors import UnavailableError
from ai_infra.objects.exceptions import Conflict
from ai_infra.telemetry import metrics
from ai_infra_indexer import SERVICE
from ai_infra_indexer.exceptions import Forked, LaneLost
from ai_infra_indexer.finality import Finality, FinalLane
from ai_infra_indexer.lane import Lane
from ai_infra_indexer.order import Source
from ai_infra_indexer.store import POSTGRES_AWAY, Connection
from ai_infra_indexer.together import work

log = structlog.get_logger(__name__)

BATCH_RECORDS: Final = 2_000
IDLE_SECONDS: Final = 0.1
RETAKE_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0)  # pause before a lane that failed is taken again
PROVEN_SECONDS: Final = 3.0  # after which a lane that was taken again, and has nothing to enter, counts as well
STUCK_SECONDS: Final = 60.0


class Indexer:
    """Works the lanes that the group gives to this process. Use from one thread; `check_*` from any."""

    def __init__(
        self,
        consumer_config: Mapping[str, Any],
        inputs: tuple[str, ...],
        take: Callable[[Consumer, int], tuple[Lane, FinalLane]],
        connection: Callable[[], Connection],
        finality: Finality,
        each_turn: Callable[[], None],
    ) -> None:
        """`connection`: to Postgres, that the last lane was taken with; all lanes are worked with it."""
        self._assignment = Assignment(inputs)
        self._membership = Membership(SERVICE, dict(consumer_config), self._assignment, self._give_up)
        self._group, self._consumer = self._membership.group, self._membership.consumer
        self._gauges = LaneGauges(SERVICE, self._group)
        self._take = take
        self._connection = connection
        self._finality = finality
        self._each_turn = each_turn
        self._lanes: dict[int, Lane] = {}
        self._troubles: dict[int, str] = {}
        self._retake_at: dict[int, float] = {}
        self._failures: dict[int, int] = {}
        self._proven_at: dict[int, float] = {}
        self._turned = time.monotonic()
        self._taking = False

    # --- readiness ------------------------------------------------------------------------------------------------

    def check_loop(self) -> str | None:
        since = time.monotonic() - self._turned
        return None if since < STUCK_SECONDS else f"the loop has not turned for {since:.0f} s"

    def check_alive(self) -> str | None:
        """Not well once the loop stands for so long that its group has given its lanes away, and is not at filling up
        Postgres from the archive, which takes as long as it takes: only a restart helps."""
        since = time.monotonic() - self._turned
        well = self._taking or since < MAX_POLL_INTERVAL_MS / 1000
        return None if well else f"the loop has not turned for {since:.0f} s"

    def check_lanes(self) -> str | None:
        if not self._membership.joined:
            return "waiting for the consumer group to give this replica its lanes"
        for lane, why in sorted(dict(self._troubles).items()):
            return f"lane {lane} stands still: {why}"
        if partial := self._assignment.partial_lanes():
            lane, missing = next(iter(partial.items()))
            return f"stands still on lane {lane}, which lacks {', '.join(missing)}; are two versions running?"
        for lane in sorted(self._assignment.whole_lanes() - set(self._lanes)):
            return f"lane {lane} is being taken: Postgres is compared with the archive, and filled up from it"
        return None

    def check_finality(self) -> str | None:
        return self._finality.problem

    @property
    def lanes(self) -> list[int]:
        return sorted(self._lanes)

    def held(self) -> list[int]:
        """Lanes that the group has given to this replica, those that stand still among them."""
        return sorted(self._assignment.whole_lanes())

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        self._membership.join()
        try:
            while not stop.is_set():
                self.turn()
        except KafkaException as error:
            # A seek or a pause of what was given away meanwhile, for one: the next start joins anew and goes on.
            raise RestartNeededError(f"the consumer of {self._group} failed: {error}") from error
        finally:
            self._close()

    def turn(self) -> None:
        self._turned = time.monotonic()
        self._each_turn()
        messages = self._read()
        if self._lanes:
            # While our assignment holds a lane nobody else has it: what is committed with this is fenced when it moves.
            self._finality.refresh(self.lanes, self._consumer.consumer_group_metadata())
        for message in messages:
            self._offer(message)
        self._work()
        for number, error in self._finality.lost().items():
            self._drop(error, number)
        if self._finality.failed is not None:
            raise self._finality.failed
        self._take_one()
        self._hold_back()
        self._gauges.show_lag(self._consumer, self._positions)

    def _read(self) -> list[Message]:
        patience = 0.0 if self._due() else IDLE_SECONDS
        first = self._consumer.poll(patience)
        if first is None:
            return []
        return [first, *self._consumer.consume(BATCH_RECORDS - 1, timeout=0)]

    def _offer(self, message: Message) -> None:
        error = message.error()
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        if error is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                check_message_error(error, self._group)
            elif topic is not None and partition in self._lanes and offset is not None:
                self._lanes[partition].reached((topic, partition), offset)
            return
        if partition in self._lanes:
            self._lanes[partition].offer(record_from_message(message))

    def _hold_back(self) -> None:
        """Nothing is read of a lane that is not taken. What is held for causes has a bound, however many events name
        causes that never come: a source of which a lane holds much is not read before some of it is placed."""
        untaken = (self._assignment.whole_lanes() | self._assignment.partial_lanes().keys()) - self._lanes.keys()
        full = {source for lane in self._lanes.values() for source in lane.full}
        self._membership.hold({place for number in untaken for place in self._assignment.partitions_of(number)} | full)

    def _work(self) -> None:
        if not self._lanes:
            return
        connection = self._connection()
        outcomes = work(connection, self._lanes) if not connection.closed else {}
        for number, outcome in outcomes.items():
            if isinstance(outcome, Exception):
                self._drop(outcome, number)
            # Until what it failed at has been read again, a turn without an entry says nothing.
            elif number in self._failures and (outcome or time.monotonic() > self._proven_at.get(number, 0.0)):
                del self._failures[number]
                self._troubles.pop(number, None)
        if connection.closed:
            # Now, and not when each has something to enter: what it takes to be worked again may be away by then.
            self._drop(UnavailableError("the connection to Postgres is gone"), *self._lanes)

    def _positions(self) -> dict[Source, int]:
        places = ((lane, place) for n, lane in self._lanes.items() for place in self._assignment.partitions_of(n))
        return {place: lane.read_to[place] for lane, place in places}

    # --- lanes coming and going -----------------------------------------------------------------------------------

    def _due(self) -> list[int]:
        now = time.monotonic()
        untaken = self._assignment.whole_lanes() - self._lanes.keys()
        return sorted(n for n in untaken if self._retake_at.get(n, 0.0) <= now and not self._finality.leaving(n))

    def _take_one(self) -> None:
        """One lane a turn, so that a rebalance is heard of between two of them."""
        due = self._due()
        if not due:
            return
        number, self._taking = due[0], True
        try:
            lane, final = self._take(self._consumer, number)
        except (
            LaneLost,
            Forked,
            Conflict,
            UnavailableError,
            *POSTGRES_AWAY,
        ) as error:
            self._put_off(number, error)
            return
        except KafkaException as error:
            self._put_off(number, UnavailableError(f"Kafka: {error.args[0]}"))
            return
        finally:
            self._taking, self._turned = False, time.monotonic()
        self._lanes[number] = lane
        final.group_metadata = self._consumer.consumer_group_metadata()
        self._finality.add(final)
        self._proven_at[number] = time.monotonic() + PROVEN_SECONDS
        for place in self._assignment.partitions_of(number):
            self._membership.seek(place, lane.read_to[place])
        metrics.BUS_LANES.labels(SERVICE).set(len(self._lanes))
        log.info("lane taken", lane=number, size=lane.head.size)

    def _put_off(self, number: int, error: BaseException) -> None:
        failures = self._failures.get(number, 0)
        self._failures[number] = failures + 1
        self._retake_at[number] = time.monotonic() + RETAKE_SECONDS[min(failures, len(RETAKE_SECONDS) - 1)]
        self._troubles[number] = str(error)
        log.warning("lane waits", lane=number, why=str(error), failures=failures + 1)

    def _drop(self, error: BaseException, *numbers: int) -> None:
        """Forget lanes that can't go on; they are taken anew from what is durable."""
        self._forget(*numbers)
        for number in numbers:
            self._put_off(number, error)

    def _forget(self, *numbers: int) -> None:
        for number in numbers:
            self._lanes.pop(number, None)
        self._finality.remove(*numbers)
        metrics.BUS_LANES.labels(SERVICE).set(len(self._lanes))

    def _give_up(self, places: list[Source]) -> None:
        numbers = sorted({number for _, number in places})
        worked = [number for number in numbers if number in self._lanes]
        self._forget(*worked)
        if worked:
            log.info("lanes given up", lanes=worked)
        for number in numbers:
            self._troubles.pop(number, None)
            self._retake_at.pop(number, None)
            self._gauges.gone(number, self._assignment.partitions_of(number))

    def _close(self) -> None:
        self._finality.close(20.0)
        self._consumer.close()


def placed(
    stored: Mapping[Source, int],
    begins: Callable[[list[Source]], Mapping[Source, int]],
    committed: Callable[[list[Source]], Mapping[Source, int]],
    sources: list[Source],
) -> dict[Source, int]:
    """Where to read each source from: the stored offset; the beginning for a source that was never read.

    Where the stored offset is gone, events were deleted before they were sequenced: that raises LostOffsetsError, until
    an operator has placed the group in Kafka (`groups seek`), which is believed then.
    """
    low = begins(sources)
    places = {source: stored.get(source, low[source]) for source in sources}
    lost = [source for source in sources if places[source] < low[source]]
    if lost:
        sought = committed(lost)
        for topic, partition in lost:
            source = (topic, partition)
            places[source] = sought.get(source, -1)
            if places[source] < low[source]:
                raise LostOffsetsError(
                    f"{topic}/{partition}: the indexer would go on at {stored[source]}, the topic begins at "
                    f"{low[source]}: records were deleted before they were sequenced. Nothing was skipped. Accept the "
                    f"loss with `ai-infra groups seek indexer --lane {partition} --to start --reason TEXT`"
                )
    return places
