"""Which lanes stand still because of a run of failures, read from the services' own state topics.

State is believed only when its service has signed it; one that isn't is left out here, and stops that service itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ai_infra.bus.kafka.topics import SERVICES
from ai_infra.bus.records import SELF, Halt
from ai_infra.bus.state import StateError, decode_record, record_name
from ai_infra.bus.state_records import read_state_record
from ai_infra.cli.positions import INDEXER
from ai_infra.cli.reading import LogReader, partitions_of
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra.trust.verify import Verifier

_KEY = f"{record_name(Halt)}/{SELF}".encode()


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
    last: dict[tuple[str, int], Record] = {}
    for service in services:
        if service == INDEXER:
            continue
        for record in reader.whole(partitions_of([f"{service}.state"], range(lanes))):
            if record.key == _KEY:
                last[service, record.partition] = record
    found = []
    for (service, lane), record in sorted(last.items()):
        halt = _halt(record, verifier, service)
        if halt is not None:
            found.append(HaltedLane(service, lane, halt.since, halt.code, halt.reason, halt.failures))
    return found


def _halt(record: Record, verifier: Verifier, service: str) -> Halt | None:
    if record.value is None:
        return None
    try:
        read_state_record(record, verifier, service=service)
        halt = decode_record(Halt, _KEY.decode(), record.value)
    except (StateError, AiInfraError):
        return None
    return halt if isinstance(halt, Halt) else None
