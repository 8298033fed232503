"""RFC 6962 inclusion and consistency proofs: making them from stored hashes, verifying them with nothing but a root.

The verifying functions must never be given a size or root that did not come out of a verified checkpoint. The making
functions trust what they read: whoever makes a proof verifies it before handing it on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ai_infra.tlog.exceptions import BadProof, BadTile
from ai_infra.tlog.tiles import TILE_HEIGHT, TILE_WIDTH, split_hashes, tile_width
from ai_infra.tlog.tree import HASH_BYTES, node_hash, perfect_root

ReadTile = Callable[[int, int, int], bytes]
"""(level, index, width) -> the tile's bytes; where only the full tile is left, the full tile's bytes."""


class HashReader(Protocol):
    """Gives the root of a perfect subtree: MTH(D[index << height : (index + 1) << height])."""

    def __call__(self, height: int, index: int, /) -> bytes:
        """The 32-byte hash; the subtree lies wholly inside the tree."""
        ...


class LeafHashes:
    """A HashReader over leaf hashes in memory; each height is hashed once, when it is first asked for."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self._heights: list[list[bytes]] = [list(leaves)]

    def __call__(self, height: int, index: int, /) -> bytes:
        while len(self._heights) <= height:
            below = self._heights[-1]
            self._heights.append([node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])
        return self._heights[height][index]


class TileHashes:
    """A HashReader over the tiles of a tree of `size` leaves. Reads each tile at most once."""

    def __init__(self, size: int, read_tile: ReadTile) -> None:
        self._size = size
        self._read_tile = read_tile
        self._tiles: dict[tuple[int, int], list[bytes]] = {}

    def __call__(self, height: int, index: int, /) -> bytes:
        level, inside = divmod(height, TILE_HEIGHT)
        first = index << inside  # of the 2^inside neighbours at this tile level, whose root is wanted
        hashes = self.tile(level, first // TILE_WIDTH)
        start = first % TILE_WIDTH
        wanted = hashes[start : start + (1 << inside)]
        if len(wanted) != 1 << inside:
            raise BadTile(f"node {index} of height {height} is not in a tree of {self._size} leaves")
        return perfect_root(wanted)

    def tile(self, level: int, index: int) -> list[bytes]:
        """The hashes of one tile, at the width that the tree's size demands."""
        known = self._tiles.get((level, index))
        if known is not None:
            return known
        width = tile_width(level, index, self._size)
        if width == 0:
            raise BadTile(f"a tree of {self._size} leaves has no tile {index} at level {level}")
        hashes = split_hashes(self._read_tile(level, index, width))
        if len(hashes) not in (width, TILE_WIDTH):
            raise BadTile(f"tile {index} of level {level} should have {width} hashes and has {len(hashes)}")
        self._tiles[level, index] = hashes[:width]
        return self._tiles[level, index]


def inclusion_proof(index: int, size: int, hashes: HashReader) -> list[bytes]:
    """PATH(index, D[size]) of RFC 6962 section 2.1.1: from the leaf's sibling up to the root's child."""
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size} leaves")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(range_root(middle, high, hashes))
            high = middle
        else:
            proof.append(range_root(low, middle, hashes))
            low = middle
    proof.reverse()
    return proof


def consistency_proof(old_size: int, new_size: int, hashes: HashReader) -> list[bytes]:
    """PROOF(old_size, D[new_size]) of RFC 6962 section 2.1.2; empty where both sizes are equal."""
    if not 1 <= old_size <= new_size:
        raise BadProof(f"there is no consistency proof from {old_size} to {new_size} leaves: expected 1 <= old <= new")
    proof: list[bytes] = []
    low, high, wanted, complete = 0, new_size, old_size, True
    while wanted != high - low:
        middle = low + _split(high - low)
        if wanted <= middle - low:
            proof.append(range_root(middle, high, hashes))
            high = middle
        else:
            proof.append(range_root(low, middle, hashes))
            wanted -= middle - low
            low, complete = middle, False
    if not complete:
        proof.append(range_root(low, high, hashes))
    proof.reverse()
    return proof


def range_root(low: int, high: int, hashes: HashReader) -> bytes:
    """MTH(D[low:high]), where `low` is a multiple of the smallest power of two that is at least high - low."""
    width = high - low
    if width & (width - 1) == 0:
        height = width.bit_length() - 1
        return hashes(height, low >> height)
    middle = low + _split(width)
    return node_hash(range_root(low, middle, hashes), range_root(middle, high, hashes))


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise BadProof unless `leaf` (a leaf hash) is leaf `index` of the tree of `size` leaves with this root."""
    if not 0 <= index < size:
        raise BadProof(f"leaf {index} is not in a tree of {size} leaves")
    _check_hashes("leaf hash, root or proof", (leaf, root, *proof))
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    if len(proof) != inner + border:
        raise BadProof(f"leaf {index} of {size} needs a proof of {inner + border} hashes, this one has {len(proof)}")
    result = leaf
    for k, sibling in enumerate(proof):
        on_the_right = k >= inner or (index >> k) & 1
        result = node_hash(sibling, result) if on_the_right else node_hash(result, sibling)
    if result != root:
        raise BadProof(
            f"the inclusion proof of leaf {index} of {size} leads to root {result.hex()}, expected {root.hex()}"
        )


def verify_consistency(
    *, old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Raise BadProof unless the tree of `old_size` leaves with `old_root` is the beginning of the new one."""
    if not 1 <= old_size <= new_size:
        raise BadProof(f"no proof leads from {old_size} to {new_size} leaves: expected 1 <= old <= new")
    _check_hashes("root or proof", (old_root, new_root, *proof))
    if old_size == new_size:
        if proof or old_root != new_root:
            raise BadProof(f"two trees of {new_size} leaves are consistent by an empty proof and equal roots only")
        return
    if not proof:
        raise BadProof(f"an empty proof does not lead from {old_size} to {new_size} leaves")
    shift = (old_size & -old_size).bit_length() - 1  # trailing zeros: the part of the old tree that is one subtree
    inner = ((old_size - 1) ^ (new_size - 1)).bit_length()
    border = ((old_size - 1) >> inner).bit_count()
    inner -= shift
    if old_size == 1 << shift:
        seed, rest = old_root, list(proof)
    else:
        seed, rest = proof[0], list(proof[1:])
    if len(rest) != inner + border:
        raise BadProof(
            f"the proof from {old_size} to {new_size} leaves has {len(proof)} hashes, "
            f"expected {inner + border + len(proof) - len(rest)}"
        )
    mask = (old_size - 1) >> shift
    old = new = seed
    for k, sibling in enumerate(rest):
        if k >= inner or (mask >> k) & 1:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    if old != old_root or new != new_root:
        which = "old" if old != old_root else "new"
        raise BadProof(f"the consistency proof from {old_size} to {new_size} leaves does not lead to the {which} root")


def _split(width: int) -> int:
    """The largest power of two smaller than `width` (> 1)."""
    return 1 << ((width - 1).bit_length() - 1)


def _check_hashes(what: str, hashes: Sequence[bytes]) -> None:
    if any(len(item) != HASH_BYTES for item in hashes):
        raise BadProof(f"{what}: every hash is {HASH_BYTES} bytes")
