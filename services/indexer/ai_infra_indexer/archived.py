"""One lane of the archive, read: a C2SP tlog-tiles log below `lanes/<p>/`, in a bucket or in a folder.

What comes from here is bytes that somebody had the right to write; nothing is believed before a checkpoint signed by
the audit key covers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from ai_infra.objects.lane_files import MAX_NOTE_BYTES, LaneFiles
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.exceptions import BadTile
from ai_infra.tlog.growth import RightEdge
from ai_infra.tlog.note import parse_note
from ai_infra.tlog.tiles import TILE_WIDTH, bundle_width, entries_path, parse_path, tile_width
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys

HOLE: Final = 1_024  # bundles that may be missing in a row, each named; behind more nothing is looked at


class ArchivedLane(LaneFiles):
    """The read side of one lane's log."""

    @property
    def uri(self) -> str:
        return f"{self._reader.uri.rstrip('/')}/{self._prefix}"

    def kept(self, size: int) -> bytes:
        """The bytes of the checkpoint that was kept for good at this size, unverified. Raises NotFound."""
        return self._reader.get(f"{self._prefix}checkpoints/{size:020d}", max_bytes=MAX_NOTE_BYTES)

    def kept_sizes(self) -> list[int]:
        """The sizes at which checkpoints were kept, in order."""
        prefix = f"{self._prefix}checkpoints/"
        names = (path.removeprefix(prefix) for path in self._reader.list(prefix))
        return sorted(int(name) for name in names if name.isdecimal())

    def beside(self, path: str) -> bytes:
        """A note that lies beside the log, below the lane's prefix, unverified. Raises NotFound."""
        return self._reader.get(f"{self._prefix}{path}", max_bytes=MAX_NOTE_BYTES)

    def claimed_size(self, note: bytes) -> int:
        """The size that a note speaks of. Unverified: only good for knowing how much to read before verifying it."""
        return Checkpoint.parse(parse_note(note).text).size

    def checkpoint(self, note: bytes, keyring: Keyring, *, standing: bool = False) -> OpenedCheckpoint:
        """The checkpoint in a note, if an audit key of the keyring signed it for this lane. Raises a TlogError.

        `standing`: the keyring was entered below this checkpoint, so a key that it revokes can't have signed it.
        """
        keys = audit_keys(keyring, self.origin, standing=standing)
        return open_checkpoint(note, origin=self.origin, log_keys=keys)

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
        """How many bundles there could be, by the names that are there: what a note claims beyond is not there. Behind
        a hole of many bundles nothing is looked for: each of them would be missed by itself, and a name costs nobody
        anything."""
        prefix, indexes = f"{self._prefix}tile/entries/", set[int]()
        for path in self._reader.list(prefix):
            with suppress(BadTile):
                indexes.add(parse_path(path.removeprefix(self._prefix)).index)
        reach = 0
        for index in sorted(indexes):
            if index - reach > HOLE:
                break
            reach = index + 1
        return reach

    def schema(self, sha256: str) -> bytes:
        """The archived schema of that name, unverified. Raises NotFound."""
        return self._reader.get(f"schemas/{sha256}.avsc", max_bytes=MAX_NOTE_BYTES)

    def _widest(self, index: int) -> int:
        prefix = f"{self._prefix}{entries_path(index)}.p/"
        widths = (path.removeprefix(prefix) for path in self._reader.list(prefix))
        return max((int(width) for width in widths if width.isdecimal()), default=0)
