"""Legal holds, and longer retention, of what is kept for good: which objects, how they are locked, what is changed.

A lane is held as a whole: an entry by itself proves nothing without the tree around it. Nothing here shortens a
retention; a hold is one bit of an object, so who releases it releases it for everybody. Where an object is covered by
somebody else's version, the log's own is meant (`audit.versions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from ai_infra.objects.exceptions import NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.objects.model import Lock, LockMode
from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import PARALLEL_PUTS, ObjectStore
from ai_infra.objects.uri import join
from ai_infra.tlog.exceptions import BadTile, TlogError
from ai_infra.tlog.tiles import TILE_WIDTH, parse_path, tile_width
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.versions import lane_history, shared_history

SHARED: Final = "schemas and trust"
Progress = Callable[[int], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept:
    """An object that is kept for good, or (`passing`) one that only shows the lane's newest state."""

    of: str
    uri: str
    version_id: str | None
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Locked:
    """How an object is locked now."""

    kept: Kept
    lock: Lock | None
    held: bool


@dataclass(frozen=True, slots=True)
class LockSummary:
    """How the objects of one lane or model are locked. `first`, `last`: when the retention of the first, and of the
    last, ends; of those that are kept for good."""

    of: str
    objects: int
    held: int
    unlocked: int
    first: datetime | None
    last: datetime | None


def lane_name(lane: int) -> str:
    return f"lane {lane}"


def kept_of_lane(reader: BucketReader, origin: str, lane: int, *, past: bool = False) -> list[Kept]:
    """What the lane's log consists of: what is written for good, and what its newest checkpoint needs besides; or
    (`past`) all versions that ever showed a newest state, since each of them may be held."""
    prefix, pins = f"lanes/{lane}/", lane_history(reader, origin, lane, {}).pins
    pinned = reader.at(pins)
    archived, size = ArchivedLane(pinned, origin, lane), 0
    with suppress(TlogError, UnicodeDecodeError):
        size = archived.claimed_size(archived.note() or b"")
    found: list[Kept] = []
    for path in pinned.list(prefix):
        below = path.removeprefix(prefix)
        needed = _width(below) in (None, TILE_WIDTH) or _is_edge(below, size)
        passing = _passing(below)
        if needed and not (past and passing):
            found.append(Kept(lane_name(lane), join(reader.uri, path), pins.get(path), passing))
    for path, version in reader.history(prefix) if past else ():
        if _passing(path.removeprefix(prefix)) and not version.delete_marker:
            found.append(Kept(lane_name(lane), version.uri, version.version_id, passing=True))
    return found


def _width(below: str) -> int | None:
    try:
        return parse_path(below).width
    except BadTile:
        return None


def _passing(below: str) -> bool:
    """Whether it shows a newest state: a partial tile, or a note that is written over."""
    return _width(below) != TILE_WIDTH and not below.startswith("checkpoints/")


def _is_edge(below: str, size: int) -> bool:
    """Whether it is a tile at the right edge of the tree of that size."""
    tile = parse_path(below)
    return tile.width == tile_width(tile.level or 0, tile.index, size)


def kept_beside(reader: BucketReader) -> list[Kept]:
    """What no lane can be read without: schemas, certificates."""
    pins = shared_history(reader).pins
    pinned = reader.at(pins)
    paths = [path for prefix in ("schemas/", "trust/") for path in pinned.list(prefix)]
    return [Kept(SHARED, join(reader.uri, path), pins.get(path)) for path in paths]


def look(store: ObjectStore, objects: Sequence[Kept], progress: Progress = lambda _: None) -> list[Locked]:
    """How each is locked; what is not there is left out. Raises ObjectsError."""

    def one(kept: Kept) -> Locked | None:
        try:
            lock, held = store.locked(kept.uri, version_id=kept.version_id)
        except NotFound:
            return None
        return Locked(kept, lock, held)

    return [found for found in _parallel(one, objects, progress) if found is not None]


def summary(of: str, found: Sequence[Locked]) -> LockSummary:
    """Of objects of one lane or model."""
    good = [item for item in found if not item.kept.passing]
    ends = [item.lock.until for item in good if item.lock is not None]
    return LockSummary(
        of,
        len(found),
        sum(item.held for item in found),
        sum(item.lock is None for item in good),
        min(ends, default=None),
        max(ends, default=None),
    )


def to_hold(found: Iterable[Locked], on: bool) -> list[Kept]:
    """Those whose hold is to be changed."""
    return [item.kept for item in found if item.held is not on]


def to_extend(found: Iterable[Locked], until: datetime, mode: LockMode) -> list[tuple[Kept, Lock]]:
    """Those that are kept for good and locked for less than until then; `mode`: of those that have no lock."""
    return [
        (item.kept, Lock(item.lock.mode if item.lock is not None else mode, until))
        for item in found
        if not item.kept.passing and (item.lock is None or item.lock.until < until)
    ]


def hold(store: ObjectStore, objects: Sequence[Kept], on: bool, progress: Progress = lambda _: None) -> list[str]:
    """Put under a hold, or release; what could not be changed, and why. Raises ObjectsUnavailable."""
    return _change(lambda kept: store.legal_hold(kept.uri, on, version_id=kept.version_id), objects, progress)


def extend(store: ObjectStore, objects: Sequence[tuple[Kept, Lock]], progress: Progress = lambda _: None) -> list[str]:
    """Lock for longer; what could not be changed, and why. Raises ObjectsUnavailable."""
    locks = dict(objects)
    return _change(
        lambda kept: store.extend_lock(kept.uri, locks[kept], version_id=kept.version_id), list(locks), progress
    )


def _change(change: Callable[[Kept], None], objects: Sequence[Kept], progress: Progress) -> list[str]:
    def one(kept: Kept) -> str | None:
        try:
            change(kept)
        except ObjectsUnavailable:
            raise
        except ObjectsError as error:
            return str(error)
        return None

    return [failed for failed in _parallel(one, objects, progress) if failed is not None]


def _parallel(one: Callable[[Kept], T], objects: Sequence[Kept], progress: Progress) -> list[T]:
    done: list[T] = []
    with ThreadPoolExecutor(PARALLEL_PUTS, thread_name_prefix="locks") as pool:
        for result in pool.map(one, objects):
            done.append(result)
            progress(len(done))
    return done
