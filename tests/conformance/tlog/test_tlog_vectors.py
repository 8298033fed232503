"""Our log against logs, proofs and notes that other programs made (see go/main.go and vectors.json beside this)."""

from __future__ import annotations

import json
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import open_note, parse_vkey
from ai_infra.tlog.proof_file import LogProof, verify_log_proof
from ai_infra.tlog.proofs import (
    TileHashes,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)
from ai_infra.tlog.tiles import parse_path, tile_path
from ai_infra.tlog.tree import Frontier, leaf_hash

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors.json").read_text())
LARGEST = 70_000


def entry(index: int) -> bytes:
    return b"entry %d" % index


@cache
def log() -> tuple[dict[int, bytes], dict[str, bytes]]:
    """Roots at the vectors' sizes, and every file of a log that paused at 600 entries."""
    frontier, roots = Frontier(), {}
    for size in sorted(map(int, VECTORS["roots"])):
        frontier = frontier.extend(leaf_hash(entry(i)) for i in range(frontier.size, size))
        roots[size] = frontier.root()
    files: dict[str, bytes] = {}
    edge = RightEdge()
    for size in (600, LARGEST):
        growth = grow(edge, [entry(i) for i in range(edge.size, size)])
        files |= {write.path: write.data for write in growth.writes}
        edge = growth.edge
    return roots, files


def tiles(size: int) -> TileHashes:
    files = log()[1]

    def read(level: int, index: int, width: int) -> bytes:
        return files.get(tile_path(level, index, width)) or files.get(tile_path(level, index)) or b""

    return TileHashes(size, read)


def test_roots_are_those_of_the_go_checksum_database() -> None:
    assert {str(size): root.hex() for size, root in log()[0].items()} == VECTORS["roots"]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: f"{case['index']}-of-{case['size']}")
def test_inclusion_proofs_are_equal_and_verify(case: dict[str, Any]) -> None:
    proof = [bytes.fromhex(item) for item in case["proof"]]
    if case["size"] in (600, LARGEST):
        assert inclusion_proof(case["index"], case["size"], tiles(case["size"])) == proof
    verify_inclusion(
        leaf=leaf_hash(entry(case["index"])),
        index=case["index"],
        size=case["size"],
        proof=proof,
        root=log()[0][case["size"]],
    )


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: f"{case['old']}-to-{case['new']}")
def test_consistency_proofs_are_equal_and_verify(case: dict[str, Any]) -> None:
    # x/mod writes the part that both trees share first, as RFC 6962 does.
    proof = [bytes.fromhex(item) for item in case["proof"]]
    if case["new"] in (600, LARGEST):
        assert consistency_proof(case["old"], case["new"], tiles(case["new"])) == proof
    roots = log()[0]
    verify_consistency(
        old_size=case["old"],
        old_root=roots.get(case["old"]) or Frontier().extend(leaf_hash(entry(i)) for i in range(case["old"])).root(),
        new_size=case["new"],
        new_root=roots[case["new"]],
        proof=proof,
    )


def test_tile_paths_are_those_of_the_go_checksum_database() -> None:
    for words, path in VECTORS["tile_paths"].items():
        level, index, width = map(int, words.split())
        assert tile_path(level, index, width) == path
        assert parse_path(path).index == index


def test_tiles_hold_the_same_bytes() -> None:
    files = log()[1]
    assert {path: sha256(files[path]).hexdigest() for path in VECTORS["tiles"]} == VECTORS["tiles"]


@pytest.mark.parametrize("case", VECTORS["notes"], ids=lambda case: case["what"])
def test_notes_of_others_open_or_are_rejected_as_they_should(case: dict[str, Any]) -> None:
    keys = [parse_vkey(text) for text in case["known"]]
    assert [str(key) for key in keys] == case["known"]
    if case["ok"]:
        assert len(open_note(case["note"].encode(), keys).verified) == len(keys)
    else:
        with pytest.raises(TlogError):
            open_note(case["note"].encode(), keys)


def test_a_proof_file_of_others_verifies_and_is_written_alike() -> None:
    receipt = VECTORS["receipt"]
    data = receipt["proof"].encode()
    opened = verify_log_proof(
        data,
        entry=receipt["entry"].encode(),
        origin=receipt["origin"],
        log_keys=[parse_vkey(receipt["log_key"])],
        witnesses=[parse_vkey(receipt["witness_key"])],
        quorum=1,
    )
    assert opened.checkpoint.size == 600
    assert LogProof.parse(data).to_bytes() == data
