"""Proofs of every shape up to a few hundred leaves, made as RFC 6962 defines them and broken in every way."""

from __future__ import annotations

import random
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.tlog.exceptions import BadProof, BadTile
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.proofs import (
    LeafHashes,
    TileHashes,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from ai_infra.tlog.tiles import tile_path
from ai_infra.tlog.tree import EMPTY_ROOT, Frontier, leaf_hash, root

LARGEST = 600
ENTRIES = [b"entry %d" % i for i in range(LARGEST)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
ROOTS = [edge.root() for edge in accumulate(LEAVES, Frontier.append, initial=Frontier())]
HASHES = LeafHashes(LEAVES)


def path_of_rfc(index: int, low: int, high: int) -> list[bytes]:
    """PATH(m, D[n]) of RFC 6962, section 2.1.1."""
    if high - low == 1:
        return []
    k = 1
    while k * 2 < high - low:
        k *= 2
    if index < k:
        return [*path_of_rfc(index, low, low + k), root(LEAVES[low + k : high])]
    return [*path_of_rfc(index - k, low + k, high), root(LEAVES[low : low + k])]


def subproof_of_rfc(old: int, low: int, high: int, complete: bool) -> list[bytes]:
    """SUBPROOF(m, D[n], b) of RFC 6962, section 2.1.2."""
    if old == high - low:
        return [] if complete else [root(LEAVES[low:high])]
    k = 1
    while k * 2 < high - low:
        k *= 2
    if old <= k:
        return [*subproof_of_rfc(old, low, low + k, complete), root(LEAVES[low + k : high])]
    return [*subproof_of_rfc(old - k, low + k, high, False), root(LEAVES[low : low + k])]


def test_inclusion_proofs_are_those_of_the_rfc_and_verify_at_every_size_up_to_600() -> None:
    dice = random.Random(6962)
    for size in range(1, LARGEST + 1):
        few = {0, size - 1, size // 2, dice.randrange(size)}
        for index in range(size) if size <= 70 else few:
            proof = inclusion_proof(index, size, HASHES)
            if size <= 70 or size % 37 == 0:
                assert proof == path_of_rfc(index, 0, size)
            verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=ROOTS[size])


def test_consistency_proofs_are_those_of_the_rfc_and_verify_at_every_size_up_to_600() -> None:
    dice = random.Random(6962)
    for new in range(1, LARGEST + 1):
        few = {1, new, new - 1 or 1, dice.randint(1, new), 1 << (new.bit_length() - 1)}
        for old in range(1, new + 1) if new <= 70 else few:
            proof = consistency_proof(old, new, HASHES)
            if new <= 70 or new % 37 == 0:
                assert proof == subproof_of_rfc(old, 0, new, True)
            verify_consistency(old_size=old, old_root=ROOTS[old], new_size=new, new_root=ROOTS[new], proof=proof)


def broken(proof: list[bytes]) -> list[list[bytes]]:
    """Every way to spoil a proof by one step."""
    ways = [[*proof, bytes(32)], [bytes(32), *proof], [*proof, b""], [*proof, b"short"]]
    for at in range(len(proof)):
        ways.append(proof[:at] + proof[at + 1 :])
        ways.append([*proof[:at], bytes([proof[at][0] ^ 1]) + proof[at][1:], *proof[at + 1 :]])
        ways.append([*proof[:at], proof[at][:-1], *proof[at + 1 :]])
        if at and proof[at] != proof[at - 1]:
            ways.append([*proof[: at - 1], proof[at], proof[at - 1], *proof[at + 1 :]])
    return ways


@settings(max_examples=examples(60))
@given(st.data())
def test_a_spoiled_inclusion_proof_never_verifies(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, LARGEST))
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, HASHES)
    right = {"leaf": LEAVES[index], "index": index, "size": size, "proof": proof, "root": ROOTS[size]}
    wrong = [{"proof": way} for way in broken(proof)]
    wrong += [{"leaf": leaf_hash(b"another")}, {"leaf": b""}, {"root": EMPTY_ROOT}, {"root": ROOTS[size][:-1]}]
    wrong += [{"index": other} for other in (-1, size, index ^ 1, index + 1) if other != index]
    wrong += [{"size": other} for other in (0, index, size * 2) if other != size]
    for change in wrong:
        with pytest.raises(BadProof):
            verify_inclusion(**(right | change))


@settings(max_examples=examples(60))
@given(st.data())
def test_a_spoiled_consistency_proof_never_verifies(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, LARGEST))
    old = data.draw(st.integers(1, new - 1))
    proof = consistency_proof(old, new, HASHES)
    right = {
        "old_size": old,
        "old_root": ROOTS[old],
        "new_size": new,
        "new_root": ROOTS[new],
        "proof": proof,
    }
    wrong = [{"proof": way} for way in [[], *broken(proof)]]
    wrong += [{"old_root": ROOTS[old - 1]}, {"new_root": ROOTS[new - 1]}, {"old_size": 0}, {"old_size": -1}]
    wrong += [
        {"old_size": new + 1},
        {"old_size": new},
        {"new_size": old},
        {"old_root": ROOTS[new], "new_root": ROOTS[old]},
    ]
    for change in wrong:
        with pytest.raises(BadProof):
            verify_consistency(**(right | change))


def test_equal_sizes_are_consistent_by_an_empty_proof_and_equal_roots_only() -> None:
    same = {"old_size": 5, "new_size": 5, "old_root": ROOTS[5], "new_root": ROOTS[5]}
    verify_consistency(**same, proof=[])
    for change in ({"proof": [ROOTS[5]]}, {"proof": [], "new_root": ROOTS[4]}):
        with pytest.raises(BadProof):
            verify_consistency(**({"proof": []} | same | change))


def test_there_is_no_proof_from_an_empty_or_larger_tree_nor_of_a_leaf_outside() -> None:
    for old, new in ((0, 3), (4, 3), (-1, 3)):
        with pytest.raises(BadProof):
            consistency_proof(old, new, HASHES)
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(BadProof):
            inclusion_proof(index, size, HASHES)


def test_proofs_from_tiles_are_those_from_leaves_and_each_tile_is_read_once() -> None:
    files, edge, reads = {}, RightEdge(), []
    for low, high in ((0, 250), (250, 600)):
        growth = grow(edge, ENTRIES[low:high])
        files |= {write.path: write.data for write in growth.writes}
        edge = growth.edge

    def read_tile(level: int, index: int, width: int) -> bytes:
        reads.append((level, index))
        return files[tile_path(level, index, width)]

    hashes = TileHashes(600, read_tile)
    for index in range(0, 600, 13):
        assert inclusion_proof(index, 600, hashes) == inclusion_proof(index, 600, HASHES)
    for old in (1, 255, 256, 257, 511, 512, 599):
        assert consistency_proof(old, 600, hashes) == consistency_proof(old, 600, HASHES)
    assert len(reads) == len(set(reads)) == 4  # three tiles of leaves, and one above


def test_a_full_tile_stands_in_for_a_partial_one_that_is_gone() -> None:
    full = b"".join(LEAVES[:256])
    hashes = TileHashes(100, lambda level, index, width: full)
    assert inclusion_proof(7, 100, hashes) == inclusion_proof(7, 100, HASHES)


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(32 * 99), bytes(32 * 101), bytes(32 * 257)])
def test_a_tile_of_another_width_than_the_size_demands_is_refused(data: bytes) -> None:
    with pytest.raises(BadTile):
        inclusion_proof(7, 100, TileHashes(100, lambda level, index, width: data))


def test_a_reader_never_asks_for_a_tile_that_does_not_exist() -> None:
    with pytest.raises(BadTile):
        TileHashes(256, lambda level, index, width: bytes(32)).tile(0, 1)
