"""RFC 6962 Merkle trees: the three hashes, and the frontier that a log needs to grow by one leaf at a time.

A frontier is the compact range [0, size): the roots of the perfect subtrees that the size's binary digits name, the
largest first. It is all a writer must keep: at most 64 hashes. This module must never guess: stored bytes that do not
fit their size are refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from ai_infra.tlog.exceptions import BadFrontier

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
MAX_SIZE: Final = (1 << 63) - 1  # sizes travel as signed 64-bit integers (Postgres bigint, Avro long)


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry), RFC 6962 section 2.1."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), RFC 6962 section 2.1. Both children are 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The tree's root over these leaf hashes (not entries), in constant memory."""
    return Frontier().extend(leaf_hashes).root()


def perfect_root(hashes: list[bytes]) -> bytes:
    """The root over a power-of-two number of sibling hashes of one height."""
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes[0]


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree of `size` leaves: one 32-byte root for each set bit of `size`, the largest first."""

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SIZE:
            raise BadFrontier(f"a tree has 0..2^63-1 leaves, not {self.size}")
        if len(self.nodes) != self.size.bit_count() or any(len(node) != HASH_BYTES for node in self.nodes):
            raise BadFrontier(
                f"the frontier of {self.size} leaves is {self.size.bit_count()} hashes of {HASH_BYTES} bytes, "
                f"not {[len(node) for node in self.nodes]}"
            )

    def append(self, leaf: bytes) -> Frontier:
        """The frontier after one more leaf hash."""
        return self.extend((leaf,))

    def extend(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes, in order. Two hashes a leaf at most, on average one."""
        size, nodes = self.size, list(self.nodes)
        for leaf in leaves:
            if len(leaf) != HASH_BYTES:
                raise BadFrontier(f"a leaf hash is {HASH_BYTES} bytes, not {len(leaf)}: pass leaf_hash(entry)")
            node, carry = leaf, size
            while carry & 1:
                node = sha256(b"\x01" + nodes.pop() + node).digest()
                carry >>= 1
            nodes.append(node)
            size += 1
        return Frontier(size, tuple(nodes))

    def root(self) -> bytes:
        """The root of the whole tree: the subtrees joined from the right."""
        if not self.nodes:
            return EMPTY_ROOT
        node = self.nodes[-1]
        for left in reversed(self.nodes[:-1]):
            node = sha256(b"\x01" + left + node).digest()
        return node

    def to_bytes(self) -> bytes:
        """u64 big-endian size, then the hashes: 8 + 32 * popcount(size) bytes."""
        return struct.pack(">Q", self.size) + b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Read what `to_bytes` wrote; anything else raises BadFrontier."""
        if len(data) < 8 or (len(data) - 8) % HASH_BYTES:
            raise BadFrontier(f"a stored frontier is 8 + 32k bytes, not {len(data)}")
        (size,) = struct.unpack_from(">Q", data)
        return cls(size, tuple(bytes(data[at : at + HASH_BYTES]) for at in range(8, len(data), HASH_BYTES)))
