"""The registry from the archive alone: no Kafka, no private key, nothing but the archive and the pinned root keys.

Entries are verified while they are read (events by their signatures, rows by the hash chain), and the tree that they
make must have the root of a checkpoint that the audit key signed, before a lane counts as rebuilt. A rebuild that was
interrupted goes on where it stood.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ai_infra.events.exceptions import UnknownSchema
from ai_infra.events.schemas import KNOWN, learn
from ai_infra.objects.reader import ObjectReader
from ai_infra.readmodel.connection import connect, where
from ai_infra.readmodel.migrations import migrate
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.tiles import TILE_WIDTH
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.finality import note_checkpoint
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.store import Connection, ensure_lane, read_head
from ai_infra_indexer.taking import load, read_keyrings

Progress = Callable[[int, int, int], None]
"""(lane, entries done, entries in all)"""


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
    until: Mapping[int, int] | None = None,
    progress: Progress = lambda *_: None,
) -> list[Rebuilt]:
    """Rebuild every lane of an archive into a database. `until`: stop at these sizes instead of the checkpoints'.

    Raises RebuildFailed, which names the lane and the position.
    """
    migrate(url)
    _learn_schemas(reader)
    done: list[Rebuilt] = []
    with connect(url, application="ai-infra rebuild", autocommit=True) as connection:
        for lane in range(lanes):
            wanted = until[lane] if until is not None else None
            done.append(_rebuild_lane(connection, reader, log_origin, lane, lanes, roots, wanted, progress, url))
    return done


def _rebuild_lane(
    connection: Connection,
    reader: ObjectReader,
    log_origin: str,
    lane: int,
    lanes: int,
    roots: Roots,
    wanted: int | None,
    progress: Progress,
    url: str,
) -> Rebuilt:
    began = time.monotonic()
    archived = ArchivedLane(reader, log_origin, lane)
    ensure_lane(connection, lane, archived.origin)
    note = archived.note()
    if note is None:
        raise RebuildFailed(
            f"lane {lane}: {archived.uri} has no checkpoint; is this the archive, and of {lanes} lanes?"
        )
    covered = archived.claimed_size(note)
    size = covered if wanted is None else wanted
    head = read_head(connection, lane)
    if size > covered:
        raise RebuildFailed(f"lane {lane}: {size} entries are wanted, the archive's checkpoint covers {covered}")
    if head.size > size:
        raise RebuildFailed(
            f"lane {lane}: {where(url)} has {head.size} entries already, more than the {size} that are wanted; "
            "rebuild into an empty database"
        )
    replay = Replay(head, read_keyrings(connection, lane, roots), lanes, chain_signatures=False)
    edge, loaded = RightEdge(), 0
    for first, raws in archived.bundles(0, covered):
        # The whole tree is hashed, also below what an earlier run has loaded and above what is wanted.
        edge = grow(edge, raws).edge
        new = raws[max(0, head.size - first) : max(0, size - first)]
        try:
            loaded += load(connection, replay, new)
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
    if size == covered:
        note_checkpoint(connection, lane, opened)
    return Rebuilt(lane, size, covered, opened.checkpoint.root.hex(), loaded, time.monotonic() - began)


def _check_resumed(connection: Connection, archived: ArchivedLane, lane: int, size: int) -> None:
    """What an earlier run had loaded ends in the archive's own entry, whose chain hash stands for all before it."""
    if size == 0:
        return
    row = connection.execute("SELECT entry FROM entries WHERE lane = %s AND position = %s", (lane, size - 1)).fetchone()
    end = min((size - 1) // TILE_WIDTH * TILE_WIDTH + TILE_WIDTH, size)
    [(_, raws)] = archived.bundles(size - 1, end)
    if row is None or bytes(row[0]) != raws[0]:
        raise RebuildFailed(f"lane {lane}: what was in the database before is not from this archive; use an empty one")


def _learn_schemas(reader: ObjectReader) -> None:
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
