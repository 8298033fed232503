"""One lane of the archive, read: a C2SP tlog-tiles log below `lanes/<p>/`, in a bucket or in a folder.

What comes from here is bytes that somebody had the right to write; nothing is believed before a checkpoint signed by
the audit key covers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from ai_infra.objects.exceptions import NotFound
from ai_infra.objects.reader import ObjectReader
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.exceptions import BadTile
from ai_infra.tlog.growth import RightEdge
from ai_infra.tlog.heads import lane_origin
from ai_infra.tlog.note import VerifierKey, parse_note
from ai_infra.tlog.tiles import (
    TILE_WIDTH,
    bundle_width,
    decode_bundle,
    entries_path,
    parse_path,
    tile_path,
    tile_width,
)
from ai_infra.trust.keyring import AUDIT, Keyring

MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (2 + 65_535)
_MAX_NOTE: Final = 1 << 20


class ArchivedLane:
    """The read side of one lane's log."""

    def __init__(self, reader: ObjectReader, log_origin: str, lane: int) -> None:
        self.lane = lane
        self.origin = lane_origin(log_origin, lane)
        self._reader = reader
        self._prefix = f"lanes/{lane}/"

    @property
    def uri(self) -> str:
        return f"{self._reader.uri.rstrip('/')}/{self._prefix}"

    def note(self) -> bytes | None:
        """The newest checkpoint's bytes, unverified; None where the lane has none."""
        try:
            return self._reader.get(f"{self._prefix}checkpoint", max_bytes=_MAX_NOTE)
        except NotFound:
            return None

    def kept(self, size: int) -> bytes:
        """The bytes of the checkpoint that was kept for good at this size, unverified. Raises NotFound."""
        return self._reader.get(f"{self._prefix}checkpoints/{size:020d}", max_bytes=_MAX_NOTE)

    def kept_sizes(self) -> list[int]:
        """The sizes at which checkpoints were kept, in order."""
        prefix = f"{self._prefix}checkpoints/"
        names = (path.removeprefix(prefix) for path in self._reader.list(prefix))
        return sorted(int(name) for name in names if name.isdecimal())

    def beside(self, path: str) -> bytes:
        """A note that lies beside the log, below the lane's prefix, unverified. Raises NotFound."""
        return self._reader.get(f"{self._prefix}{path}", max_bytes=_MAX_NOTE)

    def claimed_size(self, note: bytes) -> int:
        """The size that a note speaks of. Unverified: only good for knowing how much to read before verifying it."""
        return Checkpoint.parse(parse_note(note).text).size

    def checkpoint(self, note: bytes, keyring: Keyring, *, standing: bool = False) -> OpenedCheckpoint:
        """The checkpoint in a note, if an audit key of the keyring signed it for this lane. Raises a TlogError.

        `standing`: the keyring was entered below this checkpoint, so a key that it revokes can't have signed it.
        """
        keys = audit_keys(keyring, self.origin, standing=standing)
        return open_checkpoint(note, origin=self.origin, log_keys=keys)

    def bundle(self, index: int, width: int) -> list[bytes]:
        """`width` entries of a bundle; a fuller one is cut. Raises NotFound or BadTile."""
        entries = decode_bundle(self.read_bundle(index, width))
        return entries[:width]

    def bundles(self, start: int, size: int) -> Iterator[tuple[int, list[bytes]]]:
        """The entries from `start` up to `size`, bundle by bundle, each with the position of its first."""
        for index in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
            first = index * TILE_WIDTH
            entries = self.bundle(index, bundle_width(index, size))
            skip = max(0, start - first)
            yield first + skip, entries[skip:]

    def leaf_hashes(self, index: int, size: int) -> bytes:
        """The level 0 tile beside a bundle."""
        width = tile_width(0, index, size)
        return self.read_tile(0, index, width)[: 32 * width]

    def read_bundle(self, index: int, width: int) -> bytes:
        """Bytes of an entry bundle; where the partial one is gone, those of the full one."""
        return self._partial_or_full(entries_path(index, width), entries_path(index), MAX_BUNDLE_BYTES)

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        """Bytes of a hash tile; where the partial one is gone, those of the full one."""
        return self._partial_or_full(tile_path(level, index, width), tile_path(level, index), TILE_WIDTH * 32)

    def edge(self, size: int, root: bytes) -> RightEdge:
        """The right edge of the tree of `size` leaves, checked against its root."""
        return RightEdge.load(size, self.read_tile, self.read_bundle).check(root)

    def beyond(self, size: int) -> Iterator[tuple[int, list[bytes]]]:
        """Entries that were archived after position `size`, which no checkpoint covers yet: what a writer left that
        died between bundle and checkpoint. Each list with the position of its first entry."""
        index = size // TILE_WIDTH
        while True:
            width = TILE_WIDTH if self._reader.exists(self._prefix + entries_path(index)) else self._widest(index)
            first = index * TILE_WIDTH
            if first + width <= size:
                return
            skip = max(0, size - first)
            yield first + skip, self.bundle(index, width)[skip:]
            if width < TILE_WIDTH:
                return
            index += 1

    def reach(self) -> int:
        """How many bundles there could be, by the names that are there: what a note claims beyond is not there."""
        prefix, reach = f"{self._prefix}tile/entries/", 0
        for path in self._reader.list(prefix):
            with suppress(BadTile):
                reach = max(reach, parse_path(path.removeprefix(self._prefix)).index + 1)
        return reach

    def schema(self, sha256: str) -> bytes:
        """The archived schema of that name, unverified. Raises NotFound."""
        return self._reader.get(f"schemas/{sha256}.avsc", max_bytes=_MAX_NOTE)

    def _widest(self, index: int) -> int:
        prefix = f"{self._prefix}{entries_path(index)}.p/"
        widths = (path.removeprefix(prefix) for path in self._reader.list(prefix))
        return max((int(width) for width in widths if width.isdecimal()), default=0)

    def _partial_or_full(self, partial: str, full: str, max_bytes: int) -> bytes:
        if partial == full:
            return self._reader.get(self._prefix + full, max_bytes=max_bytes)
        try:
            return self._reader.get(self._prefix + partial, max_bytes=max_bytes)
        except NotFound:
            return self._reader.get(self._prefix + full, max_bytes=max_bytes)


def audit_keys(keyring: Keyring, origin: str, *, standing: bool = False) -> list[VerifierKey]:
    """The keys that may sign this log's checkpoints; `standing`: only those that are not revoked."""
    keys = [key for key in keyring.keys.values() if key.use == AUDIT]
    return [VerifierKey(origin, k.public_key) for k in keys if not standing or k.id not in keyring.revocations]
