"""Trees against the definitions of RFC 6962, written down a second time here, and against its published vectors."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.tlog.exceptions import BadFrontier
from ai_infra.tlog.tree import EMPTY_ROOT, Frontier, leaf_hash, node_hash, root

# The inputs and roots that Certificate Transparency implementations have shared since RFC 6962.
RFC_ENTRIES = [
    bytes.fromhex(entry)
    for entry in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
RFC_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def mth(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"entry %d" % i) for i in range(count)]


def test_the_published_vectors_of_rfc_6962_hold() -> None:
    for size, expected in enumerate(RFC_ROOTS):
        assert root(map(leaf_hash, RFC_ENTRIES[:size])).hex() == expected


def test_leaf_and_node_hashes_are_in_domains_of_their_own() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)
    assert leaf_hash(b"") != EMPTY_ROOT == sha256(b"").digest()


def test_the_frontier_has_the_root_of_the_definition_at_every_size_up_to_600() -> None:
    every = leaves(600)
    frontier = Frontier()
    for size in range(601):
        assert frontier.size == size
        assert frontier.root() == mth(every[:size])
        assert Frontier.from_bytes(frontier.to_bytes()) == frontier
        if size < 600:
            frontier = frontier.append(every[size])


@given(st.lists(st.integers(0, 300), max_size=8))
def test_growing_in_any_steps_leads_to_the_same_frontier(steps: list[int]) -> None:
    every = leaves(sum(steps))
    frontier, done = Frontier(), 0
    for step in steps:
        frontier = frontier.extend(every[done : done + step])
        done += step
    assert frontier == Frontier().extend(every)


def test_a_frontier_is_never_changed_by_growing_it() -> None:
    before = Frontier().extend(leaves(5))
    before.extend(leaves(9))
    assert before == Frontier().extend(leaves(5))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data + bytes(32),
        lambda data: data[:-32],
        lambda data: (8).to_bytes(8, "big") + data[8:],
        lambda data: (1 << 63).to_bytes(8, "big") + data[8:40],
    ],
)
def test_stored_bytes_that_do_not_fit_their_size_are_refused(damage) -> None:
    data = Frontier().extend(leaves(7)).to_bytes()
    with pytest.raises(BadFrontier):
        Frontier.from_bytes(damage(data))


def test_an_entry_in_place_of_its_hash_is_refused() -> None:
    with pytest.raises(BadFrontier, match="leaf_hash"):
        Frontier().append(b"an entry")
