"""The files of one lane's log in an archive: a C2SP tlog-tiles log below `lanes/<p>/`, in a bucket or in a folder.

Bytes that somebody had the right to write: nothing is believed before a checkpoint signed by the audit key covers it.
"""

from __future__ import annotations

from typing import Final

from ai_infra.objects.exceptions import NotFound
from ai_infra.objects.reader import ObjectReader
from ai_infra.tlog.heads import lane_origin
from ai_infra.tlog.tiles import TILE_BYTES, TILE_WIDTH, decode_bundle, entries_path, tile_path

MAX_BUNDLE_BYTES: Final = TILE_WIDTH * (2 + 65_535)
MAX_NOTE_BYTES: Final = 1 << 20  # of a signed note, whatever it is about


def note_at(reader: ObjectReader, path: str) -> bytes | None:
    """A signed note, or what is as small, unverified; None where there is none."""
    try:
        return reader.get(path, max_bytes=MAX_NOTE_BYTES)
    except NotFound:
        return None


class LaneFiles:
    """Reads them by their names."""

    def __init__(self, reader: ObjectReader, log_origin: str, lane: int) -> None:
        self.lane = lane
        self.origin = lane_origin(log_origin, lane)
        self._reader = reader
        self._prefix = f"lanes/{lane}/"

    def note(self) -> bytes | None:
        """The newest checkpoint's bytes, unverified; None where the lane has none."""
        return note_at(self._reader, f"{self._prefix}checkpoint")

    def bundle(self, index: int, width: int) -> list[bytes]:
        """`width` entries of a bundle; a fuller one is cut. Raises NotFound or BadTile."""
        entries = decode_bundle(self.read_bundle(index, width))
        return entries[:width]

    def read_bundle(self, index: int, width: int) -> bytes:
        """Bytes of an entry bundle; where the partial one is gone, those of the full one."""
        return self._partial_or_full(entries_path(index, width), entries_path(index), MAX_BUNDLE_BYTES)

    def read_tile(self, level: int, index: int, width: int) -> bytes:
        """Bytes of a hash tile; where the partial one is gone, those of the full one."""
        return self._partial_or_full(tile_path(level, index, width), tile_path(level, index), TILE_BYTES)

    def _partial_or_full(self, partial: str, full: str, max_bytes: int) -> bytes:
        if partial == full:
            return self._reader.get(self._prefix + full, max_bytes=max_bytes)
        try:
            return self._reader.get(self._prefix + partial, max_bytes=max_bytes)
        except NotFound:
            return self._reader.get(self._prefix + full, max_bytes=max_bytes)
