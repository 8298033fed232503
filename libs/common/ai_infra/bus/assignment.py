"""Which lanes a replica holds: a lane counts only while partition p of all inputs is assigned to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class Assignment:
    """The set of (topic, partition) that the group has given to this replica, seen as lanes."""

    def __init__(self, inputs: Iterable[str]) -> None:
        self.inputs = tuple(sorted(set(inputs)))
        # Replaced, never changed: health checks read it on threads of their own.
        self._assigned: frozenset[tuple[str, int]] = frozenset()

    def add(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._assigned = self._assigned.union(partitions)

    def remove(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._assigned = self._assigned.difference(partitions)

    def whole_lanes(self) -> set[int]:
        """Lanes of which every input is here."""
        return {p for p in self._lanes() if all((t, p) in self._assigned for t in self.inputs)}

    def partial_lanes(self) -> dict[int, list[str]]:
        """Lanes of which only some inputs are here, with the inputs that are missing."""
        whole = self.whole_lanes()
        return {
            p: [t for t in self.inputs if (t, p) not in self._assigned] for p in sorted(self._lanes()) if p not in whole
        }

    def partitions_of(self, lane: int) -> list[tuple[str, int]]:
        return [(t, lane) for t in self.inputs]

    def _lanes(self) -> set[int]:
        return {p for _, p in self._assigned}
