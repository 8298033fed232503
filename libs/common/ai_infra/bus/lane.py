"""One lane of a service: the order in which its triggers are decided, and all that follows from each of them.

A lane knows no Kafka. It is given verified events, ticks and finished work, calls `decide`, and adds what follows to
the open batch; the runtime commits the batch or drops it. Nothing here changes committed state before `commit()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog

from ai_infra.bus.agenda import Agenda, work_key
from ai_infra.bus.batch import Batch, Outgoing
from ai_infra.bus.deadletters import dead_letter
from ai_infra.bus.decision import (
    Context,
    Decision,
    Delete,
    Done,
    Put,
    Refuse,
    Say,
    Tick,
    Trigger,
    WorkError,
)
from ai_infra.bus.halts import FailureRun, JunkBudget
from ai_infra.bus.hearing import Hearing
from ai_infra.bus.records import RUNTIME_RECORDS, SELF, Halt, PendingTimer, PendingWork
from ai_infra.bus.refusing import Sender, refusal, refusal_id
from ai_infra.bus.state import LaneState, StateTooLargeError
from ai_infra.bus.voice import Surroundings, Voice
from ai_infra.errors import AiInfraError
from ai_infra.events.compose import consequence_id
from ai_infra.events.event import Cause, Event, Record
from ai_infra.events.exceptions import BodyTooLarge
from ai_infra.events.generated import OperatorAction, Reason
from ai_infra.events.text import sayable
from ai_infra.telemetry import metrics

log = structlog.get_logger(__name__)

RESUME_ACTION: Final = "groups.resume"
RENUMBER_ACTION: Final = "groups.renumber"
# Of our own services these are a bad deploy. Of anybody else they are what its signer sent: twenty of them, by a key
# for one model, must not stop a lane for all that are in it.
_UNREADABLE: Final = frozenset({"undecodable_body", "unknown_schema"})


class UndeclaredEventError(AiInfraError):
    """A service said, or was about to say, what it never declared."""

    code = "undeclared_event"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a trigger comes from: `id` names the trigger itself, `cause` the event in the log that it goes back to."""

    id: str
    model: str
    cause: Cause
    traceparent: str | None


class Lane:
    """The state and the open batch's share of one lane."""

    def __init__(self, number: int, surroundings: Surroundings) -> None:
        self.number = number
        self.state = LaneState((*RUNTIME_RECORDS, *surroundings.service.records))
        self._agenda = Agenda(self.state)
        self.to_start, self.to_cancel = self._agenda.to_start, self._agenda.to_cancel
        self._around = surroundings
        self._service = surroundings.service
        self._failures = FailureRun()
        self._junk = JunkBudget()
        self._voice = Voice(number, self.state, surroundings)
        self._hearing = Hearing(self.state, surroundings.service.name)
        self._decide_seconds = metrics.BUS_DECIDE.labels(surroundings.service.name)
        self._resumed = False

    # -- what the runtime asks ------------------------------------------------------------------------------------

    @property
    def halted(self) -> Halt | None:
        return self.state.get(Halt, SELF)

    @property
    def pending_work(self) -> int:
        """How much work the lane waits for, open batch included."""
        return self._agenda.pending

    def loaded(self) -> None:
        """Call once after the state has been restored. Pending work is started by `resume_work`."""
        self._agenda.loaded()
        metrics.BUS_LANE_HALTED.labels(self._service.name, str(self.number)).set(1 if self.halted else 0)

    def resume_work(self, running: Callable[[PendingWork], bool]) -> Iterator[PendingWork]:
        """Pending work to be started here: what `running` says is not at work in this process, with attempt + 1."""
        return self._agenda.resume(running)

    def commit(self) -> bool:
        """The batch has happened. True when the lane was halted before it and is not any more."""
        self.state.commit()
        self._failures.commit()
        self._agenda.clear()
        resumed, self._resumed = self._resumed, False
        return resumed

    def rollback(self) -> None:
        self.state.rollback()
        self._failures.rollback()
        self._agenda.clear()
        self._resumed = False
        self.loaded()

    def begin(self, epoch: int, *, now_ms: int) -> None:
        """Has a lane without state speak in this epoch, never before `now_ms`."""
        self._voice.begin(epoch, now_ms)

    def recall(self, event: Event[Any], *, failed: bool) -> None:
        """Notes an event that was decided on before the state was lost; `failed`: refused, so it may be redriven."""
        self._hearing.remember(event, failed=failed)

    # -- triggers -------------------------------------------------------------------------------------------------

    def event(self, event: Event[Any], batch: Batch, *, redriven: bool = False) -> bool:
        """Decides a verified event. Returns False when the lane has halted on it (the event is dead-lettered)."""
        if not isinstance(event.body, (*self._service.listens, OperatorAction)):
            # A redrive can bring anything.
            here = f"{self._service.name} does not listen to {event.type}"
            self._bury(event.record, "not_listened_to", here, batch)
            return True
        if (why := self._hearing.heard_before(event, redriven=redriven)) is not None:
            batch.count(metrics.BUS_RECORDS, self._service.name, event.type, "duplicate")
            self._bury(event.record, "duplicate", why, batch)
            return True
        if isinstance(event.body, OperatorAction):
            self._operator(event)
            if OperatorAction not in self._service.listens:
                self._hearing.remember(event, failed=False)
                return True
        origin = Origin(event.id, event.model, Cause(event.id, event.lane), event.attributes.traceparent)
        try:
            self._decide(event, origin, batch)
        except Refuse as refused:
            self._refuse(event, refused.reasons, refused.code, str(refused), batch)
            self._failures.succeeded()
        except (BodyTooLarge, StateTooLargeError) as error:
            # What follows from it is more than an event or a record can hold: its fault, and no reason for a halt.
            self._refuse(event, (Reason(code=error.code, detail=str(error)),), error.code, str(error), batch)
        except Exception as error:  # noqa: BLE001 - whatever decide raises is this event's dead letter, not our end
            return self._decide_failed(event, error, batch)
        else:
            self._hearing.remember(event, failed=False)
            self._failures.succeeded()
            batch.count(metrics.BUS_RECORDS, self._service.name, event.type, "decided")
        return True

    def reject(self, record: Record, error: AiInfraError, sender: Sender | None, batch: Batch) -> bool:
        """Takes a record that could not be verified. `sender` is who signed it, where the signature itself was good.

        Returns False when the lane has halted on it.
        """
        batch.count(metrics.TRUST_VERIFY_FAILURES, self._service.name, error.code)
        if sender is None and not self._junk.take(self._around.clock().timestamp()):
            batch.count(metrics.BUS_RECORDS, self._service.name, record.topic, "junk")
            return True
        log.warning("record refused", topic=record.topic, offset=record.offset, code=error.code, why=str(error))
        self._bury(record, error.code, str(error), batch)
        batch.count(metrics.BUS_RECORDS, self._service.name, record.topic, "dead_letter")
        if sender is None:
            return True
        self._hearing.failed(sender.event_id, sender.event_hash, record.append_time_ms)
        self._say_refused(sender, record.topic, (Reason(code=error.code, detail=str(error)),), batch)
        if error.code in _UNREADABLE and getattr(error, "by_service", False):
            return self._count_failure(error.code, str(error))
        return True

    def tick(self, key: str, batch: Batch) -> None:
        timer = self._agenda.take_timer(key)
        if timer is None:
            return
        cause = Cause(timer.cause_id, timer.cause_lane)
        tick_id = consequence_id(timer.cause_id, f"tick/{key}/{int(timer.at.timestamp() * 1000)}")
        tick = Tick(id=tick_id, key=key, at=timer.at, model=timer.model, cause=cause)
        self._decide_or_halt(tick, Origin(tick_id, timer.model, cause, timer.traceparent), batch)

    def done(self, work: PendingWork, result: Any, error: WorkError | None, batch: Batch) -> bool:
        """Decides finished work. False when the lane no longer waits for it."""
        pending = self._agenda.take_work(work.kind, work.work_id, asked_by=work.asked_by)
        if pending is None:
            return False
        cause = Cause(pending.cause_id, pending.cause_lane)
        done_id = consequence_id(pending.asked_by, f"done/{work_key(work.kind, work.work_id)}")
        kind = self._service.work[pending.kind]
        done = Done(
            id=done_id,
            kind=pending.kind,
            work_id=pending.work_id,
            args=msgspec.json.decode(pending.args, type=kind.args),
            result=result,
            error=error,
            attempt=work.attempt,
            model=pending.model,
            cause=cause,
        )
        self._decide_or_halt(done, Origin(done_id, pending.model, cause, pending.traceparent), batch)
        return True

    def due(self, now: datetime) -> Iterator[str]:
        """Keys of timers that have come due, the earliest first."""
        return self._agenda.due(now)

    def next_due(self) -> datetime | None:
        """When the next timer comes due; None where there is none, or the lane is halted."""
        return None if self.halted else self._agenda.next_due()

    def waits_for(self, key: str) -> bool:
        """Whether work `<kind>/<id>` is still pending."""
        return self._agenda.waits_for(key)

    def keep_house(self, batch: Batch) -> None:
        """Says the heartbeat and forgets old event ids, where it is time for that."""
        self._voice.heartbeat(batch)
        self._hearing.forget_old(self._voice.now())

    def state_records(self) -> list[Outgoing]:
        """The changed state of the open batch, signed. Call once, last, before the commit."""
        return self._voice.state_records()

    # -- deciding -------------------------------------------------------------------------------------------------

    def _decide_or_halt(self, trigger: Tick | Done, origin: Origin, batch: Batch) -> None:
        """A tick or finished work has no record to bury: what `decide` raises halts the lane rather than being lost."""
        try:
            self._decide(trigger, origin, batch)
        except Exception as error:
            log.exception("decide failed on its own trigger", lane=self.number, trigger=trigger)
            if isinstance(trigger, Tick):
                self._set_timer(trigger.key, trigger.at, origin)
            else:
                again = _pending(trigger.kind, trigger.work_id, trigger.args, trigger.attempt, origin)
                self._agenda.put_back(again)
            self._halt("decide_failed", f"{type(error).__name__} while deciding {type(trigger).__name__}: {error}")

    def _decide(self, trigger: Trigger, origin: Origin, batch: Batch) -> None:
        """Calls `decide` and applies its answer whole, or raises with nothing changed."""
        context = Context(
            now=self._voice.now(),
            lane=self.number,
            service=self._service.name,
            rules=self._service.rules,
            keyring=self._around.keyring_version(),
            policy=self._around.policy(),
        )
        self.state.savepoint()
        said, mark = len(batch.outgoing), self._agenda.mark()
        try:
            with self._decide_seconds.time():
                decision = self._service.decide(self.state, trigger, context)
            self._apply(decision, origin, context.now, batch)
        except BaseException:
            self.state.restore_savepoint()
            del batch.outgoing[said:]
            self._agenda.back_to(mark)
            raise

    def _apply(self, decision: Decision, origin: Origin, now: datetime, batch: Batch) -> None:
        self._voice.decided_at(now)
        for say in decision.events:
            if type(say.body) not in self._service.says:
                raise UndeclaredEventError(
                    f"service {self._service.name} decided to say {type(say.body).__name__}, which it does not "
                    f"declare; it declares {[t.__name__ for t in self._service.says]}"
                )
            event_id = consequence_id(origin.id, f"{say.body.TOPIC}/{say.kind or ''}/{say.subject or ''}")
            causes = (origin.cause, *say.causes)
            self._voice.say(
                say, event_id, batch, now=now, model=origin.model, causes=causes, traceparent=origin.traceparent
            )
        for change in decision.state:
            match change:
                case Put(id=record_id, record=record):
                    self.state.put_fitting(record_id, record)
                case Delete(record_type=record_type, id=record_id):
                    self.state.delete(record_type, record_id)
        for timer in decision.timers:
            if timer.at is None:
                self._agenda.take_timer(timer.key)
                continue
            self._set_timer(timer.key, timer.at.astimezone(UTC), origin)
        for kind, work_id in decision.cancel:
            self._agenda.cancel(kind, work_id)
        for work in decision.work:
            key = work_key(work.kind, work.id)
            wanted = self._service.work[work.kind]
            if not isinstance(work.args, wanted.args):
                raise TypeError(f"work {key} needs args of type {wanted.args.__name__}, not {type(work.args).__name__}")
            if not self._agenda.waits_for(key):
                self._agenda.ask(_pending(work.kind, work.id, work.args, 1, origin))

    def _set_timer(self, key: str, at: datetime, origin: Origin) -> None:
        cause = origin.cause
        self._agenda.set_timer(key, PendingTimer(at, origin.model, cause.id, cause.lane, origin.traceparent))

    # -- refusing -------------------------------------------------------------------------------------------------

    def _refuse(self, event: Event[Any], reasons: tuple[Reason, ...], code: str, why: str, batch: Batch) -> None:
        batch.count(metrics.BUS_RECORDS, self._service.name, event.type, "refused")
        self._bury(event.record, code, why, batch)
        self._hearing.remember(event, failed=True)
        self._say_refused(Sender.of(event), event.type, reasons, batch)

    def _say_refused(self, sender: Sender, event_type: str, reasons: tuple[Reason, ...], batch: Batch) -> None:
        if not sender.model:
            return
        name = self._service.name
        body = refusal(sender, event_type, reasons, service=name, rules=self._service.rules)
        self._voice.say(
            Say(body, subject=sender.event_id),
            refusal_id(sender.event_id, name),
            batch,
            now=self._voice.now(),
            model=sender.model,
            causes=(Cause(sender.event_id, self.number),),
            traceparent=sender.traceparent,
        )

    def _decide_failed(self, event: Event[Any], error: Exception, batch: Batch) -> bool:
        log.exception("decide failed", lane=self.number, event_id=event.id, event_type=event.type)
        why = f"{type(error).__name__}: {error}"
        reason = Reason(code="decide_failed", detail=f"{self._service.name} could not decide on this event: {why}")
        self._refuse(event, (reason,), "decide_failed", why, batch)
        return self._count_failure("decide_failed", why)

    def _count_failure(self, code: str, why: str) -> bool:
        if not self._failures.failed():
            return True
        self._halt(code, f"{self._failures.consecutive} failures in a row; the last: {why}")
        return False

    def _halt(self, code: str, reason: str) -> None:
        failures = self._failures.consecutive
        halt = Halt(since=self._voice.now(), code=code, reason=sayable(reason, 2_000), failures=failures)
        self.state.put(SELF, halt)
        metrics.BUS_LANE_HALTED.labels(self._service.name, str(self.number)).set(1)
        log.error("lane halted", lane=self.number, code=code, reason=reason)

    def _bury(self, record: Record, code: str, reason: str, batch: Batch) -> None:
        now_ms = int(self._around.clock().timestamp() * 1000)
        letter = dead_letter(record, service=self._service.name, code=code, reason=reason, now_ms=now_ms)
        batch.outgoing.append(letter)
        batch.count(metrics.BUS_DEAD_LETTERS, self._service.name, code)

    def _operator(self, event: Event[OperatorAction]) -> None:
        action = event.body
        # A lane is many models': who may act on one of them alone does not resume it.
        mine = action.target in {self._service.name, f"{self._service.name}/{self.number}"}
        if not mine or event.model:
            return
        if action.action == RENUMBER_ACTION:
            self._voice.renumber(action.arguments_json)
        elif action.action == RESUME_ACTION and self.halted is not None:
            self.state.delete(Halt, SELF)
            self._resumed = True
            self._failures.reset()
            metrics.BUS_LANE_HALTED.labels(self._service.name, str(self.number)).set(0)
            log.info("lane resumed by an operator", lane=self.number, operator=action.operator, reason=action.reason)


def _pending(kind: str, work_id: str, args: Any, attempt: int, origin: Origin) -> PendingWork:
    return PendingWork(
        kind=kind,
        work_id=work_id,
        args=msgspec.json.encode(args).decode(),
        attempt=attempt,
        model=origin.model,
        cause_id=origin.cause.id,
        cause_lane=origin.cause.lane,
        asked_by=origin.id,
        traceparent=origin.traceparent,
    )
