"""From an archive to a proof file. What is made is checked before it is handed out, by the same rules as its reader's.

Where an event is may be asked of Postgres; what is proven comes from the archive alone, so a wrong answer only makes
the proof fail here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from ai_infra.errors import AiInfraError
from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import SignerChanged
from ai_infra.events.schemas import KNOWN
from ai_infra.objects.exceptions import NotFound
from ai_infra.tlog.checkpoint import OpenedCheckpoint
from ai_infra.tlog.consistency_file import ConsistencyFile
from ai_infra.tlog.exceptions import BadTile
from ai_infra.tlog.proof_file import LogProof
from ai_infra.tlog.proofs import TileHashes, inclusion_proof
from ai_infra.tlog.tiles import TILE_WIDTH, bundle_width, decode_bundle
from ai_infra.trust.exceptions import KeyringError, TrustError
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import IndexerError, MalformedEntry
from ai_infra_indexer.proofs.evidence import Enclosed, Evidence
from ai_infra_indexer.proofs.ran import make_ran
from ai_infra_indexer.replay import LaneVerifier

Progress = Callable[[int], None]
_MARK: Final = f'"ce_type":"{SignerChanged.TOPIC}"'.encode()


class NotProvable(IndexerError):
    """What should be proven is not in the log, or no checkpoint covers it yet."""

    code = "not_provable"


def prove_event(
    archived: ArchivedLane,
    opened: OpenedCheckpoint,
    position: int,
    keyrings: Iterable[int],
    *,
    lanes: int,
    size: int | None = None,
    ran: datetime | None = None,
    following: int | None = None,
) -> bytes:
    """The proof file of the entry at `position` under a checkpoint. `keyrings`: where the lane has keyrings; `size`: of
    the newest checkpoint, where `opened` is an older one, whose partial tiles may be gone.

    `ran`: a time at which the event, a deployment.changed, was the newest; `following`: where the next one is, if any.
    """
    covered = opened.checkpoint.size
    if position >= covered:
        raise NotProvable(
            f"the event is at position {position} of lane {archived.lane}, the checkpoint covers {covered}: it is not "
            "final yet. The indexer archives it within seconds; `ai-infra status` says where it is held up"
        )
    size = max(size or 0, covered)
    hashes = TileHashes(size, archived.read_tile)
    entry = entry_at(archived, position, size)
    enclosed = tuple(
        Enclosed(entry_at(archived, at, size), tuple(inclusion_proof(at, covered, hashes)))
        for at in sorted(set(keyrings) - {position})
        if at < covered
    )
    schema = KNOWN.get(str(decode(entry).statement.get("schema_sha256")), "")
    about = make_ran(archived, covered, hashes, position, ran, following, size=size) if ran is not None else None
    extra = Evidence(entry, schema, enclosed, lanes, about).to_bytes()
    return LogProof.make(position, opened, hashes, extra=extra).to_bytes()


def prove_consistency(
    archived: ArchivedLane, old_size: int, opened: OpenedCheckpoint, *, size: int | None = None
) -> bytes:
    """The proof that the tree of `old_size` entries is the beginning of the checkpoint's. `size`: as above."""
    covered = opened.checkpoint.size
    if not 0 <= old_size <= covered:
        raise NotProvable(f"lane {archived.lane} has {covered} entries under that checkpoint, fewer than {old_size}")
    hashes = TileHashes(max(size or 0, covered), archived.read_tile)
    return ConsistencyFile.make(old_size, opened, hashes).to_bytes()


def entry_at(archived: ArchivedLane, position: int, size: int) -> bytes:
    """One entry of the tree of `size` entries. Raises what reading a bundle raises."""
    index, at = divmod(position, TILE_WIDTH)
    entries = archived.bundle(index, bundle_width(index, size))
    if at >= len(entries):
        raise BadTile(f"the bundle of entry {position} of lane {archived.lane} ends before it")
    return entries[at]


def kept_checkpoint(archived: ArchivedLane, size: int) -> bytes:
    """A checkpoint of exactly that size: the newest one, one that was kept, or one that a witness has cosigned."""
    newest = archived.note()
    if newest is not None and archived.claimed_size(newest) == size:
        return newest
    try:
        return archived.kept(size)
    except NotFound:
        there = ", ".join(map(str, archived.kept_sizes()[-5:])) or "none"
        raise NotProvable(
            f"no signed checkpoint of lane {archived.lane} has size {size}. Kept are those at each full tile (the last "
            f"ones: {there}), beside the newest"
        ) from None


def find_event(archived: ArchivedLane, event_id: str, size: int, *, progress: Progress = lambda _: None) -> int | None:
    """The position of the first entry with this event id; reads the lane up to there."""
    wanted = event_id.encode()
    for first, raws in _bundles_with(archived, wanted, size, progress):
        for at, raw in enumerate(raws):
            if wanted in raw and _said(raw).get("ce_id") == event_id:
                return first + at
    return None


def find_keyrings(archived: ArchivedLane, size: int, *, progress: Progress = lambda _: None) -> list[int]:
    """Where keyrings were entered into the lane; reads all of it."""
    return [
        first + at
        for first, raws in _bundles_with(archived, _MARK, size, progress)
        for at, raw in enumerate(raws)
        if _MARK in raw and _said(raw).get("ce_type") == SignerChanged.TOPIC
    ]


def keyrings_of(archived: ArchivedLane, positions: Iterable[int], size: int, roots: Roots, lanes: int) -> Keyrings:
    """The keyrings that were entered at these positions of the lane, each verified. Raises NotProvable."""
    verifier = LaneVerifier(Keyrings(roots), lanes)
    for position in sorted(set(positions)):
        if position < size:
            try:
                verifier.verify(decode(entry_at(archived, position, size)).record())
            except (EventError, TrustError, KeyringError, MalformedEntry) as error:
                raise NotProvable(
                    f"the keyring at position {position} of lane {archived.lane} does not verify: {error}"
                ) from error
    return verifier.keyrings


def position_in_postgres(connection: Any, event_id: str, lane: int | None) -> tuple[int, int] | None:
    """(lane, position) of an event's first entry. A broadcast is in every lane; the lowest is taken."""
    row = connection.execute(
        "SELECT lane, position FROM event_ids WHERE event_id = %s::uuid "
        "AND lane = ANY(ARRAY(SELECT lane FROM lanes WHERE %s::int IS NULL OR lane = %s)) ORDER BY lane LIMIT 1",
        (event_id, lane, lane),
    ).fetchone()
    return (row[0], row[1]) if row is not None else None


def keyrings_in_postgres(connection: Any, lane: int) -> list[int]:
    """Where keyrings were entered into the lane."""
    rows = connection.execute("SELECT position FROM keyrings WHERE lane = %s ORDER BY position", (lane,))
    return [position for (position,) in rows.fetchall()]


def _bundles_with(
    archived: ArchivedLane, wanted: bytes, size: int, progress: Progress
) -> Iterator[tuple[int, list[bytes]]]:
    """The bundles in which these bytes are. A bundle is decoded only where they are: most are not."""
    for index in range(-(-size // TILE_WIDTH)):
        first = index * TILE_WIDTH
        width = min(TILE_WIDTH, size - first)
        data = archived.read_bundle(index, width)
        if wanted in data:
            yield first, decode_bundle(data)[:width]
        progress(width)


def _said(raw: bytes) -> dict[str, Any]:
    try:
        return dict(decode(raw).statement)
    except (MalformedEntry, AiInfraError):
        return {}
