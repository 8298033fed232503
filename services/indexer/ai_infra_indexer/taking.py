"""Taking a lane: from what is durable to a lane that can be worked, whoever had it before and however it ended.

History is in three places. The archived checkpoint is what was promised; Postgres may be behind it (a restored backup)
and is filled up from the archive first; the archive may hold entries that no checkpoint covers yet (their writer died
in between), and those are taken up too, so that a position that was ever archived never gets another content. Only then
does reading go on, from Postgres' own offsets: older ones are safe, since nothing is sequenced twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from ai_infra.objects.exceptions import NotFound
from ai_infra.tlog.checkpoint import OpenedCheckpoint
from ai_infra.tlog.exceptions import BadTile
from ai_infra.tlog.growth import RightEdge
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.appending import append
from ai_infra_indexer.archive import LaneArchive
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import Forked
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.sequence import Head
from ai_infra_indexer.store import Connection, ensure_lane, read_head, read_known

log = structlog.get_logger(__name__)

CHUNK_ENTRIES: Final = 2_048  # in a transaction: each costs a commit and some twenty statements, whatever its size
CHUNK_BYTES: Final = 16 << 20  # and no more than this, since a chunk is held in memory, several times over


@dataclass(frozen=True, slots=True)
class Taken:
    """A lane as it is after taking it."""

    head: Head
    keyrings: Keyrings
    checkpoint: OpenedCheckpoint | None
    edge: RightEdge
    edge_hash: str
    restored: int
    """Entries that Postgres lacked."""


def take(
    connection: Connection, archive: LaneArchive, lane: int, *, keyring: Keyring, roots: Roots, lanes: int
) -> Taken:
    """Bring Postgres and archive to one history. Raises Forked where they tell two."""
    read_side = archive.read_side
    ensure_lane(connection, lane, read_side.origin)
    keyrings = read_keyrings(connection, lane, roots)
    opened = archive.open(keyring)
    began = read_head(connection, lane).size
    edge, edge_hash = RightEdge(), ""
    if opened is not None:
        size, root = opened.checkpoint.size, opened.checkpoint.root
        restore(connection, read_side, size, keyrings, lanes)
        edge = read_side.edge(size, root)
        edge_hash = same_history(connection, read_side, lane, size)
    adopt(connection, read_side, keyrings, lanes)
    head = read_head(connection, lane)
    return Taken(head, keyrings, opened, edge, edge_hash, head.size - began)


def read_keyrings(connection: Connection, lane: int, roots: Roots) -> Keyrings:
    """The keyrings that were entered into the lane."""
    keyrings = Keyrings(roots)
    rows = connection.execute("SELECT keyring FROM keyrings WHERE lane = %s ORDER BY version", (lane,)).fetchall()
    for (text,) in rows:
        keyrings.accept(text)
    return keyrings


def restore(connection: Connection, archived: ArchivedLane, size: int, keyrings: Keyrings, lanes: int) -> None:
    """Fill Postgres up to `size` from the archive, every entry verified."""
    head = read_head(connection, archived.lane)
    if head.size >= size:
        return
    log.warning("Postgres is behind the archive; it is filled up first", lane=archived.lane, at=head.size, to=size)
    replay = Replay(head, keyrings, lanes, chain_signatures=True)
    for _, raws in in_chunks(archived.bundles(head.size, size)):
        try:
            load(connection, replay, raws)
        except BadEntry as error:
            raise Forked(
                f"entry {replay.head.size} of lane {archived.lane} in the archive does not follow Postgres or does not "
                f"verify: {error.message}"
            ) from error


def in_chunks(bundles: Iterable[tuple[int, list[bytes]]]) -> Iterator[tuple[int, list[bytes]]]:
    """Bundles taken together, so that a transaction is worth it; each with the position of its first entry."""
    first, size, raws = 0, 0, list[bytes]()
    for position, more in bundles:
        if not raws:
            first, size = position, 0
        raws += more
        size += sum(map(len, more))
        if len(raws) >= CHUNK_ENTRIES or size >= CHUNK_BYTES:
            yield first, raws
            raws = []
    if raws:
        yield first, raws


def load(connection: Connection, replay: Replay, raws: Sequence[bytes]) -> int:
    """Append archived entries to Postgres, in one transaction. Raises BadEntry; what came before it is in."""
    before = replay.head
    lines = replay.take_all(raws)
    if lines:
        known = read_known(connection, before.lane, [line.event for line in lines])
        append(connection, before, lines, replay.head, known=known, offsets={})
    if len(lines) < len(raws):
        replay.take(raws[len(lines)])
    return len(lines)


def same_history(connection: Connection, archived: ArchivedLane, lane: int, size: int) -> str:
    """Raise Forked unless the last covered entry is the same in both: its chain hash stands for all before it."""
    if size == 0:
        return ""
    [(_, raws)] = archived.bundles(size - 1, size)
    last = decode(raws[-1])
    row: Any = connection.execute(
        "SELECT entry FROM entries WHERE lane = %s AND position = %s", (lane, size - 1)
    ).fetchone()
    head = read_head(connection, lane)
    pruned = row is None and (head.size, head.head_hash) == (size, last.link.hash)
    if not pruned and (row is None or bytes(row[0]) != raws[-1]):
        raise Forked(
            f"lane {lane}: entry {size - 1} in Postgres is not the one in the archive, whose checkpoint covers it. "
            f"Nothing is written until a person has looked: `ai-infra audit verify --lane {lane}`"
        )
    return last.link.hash


def adopt(connection: Connection, archived: ArchivedLane, keyrings: Keyrings, lanes: int) -> None:
    """Take up entries that were archived and are in no checkpoint and not in Postgres."""
    replay = Replay(read_head(connection, archived.lane), keyrings, lanes, chain_signatures=True)
    try:
        for _, raws in archived.beyond(replay.head.size):
            count = load(connection, replay, raws)
            log.warning("archived entries without a checkpoint taken up", lane=archived.lane, entries=count)
    except (BadEntry, BadTile, NotFound) as error:
        # Not ours, or not whole. Should it stand where we are about to write, the archive's writer will stop there.
        log.error("bytes beyond the checkpoint are no entries of this lane", lane=archived.lane, why=str(error))
