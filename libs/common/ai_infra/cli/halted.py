"""Which lanes stand still because of a run of failures, by the services' own state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ai_infra.bus.kafka.topics import SERVICES
from ai_infra.bus.records import Halt
from ai_infra.cli.positions import INDEXER
from ai_infra.cli.reading import LogReader
from ai_infra.cli.states import newest_states
from ai_infra.trust.verify import Verifier


@dataclass(frozen=True, slots=True)
class HaltedLane:
    """A lane of a service that waits for an operator."""

    service: str
    lane: int
    since: datetime
    code: str
    reason: str
    failures: int


def halted_lanes(
    reader: LogReader, verifier: Verifier, lanes: int, services: Sequence[str] = SERVICES
) -> list[HaltedLane]:
    """Every halted lane of these services. The indexer has none: only what it writes to can stop it."""
    return [
        HaltedLane(service, lane, halt.since, halt.code, halt.reason, halt.failures)
        for service in sorted(services)
        if service != INDEXER
        for lane, halt in newest_states(reader, verifier, lanes, service, Halt)
    ]
