"""What to write when a log grows: from the right edge and new entries to tiles, bundles and the next right edge.

Names and boundaries depend on log positions only, so a repeated growth writes the same bytes to the same places. This
module must never write anything itself: it returns what is to be written, in an order in which nothing refers to what
is not there yet (the checkpoint, which refers to all of it, comes after).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ai_infra.tlog.exceptions import BadFrontier, BadTile
from ai_infra.tlog.proofs import ReadTile
from ai_infra.tlog.tiles import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_bundle,
    encode_bundle,
    levels_of,
    split_hashes,
)
from ai_infra.tlog.tree import HASH_BYTES, Frontier, leaf_hash, perfect_root

ReadBundle = Callable[[int, int], bytes]
"""(index, width) -> the bundle's bytes; where only the full bundle is left, the full bundle's bytes."""


@dataclass(frozen=True, slots=True)
class RightEdge:
    """The partial tiles of a tree: what changes when it grows, and all that growing needs.

    `hashes[l]` is the bytes of the partial tile at level l (empty where its width is zero), `bundle` those of the
    partial entry bundle. Together at most 8 KiB a level, and one bundle.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()
    bundle: bytes = b""

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != levels_of(self.size):
            raise BadFrontier(
                f"a tree of {self.size} leaves has {levels_of(max(self.size, 0))} levels, not {len(self.hashes)}"
            )
        for level, data in enumerate(self.hashes):
            width = (self.size >> (TILE_HEIGHT * level)) % TILE_WIDTH
            if len(data) != width * HASH_BYTES:
                raise BadFrontier(
                    f"the partial tile of level {level} of a tree of {self.size} leaves has {width} hashes "
                    f"of {HASH_BYTES} bytes, not {len(data)} bytes"
                )

    def frontier(self) -> Frontier:
        """The frontier of the same tree: each level's width, cut into perfect subtrees."""
        nodes: list[bytes] = []
        for data in reversed(self.hashes):
            hashes, at = split_hashes(data), 0
            for bit in reversed(range(TILE_HEIGHT)):
                if len(hashes) >> bit & 1:
                    nodes.append(perfect_root(hashes[at : at + (1 << bit)]))
                    at += 1 << bit
        return Frontier(self.size, tuple(nodes))

    def root(self) -> bytes:
        """The tree's root."""
        return self.frontier().root()

    def check(self, root: bytes) -> RightEdge:
        """This edge, where its tiles lead to `root` (of a verified checkpoint) and its entries to its level 0 tile."""
        if self.root() != root:
            raise BadFrontier(
                f"the tiles at the right edge of {self.size} leaves lead to root {self.root().hex()}, "
                f"expected {root.hex()}: they were changed, or belong to another tree"
            )
        entries = decode_bundle(self.bundle, self.size % TILE_WIDTH)
        if self.hashes and b"".join(map(leaf_hash, entries)) != self.hashes[0]:
            raise BadFrontier(f"the last entry bundle of {self.size} leaves does not hash to its level 0 tile")
        return self

    @classmethod
    def load(cls, size: int, read_tile: ReadTile, read_bundle: ReadBundle) -> RightEdge:
        """Read the edge of a tree of `size` leaves from its tiles. Unverified: call `.check(root)` on it."""
        hashes: list[bytes] = []
        for level in range(levels_of(size)):
            index, width = divmod(size >> (TILE_HEIGHT * level), TILE_WIDTH)
            data = read_tile(level, index, width) if width else b""
            if len(data) not in (width * HASH_BYTES, TILE_WIDTH * HASH_BYTES):
                raise BadTile(f"tile {Tile(level, index, width).path} has {len(data)} bytes")
            hashes.append(data[: width * HASH_BYTES])
        index, width = divmod(size, TILE_WIDTH)
        entries = decode_bundle(read_bundle(index, width)) if width else []
        if len(entries) not in (width, TILE_WIDTH):
            raise BadTile(f"bundle {Tile(None, index, width).path} has {len(entries)} entries")
        return cls(size, tuple(hashes), encode_bundle(entries[:width]))


@dataclass(frozen=True, slots=True)
class TileWrite:
    """One object to write below the log's prefix. Full ones are immutable for ever, partial ones superseded."""

    path: str
    data: bytes
    full: bool


@dataclass(frozen=True, slots=True)
class Growth:
    """The edge after growing, and what to write: bundles first, then tiles from the leaves up, then left to right."""

    edge: RightEdge
    writes: tuple[TileWrite, ...]


def grow(edge: RightEdge, entries: Sequence[bytes], leaf_hashes: Sequence[bytes] | None = None) -> Growth:
    """Append entries to the log whose right edge is `edge`.

    `leaf_hashes`, where the caller has them already, must be leaf_hash(entry) of each entry; they are not recomputed.
    Partial tiles are written for the final size only. No entries: nothing to write.
    """
    if leaf_hashes is None:
        leaf_hashes = [leaf_hash(entry) for entry in entries]
    elif len(leaf_hashes) != len(entries):
        raise BadFrontier(f"{len(entries)} entries came with {len(leaf_hashes)} leaf hashes")
    if not entries:
        return Growth(edge, ())
    writes: list[TileWrite] = []
    bundle = _grow_bundles(edge, entries, writes)
    size = edge.size + len(entries)
    hashes: list[bytes] = []
    carried: list[bytes] = list(leaf_hashes)
    for level in range(levels_of(size)):
        known = edge.hashes[level] if level < len(edge.hashes) else b""
        pending = split_hashes(known) + carried
        index = (edge.size >> (TILE_HEIGHT * level)) // TILE_WIDTH
        grown, carried = bool(carried), []
        for at in range(0, len(pending), TILE_WIDTH):
            tile = pending[at : at + TILE_WIDTH]
            full = len(tile) == TILE_WIDTH
            if full:
                carried.append(perfect_root(tile))
            if grown:
                path = Tile(level, index + at // TILE_WIDTH, len(tile)).path
                writes.append(TileWrite(path, b"".join(tile), full))
        hashes.append(b"".join(pending[len(pending) - len(pending) % TILE_WIDTH :]))
    return Growth(RightEdge(size, tuple(hashes), bundle), tuple(writes))


def _grow_bundles(edge: RightEdge, entries: Sequence[bytes], writes: list[TileWrite]) -> bytes:
    """Append the bundles to `writes`; returns the bytes of the new partial one."""
    index, width = divmod(edge.size, TILE_WIDTH)
    data, at = edge.bundle, 0
    while at < len(entries):
        taken = entries[at : at + TILE_WIDTH - width]
        data += encode_bundle(taken)
        at += len(taken)
        width += len(taken)
        tile = Tile(None, index, width)
        writes.append(TileWrite(tile.path, data, tile.full))
        if tile.full:
            index, width, data = index + 1, 0, b""
    return data
