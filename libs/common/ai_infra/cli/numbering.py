"""How far a service's numbering has come in each lane, and how far others have heard it: from their own state."""

from __future__ import annotations

from dataclasses import dataclass

from ai_infra.bus.kafka.topics import SERVICES
from ai_infra.bus.records import Head, Seen
from ai_infra.cli.positions import INDEXER
from ai_infra.cli.reading import LogReader
from ai_infra.cli.states import newest_states
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
    epochs = {lane: head.epoch for lane, head in newest_states(reader, verifier, lanes, service, Head)}
    heard: dict[int, tuple[int, str]] = {}
    for hearer in SERVICES:
        if hearer == INDEXER:
            continue  # it compares no epochs: all of them are in the log
        for lane, seen in newest_states(reader, verifier, lanes, hearer, Seen):
            heard[lane] = max(heard.get(lane, (0, "")), (seen.epoch, hearer))
    return [Numbering(lane, epochs.get(lane), *heard.get(lane, (0, ""))) for lane in range(lanes)]
