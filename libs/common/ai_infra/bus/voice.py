"""The voice of one lane of a service: its clock, its producer sequence, its heartbeat and its signed state.

The sequence (`seq`, `prev`) is part of the lane's state and moves in the same transaction as the events that it
numbers, so an aborted transaction leaves no hole, and whoever owns the lane next goes on where it was left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import structlog

from ai_infra.bus.batch import Batch, Outgoing
from ai_infra.bus.decision import PolicyView, Say
from ai_infra.bus.fitting import fitting_subject
from ai_infra.bus.records import SELF, Head
from ai_infra.bus.service import Service
from ai_infra.bus.speech import Speech, heartbeat_due
from ai_infra.bus.state import LaneState
from ai_infra.events.compose import uuid7
from ai_infra.events.event import Cause
from ai_infra.events.generated import ProducerHeartbeat
from ai_infra.events.lanes import lane_key
from ai_infra.telemetry import metrics

log = structlog.get_logger(__name__)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HEAD_KEY: Final = f"{Head.STATE_NAME}/{SELF}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a lane shares with the others of its process. `clock` gives the present in UTC."""

    service: Service
    speech: Speech
    clock: Callable[[], datetime]
    keyring_version: Callable[[], int]
    policy: Callable[[], PolicyView]


class Voice:
    """What a lane says, numbered and chained."""

    def __init__(self, number: int, state: LaneState, surroundings: Surroundings) -> None:
        self._number = number
        self._state = state
        self._around = surroundings
        self._name = surroundings.service.name

    def now(self) -> datetime:
        """The present in whole milliseconds, never before what this lane has decided already."""
        head = self._state.get(Head, SELF)
        now_ms = max(_ms(self._around.clock()), head.now_ms if head else 0)
        return _EPOCH + timedelta(milliseconds=now_ms)

    def begin(self, epoch: int, now_ms: int) -> None:
        """The first state of a lane whose state was lost. Its records are numbered beyond all that were before: an old
        one that somebody kept is not newer."""
        self._state.put(SELF, Head(epoch=epoch, now_ms=now_ms, beat_ms=now_ms, counter=epoch))

    def decided_at(self, now: datetime) -> None:
        """Notes the time of a decision: the lane's clock does not go back behind it, whoever owns the lane."""
        head = self._head()
        self._moved(head, seq=head.seq, prev=head.prev, now_ms=_ms(now))

    def say(
        self,
        say: Say,
        event_id: str,
        batch: Batch,
        *,
        now: datetime,
        model: str | None,
        causes: tuple[Cause, ...],
        traceparent: str | None,
    ) -> None:
        """Adds a signed event to the batch, under the model's key or, without one, under the lane's own.

        `now` becomes the event's time: it is that of the decision, so that a replay decides with the same one.
        """
        head = self._head()
        said = self._around.speech.event(
            say.body,
            key=model if model is not None else lane_key(self._number),
            lane=self._number,
            event_id=event_id,
            time=now,
            subject=fitting_subject(say.subject),
            epoch=head.epoch,
            seq=head.seq + 1,
            prev=head.prev,
            causes=causes,
            traceparent=traceparent,
        )
        batch.outgoing.append(said.outgoing)
        batch.count(metrics.BUS_SAID, self._name, say.body.TOPIC)
        self._moved(head, seq=head.seq + 1, prev=said.hash, now_ms=head.now_ms)

    def heartbeat(self, batch: Batch) -> None:
        """Names the last number said, at most each ten minutes and only after something new."""
        head, now = self._head(), self.now()
        if not heartbeat_due(_ms(now), seq=head.seq, beat_seq=head.beat_seq, beat_ms=head.beat_ms):
            return
        producer, last = f"{self._name}/{self._number}", head.prev or ""
        beat = ProducerHeartbeat(producer=producer, epoch=head.epoch, seq=head.seq, event_hash=last)
        self.say(Say(beat), uuid7(), batch, now=now, model=None, causes=(), traceparent=None)
        self._state.put(SELF, replace(self._head(), beat_seq=head.seq + 1, beat_ms=_ms(now)))

    def renumber(self, arguments_json: str) -> None:
        """Goes on in a newer epoch, as an operator says (`{"epoch": N}`): somebody else has spoken under this lane's
        numbers, and the one that it has counts for nothing any more. An epoch that isn't newer changes nothing."""
        head = self._head()
        try:
            epoch = int(msgspec.json.decode(arguments_json)["epoch"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            epoch = 0
        if not head.epoch < epoch < 2**53:
            log.warning("not renumbered", service=self._name, lane=self._number, epoch=head.epoch, to=arguments_json)
            return
        self._state.put(SELF, replace(head, epoch=epoch, seq=0, prev=None, beat_seq=0))
        log.info("renumbered by an operator", service=self._name, lane=self._number, epoch=epoch, before=head.epoch)

    def state_records(self) -> list[Outgoing]:
        """The changed records of the open batch, signed and numbered; the head, which holds the numbers, comes last."""
        changes = [(key, value) for key, value in self._state.changes() if key != _HEAD_KEY]
        first = self._head().counter + 1
        self._state.put(SELF, replace(self._head(), counter=first + len(changes)))
        changes += [(key, value) for key, value in self._state.changes() if key == _HEAD_KEY]
        return [
            self._around.speech.state_record(self._number, key, value, first + i)
            for i, (key, value) in enumerate(changes)
        ]

    def _moved(self, head: Head, *, seq: int, prev: str | None, now_ms: int) -> None:
        # Written out, since this happens for every trigger and every event: `replace` looks the fields up each time.
        self._state.put(SELF, Head(head.epoch, seq, prev, now_ms, head.counter, head.beat_seq, head.beat_ms))

    def _head(self) -> Head:
        head = self._state.get(Head, SELF)
        if head is None:
            now_ms = _ms(self._around.clock())
            head = Head(epoch=now_ms, now_ms=now_ms, beat_ms=now_ms, counter=self._state.counter)
            self._state.put(SELF, head)
        return head


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
