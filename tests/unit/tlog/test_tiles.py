"""Names and widths of tiles, and entry bundles, as tlog-tiles says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai_infra.tlog.exceptions import BadTile, EntryTooLarge
from ai_infra.tlog.tiles import (
    Tile,
    decode_bundle,
    encode_bundle,
    entries_path,
    parse_path,
    tile_path,
    tile_width,
    tiles_for_growth,
    tiles_of,
)


def test_a_tree_of_70000_has_the_tiles_of_the_specifications_example() -> None:
    tiles = [tile for tile in tiles_of(70_000) if tile.level is not None]
    assert sum(tile.full for tile in tiles if tile.level == 0) == 273
    assert [tile.path for tile in tiles if not tile.full] == [
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]
    assert [tile.path for tile in tiles if tile.level == 1 and tile.full] == ["tile/1/000"]


def test_a_tree_of_256_has_a_full_tile_and_one_hash_above() -> None:
    assert [tile.path for tile in tiles_of(256)] == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]


def test_an_empty_tree_has_no_tiles() -> None:
    assert tiles_of(0) == []


def test_an_index_is_written_in_groups_of_three_digits() -> None:
    assert tile_path(0, 1_234_067) == "tile/0/x001/x234/067"
    assert entries_path(1_234_067, 5) == "tile/entries/x001/x234/067.p/5"


@given(st.none() | st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_every_path_reads_back_to_its_tile(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/x000/001",
        "tile/0/001/002",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/017",
        "tile/0/000.p/",
        "tile/8/0/000",
        "/tile/0/000",
        "tile/0/000/",
        "tile/0/000\n",
        "tile/entries/x1/000",
        "tile/0/٠٠٠",
        "checkpoint",
    ],
)
def test_a_second_spelling_of_a_path_is_refused(path: str) -> None:
    with pytest.raises(BadTile):
        parse_path(path)


def test_a_tile_of_no_width_does_not_exist() -> None:
    with pytest.raises(BadTile):
        Tile(0, 0, 0)
    assert tile_width(0, 1, 256) == 0
    assert tile_width(1, 0, 256) == 1
    assert tile_width(0, 1, 300) == 44


@given(st.integers(0, 200_000), st.integers(0, 70_000), st.integers(0, 70_000))
def test_growing_in_two_steps_writes_every_full_tile_once(start: int, first: int, second: int) -> None:
    middle, end = start + first, start + first + second
    once = tiles_for_growth(start, end)
    twice = tiles_for_growth(start, middle) + tiles_for_growth(middle, end)
    full = [tile for tile in twice if tile.full]
    assert len(full) == len(set(full))
    assert set(full) == {tile for tile in once if tile.full}
    # What ends partial is what the new size says, where anything came to that level at all.
    assert {tile for tile in once if not tile.full} <= {tile for tile in tiles_of(end) if not tile.full}


def test_a_log_never_shrinks() -> None:
    with pytest.raises(BadTile):
        tiles_for_growth(2, 1)


@given(st.lists(st.binary(max_size=300), max_size=256))
def test_a_bundle_reads_back_to_its_entries(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries)) == entries


def test_a_bundle_is_lengths_and_entries() -> None:
    assert encode_bundle([b"", b"ab"]) == b"\0\0\0\2ab"


def test_the_longest_entry_fits_and_one_byte_more_does_not() -> None:
    longest = bytes(65_535)
    assert decode_bundle(encode_bundle([longest])) == [longest]
    with pytest.raises(EntryTooLarge, match="65536"):
        encode_bundle([bytes(65_536)])


@pytest.mark.parametrize(
    ("data", "width"),
    [
        (b"\0", None),
        (b"\0\3ab", None),
        (b"\0\1a\0", None),
        (b"\0\1a", 2),
        (b"\0\1a\0\1b", 1),
        (b"\0\0" * 257, None),
    ],
)
def test_a_bundle_with_bytes_missing_or_left_over_is_refused(data: bytes, width: int | None) -> None:
    with pytest.raises(BadTile):
        decode_bundle(data, width)
