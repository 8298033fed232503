"""Causes and effects of an event, found in Kafka: what it follows from, what followed from it, as a tree.

Headers are read for all records of a lane, bodies and signatures only for those that are shown. A cause that Kafka has
forgotten is shown by its id. Nothing here judges: each event comes with the verdict on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import orjson

from ai_infra.bus.kafka.topics import BROADCAST_TOPICS, LANE_TOPICS
from ai_infra.cli.event_text import header
from ai_infra.cli.reading import LogReader, partitions_of
from ai_infra.events.event import Record

_DEEPEST: Final = 200  # levels; a loop of causes can't be built honestly, but a record can claim one


@dataclass(slots=True)
class Node:
    """An event in the tree. `record` is None where Kafka no longer has it."""

    id: str
    record: Record | None
    also_from: tuple[str, ...] = ()
    effects: list[Node] = field(default_factory=list)


class Lanes:
    """Records of lanes by event id, read as they are needed. The first record of an id counts; copies are left out."""

    def __init__(self, reader: LogReader, lanes: int) -> None:
        self._reader = reader
        self._lanes = lanes
        self._read: set[int] = set()
        self.records: dict[str, Record] = {}
        self._effects: dict[str, list[str]] = {}

    def read(self, lane: int) -> None:
        """Takes in a lane, and the broadcast topics with the first one."""
        if lane in self._read or not 0 <= lane < self._lanes:
            return
        partitions = partitions_of(LANE_TOPICS, [lane])
        if not self._read:
            partitions += [(topic, 0) for topic in BROADCAST_TOPICS]
        self._read.add(lane)
        for found in sorted(self._reader.whole(partitions), key=lambda r: (r.append_time_ms, r.topic, r.offset)):
            event_id = header(found, "ce_id")
            if event_id is None or event_id in self.records:
                continue
            self.records[event_id] = found
            for cause, _ in causes_of(found):
                self._effects.setdefault(cause, []).append(event_id)

    def find(self, event_id: str, likely: Iterable[int] = ()) -> Record | None:
        """The record of an event, wherever it is."""
        for lane in dict.fromkeys((*likely, *range(self._lanes))):
            if event_id in self.records:
                break
            self.read(lane)
        return self.records.get(event_id)

    def trace(self, event_id: str) -> Node:
        """The tree that the event is in, from its earliest cause on."""
        root = event_id
        passed = {root}
        while (found := self.records.get(root)) is not None:
            causes = causes_of(found)
            if not causes or causes[0][0] in passed:
                break
            root, lane = causes[0]
            passed.add(root)
            self.read(lane)
        return self._node(root, None, set(), 0)

    def _node(self, event_id: str, parent: str | None, shown: set[str], depth: int) -> Node:
        found = self.records.get(event_id)
        others = tuple(cause for cause, _ in (causes_of(found) if found else ()) if cause != parent)
        node = Node(event_id, found, others if parent is not None else ())
        shown.add(event_id)
        if depth < _DEEPEST:
            for effect in self._effects.get(event_id, ()):
                # An event hangs below its first cause: the trigger.
                if effect not in shown and causes_of(self.records[effect])[0][0] == event_id:
                    node.effects.append(self._node(effect, event_id, shown, depth + 1))
        return node


def causes_of(found: Record) -> list[tuple[str, int]]:
    """Causes (id, lane) that a record names; none where it can't be read."""
    text = header(found, "causes")
    if not text:
        return []
    try:
        return [(str(c["id"]), int(c["lane"])) for c in orjson.loads(text)]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return []


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    yield node
    for effect in node.effects:
        yield from walk(effect)
