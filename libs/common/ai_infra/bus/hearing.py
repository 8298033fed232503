"""What a lane has heard already: so that an event is decided once, however often it was delivered.

Counted producers are recognised by (producer, epoch, seq) on each topic, uncounted ones by the event's id. An event
that was refused may be heard once more, when an operator redrives it; one that was accepted never.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from ai_infra.bus.records import Seen, SeenId
from ai_infra.bus.state import LaneState
from ai_infra.events.event import Event

FORGET_IDS_AFTER: Final = timedelta(days=31)  # the topics keep inputs 30 days: a later copy cannot come from them
FORGET_EVERY: Final = timedelta(hours=1)
FORGET_AT_ONCE: Final = 5_000  # ids in one transaction: after a long rest there may be more than one could hold


class Hearing:
    """Reads and writes the `Seen` and `SeenId` records of one lane's state."""

    def __init__(self, state: LaneState, service: str) -> None:
        self._state = state
        self._service = service
        self._forget_at: datetime | None = None

    def heard_before(self, event: Event[Any], *, redriven: bool) -> str | None:
        """Why this event must not be decided again; None where it may be."""
        by_id = self._state.get(SeenId, event.id)
        if redriven:
            if by_id is None:
                return None if event.producer is None else self._not_awaited(event)
            return None if by_id.failed else self._not_awaited(event)
        if event.seq is None or event.epoch is None:
            if by_id is None:
                return None
            twin = "" if by_id.hash == event.hash else " with another content; an id is never used again"
            return f"event {event.id} was heard before{twin}"
        seen = self._state.get(Seen, f"{event.type}/{event.producer}")
        if seen is None or (event.epoch, event.seq) > (seen.epoch, seen.seq):
            return None
        return (
            f"{event.producer} epoch {event.epoch} seq {event.seq} is not new on {event.type}: "
            f"epoch {seen.epoch} seq {seen.seq} was heard before it"
        )

    def remember(self, event: Event[Any], *, failed: bool) -> None:
        """Notes that an event was accepted, or that it was refused (`failed`) and may be redriven."""
        if event.seq is not None and event.epoch is not None:
            key = f"{event.type}/{event.producer}"
            seen = self._state.get(Seen, key)
            if seen is None or (event.epoch, event.seq) > (seen.epoch, seen.seq):
                self._state.put(key, Seen(event.epoch, event.seq))
            if not failed:
                self._state.delete(SeenId, event.id)  # where it had failed, it has now been accepted
                return
        self._state.put(event.id, SeenId(event.hash, event.record.append_time_ms, failed=failed))

    def failed(self, event_id: str, event_hash: str, append_time_ms: int) -> None:
        """Notes an event of a recognised signer that could not be verified, unless one of that id was accepted."""
        known = self._state.get(SeenId, event_id)
        if known is None or known.failed:
            self._state.put(event_id, SeenId(event_hash, append_time_ms, failed=True))

    def forget_old(self, now: datetime) -> None:
        """Forgets ids that the topics themselves have forgotten, the oldest first; looks once an hour, or at once
        again where there are more than one transaction should hold."""
        if self._forget_at is not None and now < self._forget_at:
            return
        oldest = int((now - FORGET_IDS_AFTER).timestamp() * 1000)
        old = [event_id for event_id, seen in self._state.all(SeenId) if seen.at_ms < oldest]
        for event_id in old[:FORGET_AT_ONCE]:
            self._state.delete(SeenId, event_id)
        self._forget_at = now + FORGET_EVERY if len(old) <= FORGET_AT_ONCE else now

    def _not_awaited(self, event: Event[Any]) -> str:
        return f"event {event.id} was redriven to {self._service}, which has not refused it or has accepted it since"
