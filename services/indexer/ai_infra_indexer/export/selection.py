"""Which entries an export shows. Pure.

A selection is by model, by append time, or both. What is broadcast (keyrings, policies) always belongs to it: the
validity of every other entry is judged by the keyrings that stand before it in its lane.
"""

from __future__ import annotations

from dataclasses import dataclass

from ai_infra.errors import ConfigurationError
from ai_infra.events.keys import BROADCAST_TOPICS
from ai_infra.events.lanes import check_model, lane_of
from ai_infra_indexer.entry import Entry


@dataclass(frozen=True, slots=True)
class Selection:
    """`since_ms` is included, `until_ms` is not: milliseconds since the epoch, of the append time."""

    model: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    lane: int | None = None

    @property
    def everything(self) -> bool:
        """Whether every entry of its lanes is shown: then each lane is a complete C2SP log."""
        return self.model is None and self.since_ms is None and self.until_ms is None

    def lanes(self, total: int) -> list[int]:
        """The lanes that have something of it. Raises ConfigurationError, WrongKey."""
        if self.lane is not None and not 0 <= self.lane < total:
            raise ConfigurationError(f"there are lanes 0 to {total - 1}; got {self.lane}")
        if self.since_ms is not None and self.until_ms is not None and self.since_ms >= self.until_ms:
            raise ConfigurationError("--from must be before --to, which is not included any more")
        if self.model is None:
            return list(range(total)) if self.lane is None else [self.lane]
        own = lane_of(check_model(self.model), total)
        if self.lane not in (None, own):
            raise ConfigurationError(f"everything about {self.model} is in lane {own}, not in lane {self.lane}")
        return [own]

    def takes(self, entry: Entry) -> bool:
        """Whether the entry is shown."""
        if entry.type in BROADCAST_TOPICS:
            return True
        return (
            (self.model is None or entry.key == self.model)
            and (self.since_ms is None or entry.append_time_ms >= self.since_ms)
            and (self.until_ms is None or entry.append_time_ms < self.until_ms)
        )

    def document(self) -> dict[str, str | int]:
        """As the statement has it: only what narrows entries; which lanes there are, the index says."""
        said = {"model": self.model, "from_ms": self.since_ms, "to_ms": self.until_ms}
        return {name: value for name, value in said.items() if value is not None}
