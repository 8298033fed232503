"""C2SP tlog-tiles: which tiles a tree of a given size has, where they are, and what an entry bundle is.

Tiles are of height 8: 256 hashes of 32 bytes when full. A partial tile's width is given by the tree's size alone, so
a reader always knows which width to ask for. This module must never name a zero-width tile: such a tile does not
exist.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ai_infra.tlog.exceptions import BadTile, EntryTooLarge
from ai_infra.tlog.tree import HASH_BYTES, MAX_SIZE

TILE_HEIGHT: Final = 8
TILE_WIDTH: Final = 1 << TILE_HEIGHT
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
MAX_LEVEL: Final = 63  # tlog-tiles: a level is 0..63
MAX_ENTRY_BYTES: Final = 0xFFFF  # the length prefix is 16 bits

_PATH: Final = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile (`level` 0..63) or entry bundle (`level` None) at its width; below 256 it is partial."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    def __post_init__(self) -> None:
        if self.level is not None and not 0 <= self.level <= MAX_LEVEL:
            raise BadTile(f"a tile's level is 0..{MAX_LEVEL}, not {self.level}")
        if not 0 <= self.index <= MAX_SIZE:
            raise BadTile(f"a tile's index is not negative and below 2^63, not {self.index}")
        if not 1 <= self.width <= TILE_WIDTH:
            raise BadTile(f"a tile's width is 1..{TILE_WIDTH}, not {self.width}")

    @property
    def full(self) -> bool:
        """True where the tile will never change again."""
        return self.width == TILE_WIDTH

    @property
    def path(self) -> str:
        """Path below the log's prefix, e.g. `tile/0/x001/x234/067` or `tile/entries/000.p/17`."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level is None else str(self.level)
        suffix = "" if self.full else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{suffix}"


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Path of a hash tile below the log's prefix."""
    return Tile(level, index, width).path


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """Path of an entry bundle below the log's prefix."""
    return Tile(None, index, width).path


def parse_path(path: str) -> Tile:
    """The tile that a path names. Only the one spelling that `Tile.path` writes is accepted."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise BadTile(f"expected tile/<level|entries>/<index>[.p/<width>], got {path!r}")
    level = None if match["level"] == "entries" else int(match["level"])
    index = int(match["index"].replace("x", "").replace("/", ""))
    tile = Tile(level, index, int(match["width"] or TILE_WIDTH))
    if tile.path != path:  # x000/001, .p/256: a second name for the same tile is no name
        raise BadTile(f"{path!r} is not how tile {index} of level {match['level']} is written: expected {tile.path!r}")
    return tile


def tile_width(level: int, index: int, size: int) -> int:
    """How many hashes tile (level, index) has in a tree of `size` leaves: 0 (it does not exist) to 256."""
    return max(0, min(TILE_WIDTH, (size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH))


def bundle_width(index: int, size: int) -> int:
    """How many entries bundle `index` has in a tree of `size` leaves: 0 (it does not exist) to 256."""
    return tile_width(0, index, size)


def levels_of(size: int) -> int:
    """How many levels of tiles a tree of `size` leaves has."""
    return -(-size.bit_length() // TILE_HEIGHT)


def tiles_for_growth(old_size: int, new_size: int) -> list[Tile]:
    """What must be written when a log grows: bundles first, then tiles by level, each from left to right.

    Every tile that became full, and the partial ones of the new size that differ from those of the old.
    """
    if not 0 <= old_size <= new_size <= MAX_SIZE:
        raise BadTile(f"a log only grows: from {old_size} to {new_size} it does not")
    grown = _grown(None, old_size, new_size)
    for level in range(levels_of(new_size)):
        shift = TILE_HEIGHT * level
        grown += _grown(level, old_size >> shift, new_size >> shift)
    return grown


def tiles_of(size: int) -> list[Tile]:
    """Every bundle and tile of a tree of `size` leaves."""
    return tiles_for_growth(0, size)


def _grown(level: int | None, old: int, new: int) -> list[Tile]:
    """The tiles of one level that differ between `old` and `new` hashes (or entries) at that level."""
    if old == new:
        return []
    tiles = [Tile(level, index) for index in range(old // TILE_WIDTH, new // TILE_WIDTH)]
    if new % TILE_WIDTH:
        tiles.append(Tile(level, new // TILE_WIDTH, new % TILE_WIDTH))
    return tiles


def split_hashes(data: bytes) -> list[bytes]:
    """The 32-byte hashes of a tile's bytes."""
    if len(data) % HASH_BYTES or len(data) > TILE_BYTES:
        raise BadTile(f"a tile is up to {TILE_WIDTH} hashes of {HASH_BYTES} bytes, not {len(data)} bytes")
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Each entry as u16 big-endian length and bytes, one after the other."""
    parts: list[bytes] = []
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise EntryTooLarge(
                f"a log entry has at most {MAX_ENTRY_BYTES} bytes, this one has {len(entry)}: "
                "put the payload in the object store and log its SHA-256"
            )
        parts.append(struct.pack(">H", len(entry)))
        parts.append(entry)
    return b"".join(parts)


def decode_bundle(data: bytes, width: int | None = None) -> list[bytes]:
    """The entries of a bundle. With `width`, exactly that many must be there; trailing bytes are always refused."""
    entries: list[bytes] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise BadTile(f"the entry bundle ends inside the length of entry {len(entries)}")
        length = (data[at] << 8) | data[at + 1]
        at += 2
        if at + length > len(data):
            raise BadTile(
                f"the entry bundle ends inside entry {len(entries)}: {length} bytes announced, {len(data) - at} there"
            )
        entries.append(data[at : at + length])
        at += length
        if len(entries) > TILE_WIDTH:
            raise BadTile(f"an entry bundle has at most {TILE_WIDTH} entries; bytes are left over")
    if width is not None and len(entries) != width:
        raise BadTile(f"the entry bundle should have {width} entries and has {len(entries)}")
    return entries
