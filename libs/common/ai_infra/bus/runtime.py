"""The loop under every service: take, verify, decide, commit.

One thread owns the consumer, the producer and all lanes. Each turn takes what has come, decides it lane by lane, and
commits outputs, state, timers, pending work and offsets in one Kafka transaction. Nothing slow happens here: work runs
on threads of its own (`workers.py`). What cannot be known (a fenced producer, an unknown outcome, lost offsets) ends
the process; started again, it goes on from what was committed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from ai_infra.bus.assignment import Assignment
from ai_infra.bus.batch import Batch
from ai_infra.bus.gauges import LaneGauges
from ai_infra.bus.judge import Judge
from ai_infra.bus.kafka.config import MAX_POLL_INTERVAL_MS
from ai_infra.bus.kafka.consume import RestartNeededError, check_message_error, record_from_message
from ai_infra.bus.lane import Lane
from ai_infra.bus.membership import Membership, Place
from ai_infra.bus.records import PendingWork
from ai_infra.bus.restore import Restorer
from ai_infra.bus.service import QUICK_GRACE_SECONDS, Service
from ai_infra.bus.transactions import AbortNeededError, TransactionalProducer
from ai_infra.bus.voice import Surroundings
from ai_infra.bus.workers import Finished, Workers
from ai_infra.events.event import Record
from ai_infra.events.generated import OperatorAction
from ai_infra.telemetry import metrics

log = structlog.get_logger(__name__)

BATCH_RECORDS: Final = 500
IDLE_SECONDS: Final = 0.2  # how long a turn waits for input when nothing else is to be done
BUSY_SECONDS: Final = 0.02  # the same while work is out: its result should not wait long
HOUSEKEEPING_SECONDS: Final = 30.0
ABORTS_IN_A_ROW: Final = 3  # one is a rebalance, a few are an outage
PENDING_LIMIT: Final = 1_000  # pieces of work a lane may wait for before its input is paused


class Runtime:
    """Runs one service on the lanes that its group gives it, until `stop` is set."""

    def __init__(
        self,
        service: Service,
        *,
        consumer_config: dict[str, Any],
        producer: TransactionalProducer,
        restorer: Restorer,
        judge: Judge,
        surroundings: Surroundings,
        each_turn: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._producer = producer
        self._restorer = restorer
        self._judge = judge
        self._around = surroundings
        self._each_turn = each_turn
        self._workers = Workers(service)
        inputs = [*(t.TOPIC for t in service.listens), OperatorAction.TOPIC, f"{service.name}.retry"]  # type: ignore[attr-defined]  # bodies have TOPIC
        self._assignment = Assignment(inputs)
        self._membership = Membership(service.name, consumer_config, self._assignment, self._give_up)
        self._group, self._consumer = self._membership.group, self._membership.consumer
        self._gauges = LaneGauges(service.name, self._group)
        self._lanes: dict[int, Lane] = {}
        self._positions: dict[Place, int] = {}
        self._finished: deque[Finished] = deque()  # to be decided in the next turn
        self._held: list[Finished] = []  # results of lanes that are halted, until they are resumed or go
        self._house_at = 0.0
        self._turned = time.monotonic()
        self._aborted = (0, "")  # transactions aborted since the last commit, and why the last one was
        self._unplaced = False  # the next lane cannot be placed yet

    # -- readiness, read by other threads -------------------------------------------------------------------------

    def check_loop(self) -> str | None:
        since = time.monotonic() - self._turned
        return None if since < 60 else f"the loop has not turned for {since:.0f} s"

    def check_alive(self) -> str | None:
        """Not well once the loop stands for so long that its group has given its lanes away: only a restart helps."""
        since = time.monotonic() - self._turned
        return None if since < MAX_POLL_INTERVAL_MS / 1000 else f"the loop has not turned for {since:.0f} s"

    def check_lanes(self) -> str | None:
        if not self._membership.joined:
            return "waiting for the consumer group to give this replica its lanes"
        if partial := self._assignment.partial_lanes():
            lane, missing = next(iter(partial.items()))
            return (
                f"stands still on {len(partial)} lane(s): lane {lane} lacks {', '.join(missing)}; "
                "are two versions running?"
            )
        return None

    def check_halts(self) -> str | None:
        for number, lane in sorted(dict(self._lanes).items()):
            if (halt := lane.halted) is not None:
                return (
                    f"lane {number} halted at {halt.since.isoformat()} ({halt.code}: {halt.reason}); mend the cause, "
                    f"then `ai-infra groups resume {self._service.name} --lane {number}`"
                )
        return None

    def check_transactions(self) -> str | None:
        count, why = self._aborted
        if count < ABORTS_IN_A_ROW:
            return None
        return f"the last {count} transactions were aborted, so nothing moves: {why}"

    @property
    def lanes(self) -> list[int]:
        return sorted(self._lanes)

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        self._membership.join()
        try:
            while not stop.is_set():
                self._turn()
        except KafkaException as error:
            raise RestartNeededError(f"the consumer of {self._group} failed: {error}") from error
        finally:
            self._close()

    def _turn(self) -> None:
        self._turned = time.monotonic()
        self._each_turn()
        messages = self._take()
        self._judge.taken()
        # Taken with the batch and after joining: metadata read later could commit for a lane that has moved meanwhile.
        group_metadata = self._consumer.consumer_group_metadata()
        self._take_up_lanes()
        batch = Batch()
        rewind: dict[Place, int] = {}
        redo: list[Finished] = []
        self._decide_finished(batch, redo)
        self._decide_due(batch)
        for message in messages:
            self._decide_message(message, batch, rewind)
        self._gauges.show_delay(self._around.clock())
        self._await_quick(batch, redo)
        self._keep_house(batch)
        committed = self._commit(batch, group_metadata, redo) if batch.lanes else True
        for place, offset in rewind.items():
            if committed or place not in batch.first:  # an aborted batch has been sought back to where it began
                self._membership.seek(place, offset)
        self._pause_and_resume()
        self._gauges.show_lag(self._consumer, lambda: self._positions)

    def _take(self) -> list[Message]:
        """What has come: waits for the first message only, since `consume` would wait for its whole time."""
        first = self._consumer.poll(self._patience())
        if first is None:
            return []
        return [first, *self._consumer.consume(BATCH_RECORDS - 1, timeout=0)]

    def _patience(self) -> float:
        if self._finished or self._untaken_lanes():
            return BUSY_SECONDS if self._unplaced else 0.0
        patience = BUSY_SECONDS if self._workers.busy else IDLE_SECONDS
        now = self._around.clock()
        for lane in self._lanes.values():
            if (due := lane.next_due()) is not None:
                patience = min(patience, max(0.0, (due - now).total_seconds()))
        return patience

    def _decide_message(self, message: Message, batch: Batch, rewind: dict[Place, int]) -> None:
        error = message.error()
        if error is not None:
            check_message_error(error, self._group)
            return
        record = record_from_message(message)
        place = (record.topic, record.partition)
        lane = self._lanes.get(record.partition)
        if lane is None or place in rewind or record.offset < self._positions[place]:
            return  # not ours yet, behind a record that must wait, or read before a seek
        if lane.halted and record.topic != OperatorAction.TOPIC:
            rewind[place] = record.offset
            return
        self._decide_record(lane, record, batch)
        batch.took(record.topic, record.partition, record.offset)
        self._gauges.took(record.partition, record.append_time_ms)

    def _decide_record(self, lane: Lane, record: Record, batch: Batch) -> None:
        verdict = self._judge.judge(record)
        if verdict.event is not None:
            lane.event(verdict.event, batch, redriven=verdict.redriven)
        elif verdict.error is not None:
            lane.reject(record, verdict.error, verdict.sender, batch)

    def _decide_finished(self, batch: Batch, redo: list[Finished]) -> None:
        while (finished := self._workers.get()) is not None:
            self._finished.append(finished)
        while self._finished:
            finished = self._finished.popleft()
            lane = self._lanes.get(finished.lane)
            if lane is None:
                continue  # the lane has moved: its new owner does the work again
            if lane.halted:
                self._held.append(finished)
            elif lane.done(finished.work, finished.result, finished.error, batch):
                batch.lanes.add(finished.lane)
                batch.count(metrics.BUS_TRIGGERS, self._service.name, "done")
                redo.append(finished)

    def _decide_due(self, batch: Batch) -> None:
        now = self._around.clock()
        for number, lane in self._lanes.items():
            if lane.halted:
                continue
            for key in list(lane.due(now)):
                lane.tick(key, batch)
                batch.lanes.add(number)
                batch.count(metrics.BUS_TRIGGERS, self._service.name, "tick")

    def _await_quick(self, batch: Batch, redo: list[Finished]) -> None:
        """Keeps the batch open a short while for work that is quick, so that trigger and result are one transaction."""
        deadline = time.monotonic() + QUICK_GRACE_SECONDS
        outstanding: set[tuple[int, str]] = set()  # (lane, '<kind>/<id>')
        while True:
            for number in batch.lanes:
                lane = self._lanes[number]
                for work in lane.to_start:
                    if self._service.work[work.kind].quick:
                        self._workers.start(number, work)
                        outstanding.add((number, f"{work.kind}/{work.work_id}"))
                lane.to_start[:] = [w for w in lane.to_start if not self._service.work[w.kind].quick]
            outstanding = {(n, key) for n, key in outstanding if self._lanes[n].waits_for(key)}
            patience = deadline - time.monotonic()
            if not outstanding or patience <= 0:
                return
            finished = self._workers.get(patience)
            if finished is None:
                return
            self._finished.append(finished)
            self._decide_finished(batch, redo)

    def _commit(self, batch: Batch, group_metadata: Any, redo: list[Finished]) -> bool:
        """Commits the batch. False where it was aborted: then nothing of it happened, and its input is read again."""
        lanes = [(number, self._lanes[number]) for number in sorted(batch.lanes)]
        for _, lane in lanes:
            if lane.state.changed:
                batch.outgoing.extend(lane.state_records())
        # Every lane sends its positions, moved or not: an empty offset list would be a transaction that nobody fences.
        offsets = [
            TopicPartition(topic, partition, batch.next.get((topic, partition), self._positions[(topic, partition)]))
            for number, _ in lanes
            for topic, partition in self._assignment.partitions_of(number)
        ]
        began = time.monotonic()
        try:
            self._producer.transact(batch.outgoing, offsets, group_metadata)
        except AbortNeededError as aborted:
            metrics.BUS_ABORTS.labels(self._service.name, aborted.code).inc()
            log.warning("transaction aborted; its input is read again", code=aborted.code, why=str(aborted))
            self._aborted = (self._aborted[0] + 1, str(aborted))
            for number, lane in lanes:
                lane.rollback()
                if not lane.halted:  # it had halted in this batch
                    self._let_go(number)
            self._finished.extendleft(reversed(redo))
            for place, offset in batch.first.items():
                self._membership.seek(place, offset)
            return False
        self._aborted = (0, "")
        metrics.BUS_TRANSACTION.labels(self._service.name).observe(time.monotonic() - began)
        metrics.BUS_BATCH.labels(self._service.name).observe(batch.taken)
        self._positions.update(batch.next)
        for number, lane in lanes:
            to_start, to_cancel = list(lane.to_start), list(lane.to_cancel)
            was_resumed = lane.commit()
            for key in to_cancel:
                self._workers.cancel(number, key)
            for work in to_start:
                self._workers.start(number, work)
            if was_resumed:
                self._resume_work(number, lane)
        batch.committed()
        return True

    # -- lanes coming and going -----------------------------------------------------------------------------------

    def _give_up(self, places: list[Place]) -> None:
        # Called between turns only, when no batch is open: everything decided has been committed.
        for number in sorted({p for _, p in places} & self._lanes.keys()):
            del self._lanes[number]
            self._workers.orphan(number)
            for place in self._assignment.partitions_of(number):
                self._positions.pop(place, None)
            self._held = [f for f in self._held if f.lane != number]
            self._gauges.gone(number, self._assignment.partitions_of(number))
            log.info("lane given up", lane=number)
        metrics.BUS_LANES.labels(self._service.name).set(len(self._lanes))

    def _untaken_lanes(self) -> set[int]:
        return self._assignment.whole_lanes() - self._lanes.keys()

    def _take_up_lanes(self) -> None:
        """Restores one lane a turn, so that a rebalance is heard of between two of them."""
        untaken = sorted(self._untaken_lanes())
        if not untaken:
            return
        number = untaken[0]
        places = self._assignment.partitions_of(number)
        try:
            lane, offsets = self._restorer.restore(number, places, self._consumer, self._group, self._place)
        except KafkaException as error:
            # Another lane of the same assignment waits for a pending transaction, and this client begins with none of
            # them before it can begin with all.
            self._unplaced = error.args[0].code() == KafkaError._STATE
            if not self._unplaced:
                raise
            return
        self._unplaced = False
        self._lanes[number] = lane
        self._positions.update(offsets)
        self._resume_work(number, lane)
        metrics.BUS_LANES.labels(self._service.name).set(len(self._lanes))

    def _resume_work(self, number: int, lane: Lane) -> None:
        """Starts what was pending when the lane came, unless it still runs here. The new attempt is written with the
        next batch of the lane; should this process die before it, the work simply has the same attempt again."""
        if lane.halted:
            return
        done = {(f.work.kind, f.work.work_id, f.work.asked_by) for f in self._let_go(number)}

        def at_hand(work: PendingWork) -> bool:
            return (work.kind, work.work_id, work.asked_by) in done or self._workers.is_running(number, work)

        for work in lane.resume_work(at_hand):
            self._workers.start(number, work)

    def _let_go(self, number: int) -> list[Finished]:
        """Has the results that were held for a lane decided in the next turn."""
        held = [f for f in self._held if f.lane == number]
        self._held = [f for f in self._held if f.lane != number]
        self._finished.extend(held)
        return held

    # -- pausing --------------------------------------------------------------------------------------------------

    def _place(self, offsets: dict[Place, int]) -> None:
        for place, offset in offsets.items():
            self._membership.seek(place, offset)

    def _pause_and_resume(self) -> None:
        want: set[Place] = {p for lane in self._untaken_lanes() for p in self._assignment.partitions_of(lane)}
        want |= {p for lane in self._assignment.partial_lanes() for p in self._assignment.partitions_of(lane)}
        for number, lane in self._lanes.items():
            full = lane.pending_work > (PENDING_LIMIT if not self._is_paused(number) else PENDING_LIMIT // 2)
            for place in self._assignment.partitions_of(number):
                if (lane.halted or full) and place[0] != OperatorAction.TOPIC:
                    want.add(place)
        self._membership.hold(want)
        metrics.BUS_PAUSED.labels(self._service.name).set(len({p for _, p in self._membership.paused}))

    def _is_paused(self, number: int) -> bool:
        return any(p in self._membership.paused for p in self._assignment.partitions_of(number))

    # -- housekeeping ---------------------------------------------------------------------------------------------

    def _keep_house(self, batch: Batch) -> None:
        now = time.monotonic()
        if now < self._house_at:
            return
        self._house_at = now + HOUSEKEEPING_SECONDS
        self._workers.cancel_orphans()
        for number, lane in self._lanes.items():
            if lane.halted:
                continue
            lane.keep_house(batch)
            if lane.state.changed:
                batch.lanes.add(number)
            metrics.BUS_STATE_RECORDS.labels(self._service.name, str(number)).set(len(lane.state))

    def _close(self) -> None:
        self._workers.close(timeout=10.0)
        self._consumer.close()
        self._restorer.close()
        self._producer.close()


def utc_now() -> datetime:
    return datetime.now(UTC)
