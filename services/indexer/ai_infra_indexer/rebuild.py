"""The registry from the archive alone: no Kafka, no private key, nothing but the archive and the pinned root keys.

Entries are verified while they are read (events by their signatures, rows by the hash chain), and the tree that they
make must have the root of a checkpoint that the audit key signed, before a lane counts as rebuilt. A rebuild that was
interrupted goes on where it stood.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from ai_infra.events.exceptions import UnknownSchema
from ai_infra.events.generated import SignerChanged
from ai_infra.events.schemas import KNOWN, learn
from ai_infra.objects.reader import ObjectReader
from ai_infra.readmodel.connection import connect, where
from ai_infra.readmodel.migrations import migrate
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.tiles import TILE_WIDTH, bundle_width
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.versions import below_covers
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.finality import note_checkpoint
from ai_infra_indexer.projection.version import PROJECTION
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.reprojection import projections
from ai_infra_indexer.side_by_side import side_by_side, tell
from ai_infra_indexer.store import Connection, ensure_lane, read_head
from ai_infra_indexer.taking import in_chunks, load, read_keyrings

log = structlog.get_logger(__name__)

Progress = Callable[[int, int, int], None]
"""(lane, entries done, entries in all)"""

Reopen = Callable[[], ObjectReader]


class RebuildFailed(IndexerError):
    """The archive does not verify, or what is in the target is not from it."""

    code = "rebuild_failed"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A lane that was rebuilt and verified."""

    lane: int
    size: int
    checkpoint_size: int
    root: str
    loaded: int
    seconds: float


def rebuild(
    reader: ObjectReader,
    url: str,
    *,
    log_origin: str,
    lanes: int,
    roots: Roots,
    only: Sequence[int] | None = None,
    until: Mapping[int, int] | None = None,
    progress: Progress = lambda *_: None,
    reopen: Reopen | None = None,
    processes: int = 1,
) -> list[Rebuilt]:
    """Rebuild lanes of an archive into a database. `only`: these of its `lanes`; `until`: stop at these sizes instead
    of the checkpoints'. With `reopen`, which opens the archive anew and must be picklable, in so many processes.

    Raises RebuildFailed, which names the lane and the position. What was loaded by then stays, and is gone on with.
    """
    migrate(url)
    jobs = []
    for lane in range(lanes) if only is None else only:
        size, covered = _wanted(reader, log_origin, lane, lanes, until)
        progress(lane, 0, covered)
        jobs.append((lane, size, covered))
    if reopen is None or processes < 2 or len(jobs) < 2:
        learn_archived_schemas(reader)
        with connect(url, application="ai-infra rebuild", autocommit=True) as connection:
            return [
                _rebuild_lane(connection, reader, log_origin, lane, lanes, roots, size, progress, url)
                for lane, size, _ in jobs
            ]
    return _in_processes(jobs, reopen, url, log_origin, lanes, roots, progress, processes)


def _wanted(
    reader: ObjectReader, log_origin: str, lane: int, lanes: int, until: Mapping[int, int] | None
) -> tuple[int, int]:
    """Up to where a lane is rebuilt, and how far its checkpoint goes."""
    archived = ArchivedLane(below_covers(reader, log_origin, lane)[0], log_origin, lane)
    note = archived.note()
    if note is None:
        raise RebuildFailed(
            f"lane {lane}: {archived.uri} has no checkpoint; is this the archive, and of {lanes} lanes?"
        )
    covered = archived.claimed_size(note)
    size = covered if until is None else until[lane]
    if size > covered:
        raise RebuildFailed(f"lane {lane}: {size} entries are wanted, the archive's checkpoint covers {covered}")
    return size, covered


def _uncovered(reader: ObjectReader, log_origin: str, lane: int) -> ObjectReader:
    """Locked bytes are there whatever somebody put over them: they are read, and what covers them is told."""
    below, covers = below_covers(reader, log_origin, lane)
    for problem in covers:
        log.warning("covered in the bucket; what is below is read", lane=lane, code=problem.code, why=problem.detail)
    return below


def size_at(archived: ArchivedLane, time_ms: int) -> int:
    """How many entries the lane had at that time: those that the broker had appended by then, and what is before them
    in the log. Times of the log's own rows are looked at, which never go back: so a few bundles tell."""
    note = archived.note()
    covered = 0 if note is None else archived.claimed_size(note)

    def later(raw: bytes) -> bool:
        return decode(raw).link.ts_us > time_ms * 1000

    low, high = 0, -(-covered // TILE_WIDTH)
    while low < high:  # the first bundle that begins later
        middle = (low + high) // 2
        if later(archived.bundle(middle, bundle_width(middle, covered))[0]):
            high = middle
        else:
            low = middle + 1
    if low == 0:
        return 0
    last = archived.bundle(low - 1, bundle_width(low - 1, covered))
    return (low - 1) * TILE_WIDTH + bisect_left(last, True, key=later)


# -- side by side ------------------------------------------------------------------------------------------------------


def _in_processes(
    jobs: Sequence[tuple[int, int, int]],
    reopen: Reopen,
    url: str,
    log_origin: str,
    lanes: int,
    roots: Roots,
    progress: Progress,
    processes: int,
) -> list[Rebuilt]:
    """A lane a process at a time, the longest first. Lanes share nothing, the database's locks included."""
    longest_first = sorted(jobs, key=lambda job: -job[1])
    share = (reopen, url, log_origin, lanes, roots)
    work = [(lane, size, *share) for lane, size, _ in longest_first]
    done = side_by_side(_rebuild_one, work, processes=processes, told=progress)
    return sorted(done, key=lambda each: each.lane)


def _rebuild_one(lane: int, size: int, reopen: Reopen, url: str, log_origin: str, lanes: int, roots: Roots) -> Rebuilt:
    reader = reopen()
    learn_archived_schemas(reader)
    with connect(url, application="ai-infra rebuild", autocommit=True) as connection:
        return _rebuild_lane(connection, reader, log_origin, lane, lanes, roots, size, tell, url)


# -- one lane ----------------------------------------------------------------------------------------------------------


def _rebuild_lane(
    connection: Connection,
    reader: ObjectReader,
    log_origin: str,
    lane: int,
    lanes: int,
    roots: Roots,
    size: int,
    progress: Progress,
    url: str,
) -> Rebuilt:
    began = time.monotonic()
    reader = _uncovered(reader, log_origin, lane)
    archived = ArchivedLane(reader, log_origin, lane)
    ensure_lane(connection, lane, archived.origin)
    note = archived.note() or b""
    covered = archived.claimed_size(note)
    head = read_head(connection, lane)
    if head.size > size:
        raise RebuildFailed(
            f"lane {lane}: {where(url)} has {head.size} entries already, more than the {size} that are wanted; "
            "rebuild into an empty database"
        )
    replay = Replay(head, read_keyrings(connection, lane, roots), lanes, chain_signatures=False)
    edge, loaded = RightEdge(), 0
    for first, raws in in_chunks(archived.bundles(0, covered)):
        # The whole tree is hashed, also below what an earlier run has loaded and above what is wanted.
        edge = grow(edge, raws).edge
        new = raws[max(0, head.size - first) : max(0, size - first)]
        try:
            loaded += load(connection, replay, new)
            _take_keyrings(replay, raws[max(0, size - first) :])
        except BadEntry as error:
            raise RebuildFailed(
                f"lane {lane}, position {replay.head.size}: {error.message}", code=error.code
            ) from error
        progress(lane, min(first + len(raws), covered), covered)
    opened = archived.checkpoint(note, replay.keyrings.latest)
    if edge.root() != opened.checkpoint.root:
        raise RebuildFailed(
            f"lane {lane}: the entries lead to root {edge.root().hex()}, the checkpoint of size {covered} has "
            f"{opened.checkpoint.root.hex()}: the archive was changed (`ai-infra audit verify --archive` says where)"
        )
    _check_resumed(connection, archived, lane, head.size)
    _check_projection(connection, lane)
    if size == covered:
        note_checkpoint(connection, lane, opened)
    return Rebuilt(lane, size, covered, opened.checkpoint.root.hex(), loaded, time.monotonic() - began)


def _take_keyrings(replay: Replay, beyond: Sequence[bytes]) -> None:
    """The keyrings behind what is wanted: the checkpoint that covers all of it may be signed by a key of theirs."""
    for raw in beyond:
        entry = decode(raw)
        if entry.type == SignerChanged.TOPIC:
            replay.verifier.verify(entry.record())


def _check_resumed(connection: Connection, archived: ArchivedLane, lane: int, size: int) -> None:
    """What an earlier run had loaded ends in the archive's own entry, whose chain hash stands for all before it."""
    if size == 0:
        return
    row = connection.execute("SELECT entry FROM entries WHERE lane = %s AND position = %s", (lane, size - 1)).fetchone()
    end = min((size - 1) // TILE_WIDTH * TILE_WIDTH + TILE_WIDTH, size)
    [(_, raws)] = archived.bundles(size - 1, end)
    if row is None or bytes(row[0]) != raws[0]:
        raise RebuildFailed(f"lane {lane}: what was in the database before is not from this archive; use an empty one")


def _check_projection(connection: Connection, lane: int) -> None:
    """What an earlier run had loaded was loaded by a program that makes the same rows of it as this one."""
    [found] = [found for found in projections(connection) if found.lane == lane]
    if not found.current:
        raise RebuildFailed(
            f"lane {lane}: an earlier run, of another version, has loaded a part of it: rows of {found.told}, this "
            f"program's is {PROJECTION}; use an empty database"
        )


def learn_archived_schemas(reader: ObjectReader) -> None:
    """Schemas that were archived by a newer program than this one."""
    for path in reader.list("schemas/"):
        name = path.removeprefix("schemas/").removesuffix(".avsc")
        if name in KNOWN:
            continue
        text = reader.get(path).decode()
        try:
            learn(_topic_of(text), text)
        except UnknownSchema:
            continue  # not one that an event here could name; if one does, its entry is refused by position


def _topic_of(text: str) -> str:
    import json

    from ai_infra.events.generated import BODIES

    name = json.loads(text).get("name")
    return next((topic for topic, body in BODIES.items() if body.__name__ == name), "")
