"""What is done to the messages that subscribers hear is found against the archive, named, and placed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.log_folder import LANES, LONG, ORIGIN, LogFolder

from ai_infra.events.compose import compose, uuid7
from ai_infra.events.event import Record
from ai_infra.events.generated import AuditCheckpoint
from ai_infra.events.lanes import lane_key
from ai_infra.objects.reader import FolderReader
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer import kernel
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import LaneReport, audit_archive
from ai_infra_indexer.audit.topic import Comparison, told_of
from ai_infra_indexer.sequence import Line


@dataclass
class Topics:
    """The messages about lane 0, as the indexer says them."""

    log: LogFolder
    bundles: list[Sequence[Line]]
    report: LaneReport
    events: list[tuple[bytes, bytes]]
    heads: list[Record] = field(default_factory=list)
    published: int | None = LONG

    def record(self, offset: int, key: bytes, value: bytes) -> Record:
        return Record("audit-events", 0, offset, 0, key, value, ())

    def head(self, size: int, **changes: Any) -> None:
        """A published checkpoint."""
        root = changes.pop("root", None) or self.root(size)
        self.say(self.log.note(0, size, root, **changes), size, root)

    def root(self, size: int) -> bytes:
        edge = RightEdge()
        for at in range(0, size, 256):
            edge = grow(edge, self.log.raws[0][at : min(size, at + 256)]).edge
        return edge.root()

    def say(self, note: bytes, size: int, root: bytes = b"") -> None:
        world = self.log.worlds[0]
        told = base64.b64encode(root).decode()
        body = AuditCheckpoint(log_lane=0, origin=f"{ORIGIN}/lanes/0", size=size, root=told, note=note.decode())
        session = world._session("indexer")
        signed = compose(
            body,
            key=lane_key(0),
            lane=0,
            id=uuid7(),
            time=world.clock,
            source="/test",
            subject="x",
            signer=session.signer_id,
            keyring=1,
            delegation=session.delegation,
            sign=session.sign,
        )
        self.heads.append(world.record(signed))

    def edit(self, position: int, change: Callable[[dict[str, Any]], Any]) -> None:
        """One message, changed and written again as it was written."""
        key, value = self.events[position]
        said = json.loads(value)
        change(said)
        self.events[position] = (key, json.dumps(said, separators=(",", ":"), sort_keys=True).encode())

    def problems(self, folder: Path | None = None) -> set[tuple[int | None, str]]:
        records = [self.record(offset, key, value) for offset, (key, value) in enumerate(self.events)]
        told = told_of(0, LANES, records, self.heads, self.published)
        archived = ArchivedLane(FolderReader(folder or self.log.root), ORIGIN, 0)
        comparison, report = Comparison(told, archived), self.report
        if folder is not None:
            report = audit_archive(archived, self.log.worlds[0].roots, LANES, keep=comparison.keep)
        else:  # as it was read once: what is told does not change it
            for lines in self.bundles:
                comparison.keep(lines)
        return {(problem.position, problem.code) for problem in comparison.end(report)}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("archive"), make_world)


@pytest.fixture(scope="module")
def read(log: LogFolder) -> tuple[list[Sequence[Line]], LaneReport]:
    bundles: list[Sequence[Line]] = []
    archived = ArchivedLane(FolderReader(log.root), ORIGIN, 0)
    report = audit_archive(archived, log.worlds[0].roots, LANES, keep=bundles.append)
    assert report.ok
    return bundles, report


@pytest.fixture(scope="module")
def messages(read: tuple[list[Sequence[Line]], LaneReport]) -> list[tuple[bytes, bytes]]:

    def message(line: Line) -> tuple[bytes, bytes]:
        metadata = kernel.metadata(0, line.position, f"{ORIGIN}/lanes/0", line.event.type)
        value = kernel.audit_event(line.payload, line.link, event_type=line.event.type, metadata=metadata)
        return line.link.id.encode(), value

    return [message(line) for lines in read[0] for line in lines]


@pytest.fixture
def topics(
    log: LogFolder, read: tuple[list[Sequence[Line]], LaneReport], messages: list[tuple[bytes, bytes]]
) -> Topics:
    made = Topics(log, *read, list(messages))
    for size in (10, 256, LONG):
        made.head(size)
    return made


def test_what_the_indexer_says_is_what_it_archives(topics: Topics) -> None:
    assert topics.problems() == set()


def test_what_kafka_has_forgotten_is_not_missing(topics: Topics) -> None:
    del topics.events[:100]
    del topics.heads[0]
    assert topics.problems() == set()
    topics.events.clear()
    topics.heads.clear()
    assert topics.problems() == set()


def test_what_is_not_said_yet_is_not_missing(topics: Topics) -> None:
    del topics.events[280:]
    topics.published = 280
    assert topics.problems() == set()


def swap(topics: Topics) -> None:
    topics.events[20], topics.events[21] = topics.events[21], topics.events[20]


def own_key(topics: Topics, position: int) -> None:
    """A row changed, hashed anew, and signed by somebody else under the chain key's name."""

    def change(said: dict[str, Any]) -> None:
        import base64

        said["payload"]["actor"] = "somebody else"
        payload = json.dumps(said["payload"], separators=(",", ":"), sort_keys=True).encode()
        digest = kernel.chain_hash(payload, said["prevHash"])
        said["hash"] = digest.hex()
        said["signature"] = base64.b64encode(LocalSigner.fresh("chain-1").sign(digest)).decode()

    topics.edit(position, change)


MANIPULATIONS: dict[str, tuple[Callable[[Topics], Any], int | None, str]] = {
    "a bit of a payload": (lambda t: t.edit(7, lambda m: m["payload"].update(actor="x")), 7, "changed_message"),
    "a signature": (lambda t: t.edit(7, lambda m: m.update(signature="AAAA")), 7, "changed_message"),
    "a hash": (lambda t: t.edit(7, lambda m: m.update(hash="0" * 64)), 7, "changed_message"),
    "a time": (lambda t: t.edit(7, lambda m: m.update(ts="2020-01-01T00:00:00.000000Z")), 7, "changed_message"),
    "a field more": (lambda t: t.edit(7, lambda m: m.update(more=1)), 7, "changed_message"),
    "another log's name": (lambda t: t.edit(7, lambda m: m["metadata"].update(origin="x")), 7, "changed_message"),
    "white space": (lambda t: t.events.__setitem__(7, (t.events[7][0], t.events[7][1] + b" ")), 7, "changed_message"),
    "another key": (lambda t: t.events.__setitem__(7, (b"another", t.events[7][1])), 7, "changed_message"),
    "signed anew by a stranger": (lambda t: own_key(t, 7), 7, "changed_message"),
    "two messages swapped": (swap, 20, "disordered_message"),
    "a message dropped": (lambda t: t.events.pop(30), 30, "missing_message"),
    "the end cut off": (lambda t: t.events.__delitem__(slice(290, None)), 290, "missing_message"),
    "a message replayed": (lambda t: t.events.append(t.events[40]), 40, "doubled_message"),
    "another message under a position": (
        lambda t: t.events.append((t.events[41][0], t.events[40][1])),
        40,
        "doubled_message",
    ),
    "a message of the future": (
        lambda t: (
            t.events.append(t.events[50]),
            t.edit(LONG, lambda m: m["metadata"].update(position=LONG)),
        ),
        LONG,
        "message_of_no_entry",
    ),
    "no message at all": (lambda t: t.events.append((b"", b"\xff")), None, "unreadable_message"),
    "a message without its place": (
        lambda t: t.events.append((b"x", b'{"metadata":{}}')),
        None,
        "unreadable_message",
    ),
    "a checkpoint by a stranger": (
        lambda t: t.head(LONG, audit=LocalSigner.fresh("audit-1")),
        None,
        "foreign_checkpoint",
    ),
    "a checkpoint by a key of another use": (
        lambda t: t.head(LONG, audit=t.log.worlds[0].signers["manifest-1"]),
        None,
        "foreign_checkpoint",
    ),
    "a checkpoint of another log": (lambda t: t.head(LONG, origin="elsewhere.org/log"), None, "foreign_checkpoint"),
    "a checkpoint that is none": (lambda t: t.say(b"junk", 1), None, "foreign_checkpoint"),
    "a message that is no checkpoint's event": (
        lambda t: t.heads.append(Record("audit.checkpoint", 0, 9, 0, b"x", b"junk", ())),
        None,
        "foreign_checkpoint",
    ),
    "an older checkpoint, said again": (lambda t: t.head(256), None, "disordered_checkpoint"),
    "a checkpoint that is told as a larger one": (
        lambda t: t.say(t.log.note(0, LONG, t.root(LONG)), 999_999, t.root(LONG)),
        None,
        "foreign_checkpoint",
    ),
    "a fork": (lambda t: t.head(280, root=bytes(32)), None, "fork_from_topic"),
    "a checkpoint of the future": (lambda t: t.head(LONG + 5, root=bytes(32)), None, "older_than_topic"),
}


@pytest.mark.parametrize("what", MANIPULATIONS)
def test_a_manipulated_message_is_found_and_named(topics: Topics, what: str) -> None:
    manipulate, position, code = MANIPULATIONS[what]
    manipulate(topics)
    assert (position, code) in topics.problems()


def test_an_archive_that_is_shown_older_than_what_was_published_is_found(
    topics: Topics, log: LogFolder, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "older"
    shutil.copytree(log.root, folder)
    (folder / "lanes/0/checkpoint").write_bytes((log.root / f"lanes/0/checkpoints/{256:020d}").read_bytes())
    assert topics.problems(folder) >= {(256, "message_of_no_entry"), (None, "older_than_topic")}
