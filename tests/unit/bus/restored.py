"""Restores a lane from events that were never on a broker, and reads the state back as the service will."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.unit.bus.lane_bench import PlainSession

from ai_infra.bus.decision import NO_POLICY
from ai_infra.bus.records import RUNTIME_RECORDS
from ai_infra.bus.restoring import RestoredLane, Restorer, restore_lane
from ai_infra.bus.service import Service
from ai_infra.bus.speech import Speech
from ai_infra.bus.state import LaneState
from ai_infra.bus.voice import Surroundings
from ai_infra.events.event import Event

LATER = datetime(2026, 2, 1, tzinfo=UTC)


@dataclass
class Restored:
    restored: RestoredLane
    state: LaneState


def restored(
    service: Service, restorer: Restorer, number: int, log: Sequence[Event[Any]], now: datetime = LATER
) -> Restored:
    """The lane as it is read back from the records that were written for it."""
    surroundings = Surroundings(
        service=service,
        speech=Speech(service.name, PlainSession()),  # type: ignore[arg-type]  # duck-typed on purpose
        clock=lambda: now,
        keyring_version=lambda: 1,
        policy=lambda: NO_POLICY,
    )
    found = restore_lane(restorer, surroundings, number, log)
    assert found is not None
    state = LaneState((*RUNTIME_RECORDS, *service.records))
    for record in found.records:
        if record.topic == f"{service.name}.state":
            state.load((record.key or b"").decode(), record.value)
    return Restored(found, state)
