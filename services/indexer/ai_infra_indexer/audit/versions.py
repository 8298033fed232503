"""What the bucket remembers of a lane's objects: who may write there can cover what is locked, and that shows here.

Object Lock keeps a version; it forbids neither a newer version nor a delete marker. What is written once has one
version for good, and no marker; so each further one is somebody else's, and is named. The log is then read at the
version that was archived: the one whose VersionId was recorded when it was written, else the oldest. Partial tiles may
go when a fuller one is there, and notes are written over; there the newest must not be older than one before it. A
folder, or static files, have no versions: then nothing is concluded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from ai_infra.objects.exceptions import ObjectsError, ObjectsUnavailable
from ai_infra.objects.lane_files import note_at
from ai_infra.objects.model import Version
from ai_infra.objects.reader import BucketReader, ObjectReader
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.exceptions import BadTile, TlogError
from ai_infra.tlog.heads import Heads, heads_origin, open_heads
from ai_infra.tlog.note import parse_note
from ai_infra.tlog.tiles import TILE_WIDTH, parse_path, tile_width
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.report import LaneReport, Problem
from ai_infra_indexer.heads import PATH as HEADS

CHECKED: Final = "checked"
LOOKED_BACK: Final = 16  # contents of a checkpoint, or of the heads, that are read: one a second is written
TRIED: Final = 3  # of those, by how many a lane is read where the newest one does not verify
_CHECKPOINT: Final = "checkpoint"


@dataclass(slots=True)
class History:
    """What the versions below a prefix show. `pins`: by path of the archive, the version that is the log's own."""

    state: str = CHECKED
    """`checked`, or why nothing could be."""
    problems: list[Problem] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict)
    heads: list[Version] = field(default_factory=list)
    """Versions of the lane's checkpoint, the newest first, markers left out."""


def audit_versions(
    reader: ObjectReader,
    origin: str,
    lane: int,
    audit: Callable[[ArchivedLane], LaneReport],
    recorded: Mapping[str, str] | None = None,
) -> LaneReport:
    """`audit` of a lane, read as it was archived whatever covers it now, and what covers it. `recorded`: VersionIds
    that were noted when the lane was written, by path below it. Raises ObjectsUnavailable."""
    history = lane_history(reader, origin, lane, recorded or {})
    history.pins |= shared_history(reader).pins
    report, shown = _audited(reader, origin, lane, audit, history)
    for problem in [*history.problems, *_older_heads(reader, origin, history.heads[shown + 1 :], report)]:
        report.add(problem.position, problem.code, problem.detail)
    report.versions = history.state
    return report


def lane_history(reader: ObjectReader, origin: str, lane: int, recorded: Mapping[str, str]) -> History:
    """The versions of all objects of a lane."""
    prefix, history = f"lanes/{lane}/", History()
    needed: list[tuple[str, Version]] = []
    for path, versions in _grouped(reader, prefix, history):
        below = path.removeprefix(prefix)
        kept = [version for version in versions if not version.delete_marker]
        marker = next((version for version in versions if version.delete_marker), None)
        if below == _CHECKPOINT:
            history.heads = kept
        if _written_once(below):
            _one_version(history, lane, path, kept, marker, recorded.get(below))
        elif below == _CHECKPOINT or below.startswith("cosignatures/"):
            _no_marker(history, lane, path, kept, marker)
        elif _partial(below):
            _one_version(history, lane, path, kept, None, None)
            if marker is not None and kept:
                history.pins.setdefault(path, kept[-1].version_id)
                needed.append((path, marker))
        else:
            _add(history, lane, path, "unknown_object", f"{path} is none of the objects that a lane has")
    if needed:
        _partial_markers(reader, origin, lane, history, needed)
    return history


def below_covers(reader: ObjectReader, origin: str, lane: int) -> tuple[ObjectReader, list[Problem]]:
    """The archive with each object of a lane, and what lies beside the lanes, as it was written, whatever covers it;
    and what does."""
    history, shared = lane_history(reader, origin, lane, {}), shared_history(reader)
    return _at(reader, history.pins | shared.pins), [*history.problems, *shared.problems]


def shared_history(reader: ObjectReader) -> History:
    """The versions of what lies beside the lanes: schemas and certificates, written once, and the signed heads."""
    history = History()
    for prefix in ("schemas/", "trust/", "heads"):
        for path, versions in _grouped(reader, prefix, history):
            kept = [version for version in versions if not version.delete_marker]
            marker = next((version for version in versions if version.delete_marker), None)
            if path == "heads":
                _no_marker(history, None, path, kept, marker)
            else:
                _one_version(history, None, path, kept, marker, None)
    return history


def _grouped(reader: ObjectReader, prefix: str, history: History) -> Iterable[tuple[str, list[Version]]]:
    """The versions of each path, the newest first; nothing, with the reason in `history`, where none are to be had."""
    if not isinstance(reader, BucketReader):
        history.state = "not checked: only a bucket has versions"
        return
    found: dict[str, list[Version]] = {}
    try:
        for path, version in reader.history(prefix):
            found.setdefault(path, []).append(version)
    except ObjectsUnavailable:
        raise
    except ObjectsError as error:
        history.state = f"not checked: {error}"
        return
    if found and all(version.version_id == "null" for versions in found.values() for version in versions):
        history.state = "not checked: the bucket keeps no versions"
        return
    yield from sorted(found.items())


def _one_version(
    history: History, lane: int | None, path: str, kept: list[Version], marker: Version | None, recorded: str | None
) -> None:
    """Name what covers an object that is written once, and what it should be read at."""
    own = next((version for version in kept if version.version_id == recorded), None)
    if recorded is not None and own is None:
        detail = f"version {recorded} of {path}, which was recorded when it was written, is not in the bucket any more"
        _add(history, lane, path, "missing_version", detail)
    own = own or (kept[-1] if kept else None)
    others = [version for version in kept if version is not own]
    if own is None:
        if marker is not None:
            _add(history, lane, path, "delete_marker", f"{path} is only a delete marker of {_when(marker)}")
        return
    if others:
        newest = others[0]
        detail = (
            f"{path} is written once and has {len(kept)} versions, one of them {newest.version_id} of "
            f"{_when(newest)}; read was {own.version_id}, the log's own"
        )
        _add(history, lane, path, "another_version", detail)
    if marker is not None:
        detail = f"{path} is covered by a delete marker of {_when(marker)}; read was {own.version_id}"
        _add(history, lane, path, "delete_marker", detail)
    if marker is not None or not own.latest:
        history.pins[path] = own.version_id


def _no_marker(history: History, lane: int | None, path: str, kept: list[Version], marker: Version | None) -> None:
    if marker is not None:
        detail = f"somebody put a delete marker over {path} at {_when(marker)}"
        _add(history, lane, path, "delete_marker", detail)
        if marker.latest and kept:
            history.pins[path] = kept[0].version_id


def _partial_markers(
    reader: ObjectReader, origin: str, lane: int, history: History, marked: list[tuple[str, Version]]
) -> None:
    """A partial tile may go once a fuller one is there. While the newest checkpoint needs it, it may not."""
    archived = ArchivedLane(_at(reader, history.pins), origin, lane)
    size = 0
    with suppress(TlogError, UnicodeDecodeError, ObjectsError):
        size = archived.claimed_size(archived.note() or b"")
    for path, marker in marked:
        tile = parse_path(path.removeprefix(f"lanes/{lane}/"))
        if tile.width == tile_width(tile.level or 0, tile.index, size):
            detail = f"{path}, which the newest checkpoint needs, is covered by a delete marker of {_when(marker)}"
            _add(history, lane, path, "delete_marker", detail)


def _audited(
    reader: ObjectReader, origin: str, lane: int, audit: Callable[[ArchivedLane], LaneReport], history: History
) -> tuple[LaneReport, int]:
    """The audit at the log's own versions, and which version of the checkpoint it was by: where the newest does not
    verify, the newest before it that does."""
    report = audit(ArchivedLane(_at(reader, history.pins), origin, lane))
    tried = 0
    for at, version in enumerate(history.heads[:LOOKED_BACK]):
        if report.checkpoint_size is not None or tried == TRIED:
            break
        archived = ArchivedLane(_at(reader, {**history.pins, _head_path(lane): version.version_id}), origin, lane)
        if at == 0 or not _is_of(archived):
            continue
        tried += 1
        other = audit(archived)
        if other.checkpoint_size is not None:
            why = next((p.detail for p in report.problems if p.code == "bad_checkpoint"), "it does not verify")
            detail = f"{why}; the lane was read by version {version.version_id} of it, of {_when(version)}"
            other.add(None, "bad_checkpoint", detail)
            return other, at
    return report, 0


def _is_of(archived: ArchivedLane) -> bool:
    """Whether what lies as the checkpoint looks like one of this lane at all."""
    try:
        return Checkpoint.parse(parse_note(archived.note() or b"").text).origin == archived.origin
    except ObjectsUnavailable:
        raise
    except (TlogError, ObjectsError, UnicodeDecodeError):
        return False


def _older_heads(reader: ObjectReader, origin: str, heads: Sequence[Version], report: LaneReport) -> Iterator[Problem]:
    """The versions of the checkpoint before the one that was read: each the log's own, and none larger."""
    if report.keyring is None or report.checkpoint_size is None:
        return
    for version in _contents(heads):
        archived = ArchivedLane(_at(reader, {_head_path(report.lane): version.version_id}), origin, report.lane)
        try:
            size = archived.checkpoint(archived.note() or b"", report.keyring).checkpoint.size
        except ObjectsUnavailable:
            raise
        except (TlogError, ObjectsError, UnicodeDecodeError) as error:
            detail = f"version {version.version_id} of the checkpoint, of {_when(version)}, is not the log's: {error}"
            yield Problem(report.lane, report.source, None, "foreign_version", detail)
            continue
        if size > report.checkpoint_size:
            detail = f"the checkpoint of {_when(version)} had size {size}; one of {report.checkpoint_size} covers it"
            yield Problem(report.lane, report.source, None, "rolled_back", detail)


def versions_of_heads(reader: ObjectReader) -> list[Version]:
    """The versions of the signed heads, the newest first. To be asked for before the heads themselves are read: a log
    that grows meanwhile is not older for it."""
    found = dict(_grouped(reader, HEADS, History())).get(HEADS, [])
    return [version for version in found if not version.delete_marker]


def older_heads_of_all(
    reader: ObjectReader, log_origin: str, keyring: Keyring, shown: Heads, versions: Sequence[Version]
) -> list[Problem]:
    """What is wrong with these versions of the signed heads: each should be the log's own, and none have more."""
    origin, problems = heads_origin(log_origin), list[Problem]()
    keys = audit_keys(keyring, origin)
    for version in _contents(versions):
        note = note_at(_at(reader, {HEADS: version.version_id}), HEADS) or b""
        try:
            older = open_heads(note, origin=origin, log_keys=keys).heads
        except (TlogError, UnicodeDecodeError) as error:
            detail = f"version {version.version_id} of the heads, of {_when(version)}, is not the log's: {error}"
            problems.append(Problem(None, "archive", None, "foreign_version", detail))
            continue
        for lane, (was, now) in enumerate(zip(older.lanes, shown.lanes, strict=False)):
            if was.size > now.size:
                detail = f"the heads of {_when(version)} had size {was.size}; those with {now.size} cover them"
                problems.append(Problem(lane, "archive", None, "rolled_back", detail))
    return problems


def _contents(versions: Sequence[Version]) -> list[Version]:
    """A version of each content, those first that have come last: who puts older ones back a hundred times hides the
    newest behind none of them."""
    return list({version.etag: version for version in reversed(versions)}.values())[::-1][:LOOKED_BACK]


def _head_path(lane: int) -> str:
    return f"lanes/{lane}/{_CHECKPOINT}"


def _when(version: Version) -> str:
    return f"{version.modified:%Y-%m-%d %H:%M:%S}"


def _at(reader: ObjectReader, pins: Mapping[str, str]) -> ObjectReader:
    return reader.at(pins) if isinstance(reader, BucketReader) and pins else reader


def _add(history: History, lane: int | None, path: str, code: str, detail: str) -> None:
    position: int | None = None
    with suppress(BadTile):
        tile = parse_path(path.removeprefix(f"lanes/{lane}/"))
        position = (tile.index * TILE_WIDTH) << (8 * (tile.level or 0))
    history.problems.append(Problem(lane, "archive", position, code, detail))


def _written_once(below: str) -> bool:
    if below.startswith("checkpoints/"):
        return below.removeprefix("checkpoints/").isdecimal()
    return _full(below) is True


def _partial(below: str) -> bool:
    return _full(below) is False


def _full(below: str) -> bool | None:
    try:
        return parse_path(below).full
    except BadTile:
        return None
