"""A log that grows in any steps is, file by file, the log that was written at once."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.tlog.exceptions import BadFrontier, BadTile, EntryTooLarge, TlogError
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.tiles import entries_path, tile_path, tiles_for_growth, tiles_of
from ai_infra.tlog.tree import EMPTY_ROOT, Frontier, leaf_hash, root

ENTRIES = [b"entry %d" % i * (i % 5) for i in range(70_000)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]


def test_at_every_size_up_to_600_the_edge_has_the_root_and_frontier_of_the_tree() -> None:
    edge, frontier = RightEdge(), Frontier()
    for size in range(1, 601):
        growth = grow(edge, ENTRIES[size - 1 : size])
        frontier = frontier.append(LEAVES[size - 1])
        assert growth.edge.frontier() == frontier
        assert [write.path for write in growth.writes] == [tile.path for tile in tiles_for_growth(size - 1, size)]
        edge = growth.edge
    assert edge.root() == root(LEAVES[:600])


@settings(max_examples=examples(40))
@given(st.lists(st.integers(0, 700), min_size=1, max_size=6))
def test_growing_in_steps_writes_the_files_that_growing_at_once_writes(steps: list[int]) -> None:
    files: dict[str, bytes] = {}
    edge = RightEdge()
    for step in steps:
        growth = grow(edge, ENTRIES[edge.size : edge.size + step], LEAVES[edge.size : edge.size + step])
        for write in growth.writes:
            assert write.full == (".p/" not in write.path)
            assert files.get(write.path, write.data) == write.data, "a tile of one width has one content"
            files[write.path] = write.data
        edge = growth.edge
    once = grow(RightEdge(), ENTRIES[: edge.size])
    assert once.edge == edge
    final = {write.path: write.data for write in once.writes}
    assert {path: files[path] for path in final} == final
    assert set(final) == {tile.path for tile in tiles_of(edge.size)}


def test_a_log_crosses_the_second_level_of_tiles() -> None:
    edge = grow(RightEdge(), ENTRIES[:65_530]).edge
    growth = grow(edge, ENTRIES[65_530:65_540])
    assert [write.path for write in growth.writes] == [
        "tile/entries/255",
        "tile/entries/256.p/4",
        "tile/0/255",
        "tile/0/256.p/4",
        "tile/1/000",
        "tile/2/000.p/1",
    ]
    assert growth.edge.root() == root(LEAVES[:65_540])


def test_no_entries_write_nothing() -> None:
    edge = grow(RightEdge(), ENTRIES[:300]).edge
    assert grow(edge, []) == dataclasses.replace(grow(edge, []), edge=edge, writes=())


def test_an_edge_is_loaded_from_tiles_and_checked_against_a_root() -> None:
    for size in (0, 1, 255, 256, 257, 600):
        growth = grow(RightEdge(), ENTRIES[:size])
        files = {write.path: write.data for write in growth.writes}
        edge = load(size, files)
        assert edge == growth.edge
        edge.check(root(LEAVES[:size]))
        with pytest.raises(BadFrontier):
            edge.check(root(LEAVES[: size + 1]))
    assert RightEdge().check(EMPTY_ROOT) == RightEdge()


def test_an_edge_is_loaded_from_full_tiles_where_the_partial_ones_are_gone() -> None:
    files = {write.path: write.data for write in grow(RightEdge(), ENTRIES[:512]).writes}
    edge = RightEdge.load(
        300,
        lambda level, index, width: files[tile_path(0, index)] if level == 0 else files["tile/1/000.p/2"][:32],
        lambda index, width: files[entries_path(index)],
    )
    assert edge.check(root(LEAVES[:300])) == grow(RightEdge(), ENTRIES[:300]).edge


@pytest.mark.parametrize("path", ["tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88"])
def test_one_changed_byte_at_the_edge_is_found(path: str) -> None:
    files = {write.path: write.data for write in grow(RightEdge(), ENTRIES[:600]).writes}
    data = bytearray(files[path])
    data[-1] ^= 1
    with pytest.raises(TlogError):
        load(600, files | {path: bytes(data)}).check(root(LEAVES[:600]))


@pytest.mark.parametrize("path", ["tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/002.p/88"])
def test_a_truncated_tile_at_the_edge_is_refused(path: str) -> None:
    files = {write.path: write.data for write in grow(RightEdge(), ENTRIES[:600]).writes}
    with pytest.raises((BadTile, BadFrontier)):
        load(600, files | {path: files[path][:-32]})


def test_an_edge_that_does_not_fit_its_size_is_refused() -> None:
    with pytest.raises(BadFrontier):
        RightEdge(1)
    with pytest.raises(BadFrontier):
        RightEdge(1, (bytes(64),))
    with pytest.raises(BadFrontier):
        RightEdge(256, (bytes(32), bytes(32)))


def test_entries_and_their_hashes_come_in_pairs() -> None:
    with pytest.raises(BadFrontier):
        grow(RightEdge(), ENTRIES[:2], LEAVES[:1])


def test_an_entry_that_no_bundle_can_carry_is_refused() -> None:
    with pytest.raises(EntryTooLarge):
        grow(RightEdge(), [bytes(65_536)])


def load(size: int, files: dict[str, bytes]) -> RightEdge:
    return RightEdge.load(
        size,
        lambda level, index, width: files[tile_path(level, index, width)],
        lambda index, width: files[entries_path(index, width)],
    )
