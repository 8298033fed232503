"""Old rows leave Postgres, once the archive is seen to have them: the log loses nothing, nor does the projection.

A step takes some bundles of a lane's oldest entries. Each is read back from the archive; it must hash to the root of a
checkpoint that the audit key signed, continue the chain, and be byte for byte what Postgres has; then the rows go, and
the lane's low water rises over them, in one transaction. Only full bundles are taken, which nobody can replace while
they are locked, only what was said on `audit-events`, and never the last entry of a lane. Ids and numbers of events
stay for good, so a repetition of what was pruned is still recognised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ai_infra.errors import UnavailableError
from ai_infra.objects.exceptions import ObjectsError
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.exceptions import BadTile, TlogError
from ai_infra.tlog.proofs import TileHashes, inclusion_proof, verify_inclusion
from ai_infra.tlog.tiles import TILE_WIDTH
from ai_infra.tlog.tree import leaf_hash
from ai_infra.trust.exceptions import KeyringError
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import IndexerError, LaneLost, MalformedEntry
from ai_infra_indexer.sequence import Head
from ai_infra_indexer.store import Connection
from ai_infra_indexer.taking import read_keyrings

STEP: Final = 4 * TILE_WIDTH  # entries in one transaction: some 50 ms, in which the lane is written to as ever

Progress = Callable[[int, int], None]
"""(entries that have left, entries that are to leave)"""


class PruningRefused(IndexerError):
    """The archive does not have what Postgres has. Nothing was pruned; needs a person."""

    code = "pruning_refused"


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a run came to. Below `low_water` the lane's rows are in the archive alone."""

    lane: int
    began_at: int
    low_water: int
    wanted: int
    seconds: float

    @property
    def entries(self) -> int:
        return self.low_water - self.began_at


def low_water(connection: Connection, lane: int) -> Head:
    """Where the lane's rows in Postgres begin: as the head of a lane that ends there."""
    row = connection.execute(
        "SELECT l.origin, p.pruned_size, p.pruned_hash, p.pruned_ts_us FROM lanes l JOIN lane_progress p USING (lane) "
        "WHERE lane = %s",
        (lane,),
    ).fetchone()
    if row is None:
        raise LaneLost(f"lane {lane} is not in the database")
    return Head(lane, *row)


def prunable(connection: Connection, lane: int, before: datetime) -> int:
    """Up to which position rows may go, as far as Postgres knows: older than `before`, final and published."""
    progress = connection.execute(
        "SELECT pruned_size, least(checkpoint_size - 1, published_size) FROM lane_progress WHERE lane = %s", (lane,)
    ).fetchone()
    # Times in a lane only rise, so the newest row that is old enough stands for all before it.
    newest = connection.execute(
        "SELECT position FROM audit_events WHERE lane = %s AND created_at < %s ORDER BY created_at DESC LIMIT 1",
        (lane, before),
    ).fetchone()
    if progress is None or newest is None:
        return 0
    return max(int(progress[0]), min(int(progress[1]), int(newest[0]) + 1) // TILE_WIDTH * TILE_WIDTH)


def prune(
    connection: Connection,
    archived: ArchivedLane,
    *,
    roots: Roots,
    before: datetime,
    pause: Callable[[float], bool] = lambda _: False,
    progress: Progress = lambda *_: None,
) -> Pruned:
    """Take the rows of a lane that are older than `before` out of Postgres, step by step.

    `pause` is called after each step with the seconds that it took, and ends the run by returning True. Raises
    PruningRefused, and what Postgres and the archive raise; what had gone by then is in the archive.
    """
    began, lane = time.monotonic(), archived.lane
    start = at = low_water(connection, lane)
    limit = prunable(connection, lane, before)
    if limit > at.size:
        shown = _checkpoint(connection, archived, roots)
        limit = min(limit, (shown.size - 1) // TILE_WIDTH * TILE_WIDTH)
        while at.size < limit:
            stepped = time.monotonic()
            after = _verified(connection, archived, shown, at, min(limit, at.size + STEP))
            _remove(connection, at, after)
            at = after
            progress(at.size - start.size, limit - start.size)
            if at.size < limit and pause(time.monotonic() - stepped):
                break
    return Pruned(lane, start.size, at.size, limit, time.monotonic() - began)


def _checkpoint(connection: Connection, archived: ArchivedLane, roots: Roots) -> Checkpoint:
    """The archive's newest checkpoint, signed by an audit key of the lane's own keyring."""
    note = archived.note()
    if note is None:
        raise PruningRefused(f"lane {archived.lane}: {archived.uri} has no checkpoint; nothing is pruned")
    try:
        keyring = read_keyrings(connection, archived.lane, roots).latest
        return archived.checkpoint(note, keyring, standing=True).checkpoint
    except (TlogError, KeyringError) as error:
        raise PruningRefused(
            f"lane {archived.lane}: the archive's checkpoint does not verify ({error}); nothing is pruned. "
            f"`ai-infra audit verify --lane {archived.lane}` says more"
        ) from error


def _verified(connection: Connection, archived: ArchivedLane, shown: Checkpoint, low: Head, high: int) -> Head:
    """The head after the entries from `low` up to `high`, each seen in the archive. Raises PruningRefused."""
    rows = connection.execute(
        "SELECT position, entry FROM entries WHERE lane = %s AND position >= %s AND position < %s",
        (archived.lane, low.size, high),
    ).fetchall()
    there = {position: bytes(raw) for position, raw in rows}
    leaves: dict[int, bytes] = {}

    def read_tile(level: int, index: int, width: int) -> bytes:
        # The tree's lowest level from the entries themselves: so their bundle's hash stands for each of them.
        return leaves[index] if level == 0 and index in leaves else archived.read_tile(level, index, width)

    hashes, head = TileHashes(shown.size, read_tile), low
    for index in range(low.size // TILE_WIDTH, high // TILE_WIDTH):
        try:
            raws = archived.bundle(index, TILE_WIDTH)
            if len(raws) != TILE_WIDTH:
                raise BadTile(f"its bundle has {len(raws)} entries")
            leaves[index] = b"".join(map(leaf_hash, raws))
            first = index * TILE_WIDTH
            verify_inclusion(
                leaf=leaf_hash(raws[0]),
                index=first,
                size=shown.size,
                proof=inclusion_proof(first, shown.size, hashes),
                root=shown.root,
            )
            head = _chained(head, raws, there)
        except UnavailableError:
            raise
        except (TlogError, ObjectsError, MalformedEntry) as error:
            raise _refused(archived.lane, head.size, f"is not in the archive as the checkpoint has it ({error})") from (
                error
            )
    return head


def _chained(head: Head, raws: Sequence[bytes], there: dict[int, bytes]) -> Head:
    for raw in raws:
        entry = decode(raw)
        if entry.position != head.size or (entry.link.prev_hash or "") != head.head_hash:
            raise _refused(head.lane, head.size, "does not continue the chain in the archive")
        # A row that is missing here is none that could be lost; the audit names it.
        if there.get(head.size, raw) != raw:
            raise _refused(head.lane, head.size, "is another one in Postgres than in the archive")
        head = Head(head.lane, head.origin, head.size + 1, entry.link.hash, entry.link.ts_us)
    return head


def _refused(lane: int, position: int, why: str) -> PruningRefused:
    return PruningRefused(
        f"lane {lane}: entry {position} {why}; it and what follows stays in Postgres. `ai-infra audit verify --lane "
        f"{lane}` says which of the two was changed"
    )


def _remove(connection: Connection, low: Head, high: Head) -> None:
    """Both kinds of rows, and the low water over them, or nothing: whoever reads one snapshot sees no gap."""
    which = (low.lane, low.size, high.size)
    with connection.transaction():
        connection.execute("DELETE FROM entries WHERE lane = %s AND position >= %s AND position < %s", which)
        connection.execute("DELETE FROM audit_events WHERE lane = %s AND position >= %s AND position < %s", which)
        moved = connection.execute(
            "UPDATE lane_progress SET pruned_size = %s, pruned_hash = %s, pruned_ts_us = %s, pruned_at = now() "
            "WHERE lane = %s AND pruned_size = %s AND pruned_hash = %s",
            (high.size, high.head_hash, high.last_ts_us, low.lane, low.size, low.head_hash),
        )
        if moved.rowcount != 1:
            raise LaneLost(
                f"lane {low.lane}: its low water is not at {low.size} any more: somebody else prunes it, or the "
                "database was restored. Nothing of this step was removed; run it again"
            )
