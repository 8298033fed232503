"""How far a service's numbering has come in each lane, and how far others have heard it: from their own state topics.

State is believed only when its service has signed it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ai_infra.bus.kafka.topics import SERVICES
from ai_infra.bus.records import SELF, Head, Seen
from ai_infra.bus.state import StateError, decode_record, record_name
from ai_infra.bus.state_records import read_state_record
from ai_infra.cli.positions import INDEXER
from ai_infra.cli.reading import LogReader, partitions_of
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra.trust.verify import Verifier


@dataclass(frozen=True, slots=True)
class Numbering:
    """`epoch`: that of the service's next event in the lane; None where it has said nothing yet. `heard`: the newest
    epoch that anybody has heard under its name, and `by` whom."""

    lane: int
    epoch: int | None
    heard: int
    by: str

    @property
    def unheard(self) -> bool:
        """Whether what the service says now is old news to somebody, and so goes unheard."""
        return self.epoch is not None and self.heard > self.epoch


def numbering(reader: LogReader, verifier: Verifier, lanes: int, service: str) -> list[Numbering]:
    """The numbering of a service in every lane."""
    epochs: dict[int, int] = {}
    for lane, head in _states(reader, verifier, lanes, service, Head, lambda key: key == f"{record_name(Head)}/{SELF}"):
        epochs[lane] = head.epoch
    heard: dict[int, tuple[int, str]] = {}
    for hearer in SERVICES:
        if hearer == INDEXER:
            continue  # it compares no epochs: all of them are in the log
        for lane, seen in _states(
            reader, verifier, lanes, hearer, Seen, lambda key: key.startswith(f"{record_name(Seen)}/")
        ):
            heard[lane] = max(heard.get(lane, (0, "")), (seen.epoch, hearer))
    return [Numbering(lane, epochs.get(lane), *heard.get(lane, (0, ""))) for lane in range(lanes)]


def _states(
    reader: LogReader, verifier: Verifier, lanes: int, service: str, kind: Any, wanted: Any
) -> Iterator[tuple[int, Any]]:
    """The newest proven record of each wanted key, by lane."""
    last: dict[tuple[int, bytes], Record] = {}
    for record in reader.whole(partitions_of([f"{service}.state"], range(lanes))):
        if record.key is not None and wanted(record.key.decode("utf-8", "replace")):
            last[record.partition, record.key] = record
    for (lane, key), record in last.items():
        if record.value is None:
            continue
        try:
            read_state_record(record, verifier, service=service)
            yield lane, decode_record(kind, key.decode(), record.value)
        except (StateError, AiInfraError):
            continue
