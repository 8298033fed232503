"""What subscribers were told, against the archive: the messages of `audit-events`, and the heads on `audit.checkpoint`.

A message is not signed as such, and whoever may write to the topic can add one; the row that it carries is in the
archive, byte for byte, or it is not the log's. Kafka forgets: what is compared is what the topics still hold. They are
read before the archive, so that what was said is covered by what is read then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

from ai_infra.events.event import Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import AuditCheckpoint
from ai_infra.events.parse import read
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.tree import Frontier, leaf_hash
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer import kernel
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.report import LaneReport, Problem
from ai_infra_indexer.sequence import Line

SOURCE: Final = "topic"


@dataclass(slots=True)
class Told:
    """What the topics hold of a lane. `published`: how far the lane is known to have been told; None: not known."""

    lane: int
    published: int | None = None
    digests: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    """By position: offset and digest of its first message."""
    heads: list[tuple[int, AuditCheckpoint]] = field(default_factory=list)
    """Offsets of `audit.checkpoint`, and what is said there."""
    problems: list[Problem] = field(default_factory=list)

    def take_event(self, record: Record) -> None:
        """A message of `audit-events`, in the order of its partition."""
        try:
            position = orjson.loads(record.value or b"")["metadata"]["position"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            position = None
        if not isinstance(position, int) or position < 0:
            self.add(None, "unreadable_message", f"the message at offset {record.offset} is no audit event")
            return
        digest = _digest(record.key or b"", record.value or b"")
        if position in self.digests:
            first = self.digests[position][0]
            self.add(position, "doubled_message", f"it was said at offset {first}, and again at {record.offset}")
        elif self.digests and position < next(reversed(self.digests)):
            self.add(position, "disordered_message", f"it comes at offset {record.offset}, after later ones")
            self.digests[position] = (record.offset, digest)
            self.digests = dict(sorted(self.digests.items()))
        else:
            self.digests[position] = (record.offset, digest)

    def take_head(self, record: Record, lanes: int) -> None:
        """A message of `audit.checkpoint`."""
        try:
            body = read(record, lanes).decode()
        except EventError as error:
            self.add(None, "foreign_checkpoint", f"offset {record.offset} of audit.checkpoint can't be read: {error}")
            return
        if isinstance(body, AuditCheckpoint):
            self.heads.append((record.offset, body))

    def add(self, position: int | None, code: str, detail: str) -> None:
        self.problems.append(Problem(self.lane, SOURCE, position, code, detail))


class Comparison:
    """One reading of the archive, against what was told."""

    def __init__(self, told: Told, archived: ArchivedLane) -> None:
        self._told = told
        self._archived = archived
        self._problems = list(told.problems)
        self._frontier = Frontier()
        claimed = {size for _, body in told.heads if (size := _claimed(archived, body.note.encode()))}
        self._sizes = sorted(claimed, reverse=True)  # still to come, the smallest last
        self._roots: dict[int, bytes] = {}
        self._last = 0  # the size of the largest one that was said so far

    def keep(self, lines: Sequence[Line]) -> None:
        """The verified entries of a bundle."""
        for line in lines:
            said = self._told.digests.get(line.position)
            if said is not None and said[1] != self._expected(line):
                detail = f"the message at offset {said[0]} is not the archived row, whose hash is {line.link.hash}"
                self._add(line.position, "changed_message", detail)
        if not self._sizes or not lines:
            return
        if (lines[0].position, lines[-1].position + 1) != (self._frontier.size, self._frontier.size + len(lines)):
            self._sizes.clear()  # entries are missing or bad, which the audit names: no root can be made beyond them
            return
        leaves = [leaf_hash(line.raw) for line in lines]
        end = self._frontier.size + len(leaves)
        while self._sizes and self._sizes[-1] <= end:
            size = self._sizes.pop()
            self._grow(leaves, size - self._frontier.size)
            self._roots[size] = self._frontier.root()
        self._grow(leaves, len(leaves))

    def end(self, report: LaneReport) -> list[Problem]:
        """All that was found, once the archive was read."""
        self._missing(report)
        if (keyring := report.keyring) is not None:
            for offset, body in self._told.heads:
                self._head(offset, body, keyring, report.checkpoint_size or 0)
        return self._problems

    def _grow(self, leaves: list[bytes], count: int) -> None:
        self._frontier = self._frontier.extend(leaves[:count])
        del leaves[:count]

    def _expected(self, line: Line) -> bytes:
        metadata = kernel.metadata(self._told.lane, line.position, self._archived.origin, line.event.type)
        value = kernel.audit_event(line.payload, line.link, event_type=line.event.type, metadata=metadata)
        return _digest(line.link.id.encode(), value)

    def _missing(self, report: LaneReport) -> None:
        told, expected = self._told, next(iter(self._told.digests), 0)
        for position in told.digests:
            if position > expected:
                self._add(expected, "missing_message", f"positions {expected} to {position - 1} were not said")
            expected = position + 1
            if position >= report.entries:
                detail = f"offset {told.digests[position][0]} tells of an entry that the archive does not have"
                self._add(position, "message_of_no_entry", detail)
        if told.digests and told.published is not None and expected < told.published:
            detail = f"the topic ends before position {expected}; {told.published} entries had been said on it"
            self._add(expected, "missing_message", detail)

    def _head(self, offset: int, body: AuditCheckpoint, keyring: Keyring, shown: int) -> None:
        try:
            head = self._archived.checkpoint(body.note.encode(), keyring).checkpoint
        except (TlogError, UnicodeDecodeError) as error:
            detail = f"the checkpoint at offset {offset} of audit.checkpoint is not the log's: {error}"
            self._add(None, "foreign_checkpoint", detail)
            return
        said = (body.log_lane, body.origin, body.size, body.root)
        if said != (self._told.lane, head.origin, head.size, head.text.decode().splitlines()[2]):
            detail = f"what is said of the checkpoint at offset {offset} of audit.checkpoint is not what it says itself"
            self._add(None, "foreign_checkpoint", detail)
        if head.size < self._last:
            detail = f"a checkpoint of {head.size} entries was said (offset {offset}) after one of {self._last}"
            self._add(None, "disordered_checkpoint", detail)
        self._last = max(self._last, head.size)
        if head.size > shown:
            detail = f"a checkpoint of {head.size} entries was published (offset {offset}), the archive shows {shown}"
            self._add(None, "older_than_topic", detail)
        elif self._roots.get(head.size, head.root) != head.root:
            detail = (
                f"the published checkpoint of size {head.size} (offset {offset}) has root {head.root.hex()}, the "
                f"archive's entries lead to {self._roots[head.size].hex()}"
            )
            self._add(None, "fork_from_topic", detail)

    def _add(self, position: int | None, code: str, detail: str) -> None:
        self._problems.append(Problem(self._told.lane, SOURCE, position, code, detail))


def told_of(lane: int, lanes: int, events: Iterable[Record], heads: Iterable[Record], published: int | None) -> Told:
    """What the records of a lane's partitions say, each in its order."""
    told = Told(lane, published)
    for record in events:
        told.take_event(record)
    for record in heads:
        told.take_head(record, lanes)
    return told


def _claimed(archived: ArchivedLane, note: bytes) -> int | None:
    try:
        return archived.claimed_size(note)
    except (TlogError, UnicodeDecodeError):
        return None


def _digest(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(b"%d %b%b" % (len(key), key, value)).digest()[:16]
