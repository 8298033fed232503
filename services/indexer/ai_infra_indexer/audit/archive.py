"""A lane as the archive shows it: every entry, every tile, the checkpoint.

Entries are read up to the size that the checkpoint claims; the checkpoint itself is believed when an audit key signed
it, by the keyring that the lane's own entries bring, which the pinned root keys have signed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ai_infra.events.statement import DATASCHEMA_PREFIX
from ai_infra.objects.exceptions import NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.tiles import TILE_WIDTH, bundle_width, parse_path
from ai_infra.tlog.tree import leaf_hash
from ai_infra.trust.exceptions import KeyringError
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.beside import KeptCheckpoints, check_schemas
from ai_infra_indexer.audit.report import LaneReport, Progress
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.sequence import Head, Line

Keep = Callable[[Sequence[Line]], None]
"""Given the verified entries of each bundle, in order. What is kept counts only if the report names no problem."""


def audit_archive(
    archived: ArchivedLane,
    roots: Roots,
    lanes: int,
    *,
    progress: Progress = lambda _: None,
    keep: Keep = lambda _: None,
) -> LaneReport:
    """Verify one lane of an archive. Raises ObjectsUnavailable where the archive does not answer."""
    began = time.monotonic()
    report = LaneReport(archived.lane, "archive")
    note = archived.note()
    if note is None:
        report.add(None, "no_checkpoint", f"{archived.uri} has no checkpoint")
        return report
    try:
        size = archived.claimed_size(note)
    except (TlogError, UnicodeDecodeError) as error:
        report.add(None, "bad_checkpoint", f"the checkpoint can't be read: {error}")
        return report
    replay = Replay(Head(archived.lane, archived.origin), Keyrings(roots), lanes, chain_signatures=True)
    edge: RightEdge | None = RightEdge()
    kept, schemas, reach = KeptCheckpoints(archived), dict[str, int](), None
    for index in range(-(-size // TILE_WIDTH)):
        width = bundle_width(index, size)
        raws = _bundle(archived, index, width, report)
        if raws is None:
            edge = None
            reach = archived.reach() if reach is None else reach
            if index >= reach:
                break  # a checkpoint may claim any size: what is beyond the last bundle is said once
            for _ in range(width):
                replay.resume_after(None)
            continue
        lines = replayed(replay, raws, report)
        keep(lines)
        for line in lines:
            schemas.setdefault(line.event.attributes.dataschema.removeprefix(DATASCHEMA_PREFIX), line.position)
        _check_leaves(archived, index, size, raws, report)
        if edge is not None:
            kept.note_roots(edge, raws)
            edge = _check_tiles(archived, edge, raws, report)
        progress(len(raws))
    report.entries = replay.head.size
    report.keyring_version = replay.keyrings.latest_version
    report.keyring = replay.keyrings.latest if report.keyring_version else None
    _check_checkpoint(archived, note, replay, edge, report)
    if report.keyring is not None:
        kept.check(report.keyring, report)
    check_schemas(archived, schemas, report)
    report.seconds = time.monotonic() - began
    return report


def replayed(replay: Replay, raws: Sequence[bytes], report: LaneReport) -> list[Line]:
    """The lines of the good entries; the bad ones are named, and stepped over."""
    lines = replay.take_all(raws)
    for line in lines:
        report.note(line.position, line.event)
    for raw in raws[len(lines) :]:
        position = replay.head.size
        try:
            line = replay.take(raw)
        except BadEntry as error:
            note_bad(replay, position, error, report)
            replay.resume_after(raw)
        else:
            report.note(position, line.event)
            lines.append(line)
    return lines


def note_bad(replay: Replay, position: int, error: BadEntry, report: LaneReport) -> None:
    """Name a bad entry; but where the lane has no keyring (its entry is the broken one), that is said once."""
    if replay.keyrings.latest_version > 0 or position == 0:
        report.add(position, error.code, error.message)
    elif not any(problem.code == "no_keyring" for problem in report.problems):
        report.add(
            position, "no_keyring", "from here on no signature can be judged: the lane's keyring does not verify"
        )


def _bundle(archived: ArchivedLane, index: int, width: int, report: LaneReport) -> list[bytes] | None:
    first = index * TILE_WIDTH
    try:
        raws = archived.bundle(index, width)
    except ObjectsUnavailable:
        raise
    except NotFound:
        report.add(first, "missing_bundle", f"entries {first} ff. are not in the archive")
        return None
    except (TlogError, ObjectsError) as error:
        report.add(first, "bad_bundle", f"entries {first} to {first + width - 1} can't be read: {error}")
        return None
    if len(raws) < width:
        report.add(first + len(raws), "short_bundle", f"the bundle ends {width - len(raws)} entries early")
        return None
    return raws


def _check_leaves(archived: ArchivedLane, index: int, size: int, raws: Sequence[bytes], report: LaneReport) -> None:
    """Which entries are not those that the tree was made of."""
    first = index * TILE_WIDTH
    try:
        tile = archived.leaf_hashes(index, size)
    except ObjectsUnavailable:
        raise
    except ObjectsError as error:
        report.add(first, "missing_tile", f"the leaf hashes of entries {first} ff. are not there: {error}")
        return
    for at, raw in enumerate(raws):
        if tile[32 * at : 32 * at + 32] != leaf_hash(raw):
            report.add(first + at, "changed_entry", "its bytes do not have the leaf hash that the tree holds")


def _check_tiles(archived: ArchivedLane, edge: RightEdge, raws: Sequence[bytes], report: LaneReport) -> RightEdge:
    """Compare each tile above the leaves with the one that the entries lead to."""
    growth = grow(edge, raws)
    for write in growth.writes:
        tile = parse_path(write.path)
        if tile.level is None or tile.level == 0:
            continue
        position = (tile.index * TILE_WIDTH) << (8 * tile.level)
        try:
            found = archived.read_tile(tile.level, tile.index, tile.width)[: len(write.data)]
        except NotFound:
            # A partial tile that a fuller one has superseded is there under that one's name only.
            if tile.full:
                report.add(position, "missing_tile", f"{write.path} is not in the archive")
            continue
        if found != write.data:
            report.add(position, "bad_tile", f"{write.path} is not what the entries lead to")
    return growth.edge


def _check_checkpoint(
    archived: ArchivedLane, note: bytes, replay: Replay, edge: RightEdge | None, report: LaneReport
) -> None:
    try:
        opened = archived.checkpoint(note, replay.keyrings.latest, standing=True)
    except (TlogError, KeyringError) as error:
        report.add(None, "bad_checkpoint", f"the checkpoint does not verify: {error}")
        return
    report.checkpoint_size = opened.checkpoint.size
    report.root = opened.checkpoint.root.hex()
    if edge is not None and edge.root() != opened.checkpoint.root:
        report.add(
            None,
            "wrong_root",
            f"the checkpoint of size {edge.size} has root {opened.checkpoint.root.hex()}, the entries lead to "
            f"{edge.root().hex()}",
        )
