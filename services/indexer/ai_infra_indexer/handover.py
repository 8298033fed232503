"""What a lane has just put into Postgres, kept for those who archive and publish it, so that nobody reads it back.

Bounded: whoever comes late finds a gap and reads Postgres, which has everything. Entries come here only after the
transaction that sequenced them was committed, one after the other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from ai_infra.events.values import value
from ai_infra_indexer import kernel
from ai_infra_indexer.sequence import Line

MAX_BYTES: Final = 64 << 20  # of all lanes of a process together: some seconds at full speed


@value()
class Handed:
    """One entry: its bytes, its place in the chain, and its message on `audit-events`."""

    position: int
    event_id: str
    prev_hash: str
    """Empty for the first entry."""
    hash: str
    raw: bytes
    message: bytes


class Handover:
    """Entries of one lane, in order and without a gap. The loop's thread offers, finality's thread takes."""

    def __init__(self, lane: int, origin: str, max_bytes: int) -> None:
        self._lane = lane
        self._origin = origin
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: deque[Handed] = deque()
        self._guard = threading.Lock()

    def offer(self, lines: Iterable[Line]) -> None:
        """Lines that follow each other, and are committed. What does not fit is left out, and all that follows it
        until finality has caught up."""
        with self._guard:
            for line in lines:
                if self._entries and self._entries[-1].position + 1 != line.position:
                    return
                if self._bytes >= self._max_bytes:
                    return
                handed = self._handed(line)
                self._entries.append(handed)
                self._bytes += len(handed.raw) + len(handed.message)

    def take(self, position: int, limit: int) -> list[Handed]:
        """Entries from this position on; none where the next one has to be read."""
        with self._guard:
            skip = position - self._entries[0].position if self._entries else 0
            if skip < 0:
                return []
            return list(islice(self._entries, skip, skip + limit))

    def forget(self, before: int) -> None:
        """What is published is needed no more."""
        with self._guard:
            while self._entries and self._entries[0].position < before:
                gone = self._entries.popleft()
                self._bytes -= len(gone.raw) + len(gone.message)

    def _handed(self, line: Line) -> Handed:
        event, link = line.event, line.link
        metadata = kernel.metadata(self._lane, line.position, self._origin, event.type)
        message = kernel.audit_event(line.payload, link, event_type=event.type, metadata=metadata)
        return Handed(line.position, event.id, link.prev_hash or "", link.hash, line.raw, message)
