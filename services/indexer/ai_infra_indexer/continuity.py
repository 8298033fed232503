"""Whether a newer checkpoint continues an older one, by the tiles of an archive that nobody need trust.

Both checkpoints are verified before they come here. Tiles are not: where they lead from the one root to the other, they
have proven themselves; where they lead to the newer root from another older one, two signed checkpoints contradict each
other; anything else only says that the archive can't be read.
"""

from __future__ import annotations

from enum import StrEnum

from ai_infra.objects.exceptions import NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.consistency_file import check_continues
from ai_infra.tlog.exceptions import BadProof, BadTile, TlogError
from ai_infra.tlog.proofs import ReadTile, TileHashes, consistency_proof, range_root


class Continuity(StrEnum):
    """How a checkpoint stands to an older one."""

    CONTINUES = "continues"
    OLDER = "older"
    """It has fewer entries than the one that is already known."""
    FORKED = "forked"
    """Both are signed, and no append-only log can have both."""
    UNREADABLE = "unreadable"
    """The archive's tiles lead to neither: nothing is known about the two."""


def continuity(known: Checkpoint, shown: Checkpoint, read_tile: ReadTile) -> Continuity:
    """How `shown` stands to `known`. Raises ObjectsUnavailable where the archive does not answer."""
    if shown.size < known.size:
        return Continuity.OLDER
    if shown.size == known.size:
        return Continuity.CONTINUES if shown.root == known.root else Continuity.FORKED
    if known.size == 0:
        return Continuity.CONTINUES
    try:
        hashes = TileHashes(shown.size, read_tile)
        proof = consistency_proof(known.size, shown.size, hashes)
        try:
            check_continues(known, shown, proof)
        except BadProof:
            another = Checkpoint(known.origin, known.size, range_root(0, known.size, hashes))
            check_continues(another, shown, proof)  # raises where the tiles do not lead to what is shown
            return Continuity.FORKED if another.root != known.root else Continuity.UNREADABLE
    except ObjectsUnavailable:
        raise
    except (BadProof, BadTile, TlogError, NotFound, ObjectsError):
        return Continuity.UNREADABLE
    return Continuity.CONTINUES
