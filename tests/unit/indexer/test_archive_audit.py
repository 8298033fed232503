"""An audit of an archive accepts what the indexer wrote, and names each manipulation of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai_infra.events.generated import JobStatusKind
from ai_infra.events.schemas import KNOWN
from ai_infra.objects.reader import FolderReader
from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import NoteSigner
from ai_infra.tlog.tiles import decode_bundle, encode_bundle
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import LaneReport, audit_archive
from ai_infra_indexer.sequence import Head, sequence

ORIGIN = "example.org/log"
ENTRIES = 300  # one full bundle and a partial one


def write_log(root: Path, world: Any, raws: list[bytes], *, audit: LocalSigner | None = None, origin: str = "") -> None:
    """A lane as the indexer archives it."""
    lane = root / f"lanes/{world.lane}"
    edge = RightEdge()
    for at in range(0, len(raws), 256):
        growth = grow(edge, raws[at : at + 256])
        edge = growth.edge
        for write in growth.writes:
            path = lane / write.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write.data)
    name = origin or f"{ORIGIN}/lanes/{world.lane}"
    note = sign_checkpoint(
        Checkpoint(name, edge.size, edge.root()), [NoteSigner(name, audit or world.signers["audit-1"])]
    )
    (lane / "checkpoint").write_bytes(note)
    (root / "schemas").mkdir(exist_ok=True)
    for sha256, text in KNOWN.items():
        (root / f"schemas/{sha256}.avsc").write_text(text)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> tuple[Path, Any, list[bytes]]:
    world = make_world()
    records = [world.keyring_record(), *world.story()]
    while len(records) < ENTRIES:
        records.append(world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=len(records))))
    verifier = world.verifier()
    lines, _ = sequence(
        Head(world.lane, f"{ORIGIN}/lanes/{world.lane}"), [verifier.verify(r) for r in records], world.chain()
    )
    root = tmp_path_factory.mktemp("log")
    raws = [line.raw for line in lines]
    write_log(root, world, raws)
    return root, world, raws


@pytest.fixture
def copy(log: tuple[Path, Any, list[bytes]], tmp_path: Path) -> Path:
    return shutil.copytree(log[0], tmp_path / "copy")


def audited(root: Path, world: Any) -> LaneReport:
    return audit_archive(ArchivedLane(FolderReader(root), ORIGIN, world.lane), world.roots, 4)


def named(report: LaneReport) -> set[tuple[int | None, str]]:
    return {(problem.position, problem.code) for problem in report.problems}


def test_what_was_written_verifies(log: tuple[Path, Any, list[bytes]]) -> None:
    root, world, _ = log
    report = audited(root, world)
    assert report.ok, report.problems
    assert (report.entries, report.checkpoint_size, report.keyring_version) == (ENTRIES, ENTRIES, 1)
    assert [r.what for r in report.registered] == ["artifact art-1", "manifest of artifact art-1"]


@pytest.mark.parametrize("position", [0, 1, 5, 200, 255, 256, 299])
def test_one_byte_of_one_entry_is_found_and_placed(
    log: tuple[Path, Any, list[bytes]], copy: Path, position: int
) -> None:
    _, world, _ = log
    path = copy / f"lanes/{world.lane}/tile/entries" / ("000" if position < 256 else f"001.p/{ENTRIES - 256}")
    entries = decode_bundle(path.read_bytes())
    entry = bytearray(entries[position % 256])
    entry[len(entry) // 2] ^= 1
    entries[position % 256] = bytes(entry)
    path.write_bytes(encode_bundle(entries))
    report = audited(copy, world)
    assert (position, "changed_entry") in named(report)
    assert {p for p, code in named(report) if code == "changed_entry"} == {position}
    # Without its keyring a lane's checkpoint cannot be judged either.
    assert (None, "wrong_root" if position else "bad_checkpoint") in named(report)
    assert len(report.problems) < 6


def lane_path(root: Path, world: Any, path: str) -> Path:
    return root / f"lanes/{world.lane}" / path


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def swap_entries(root: Path, world: Any) -> None:
    path = lane_path(root, world, "tile/entries/000")
    entries = decode_bundle(path.read_bytes())
    entries[10], entries[11] = entries[11], entries[10]
    path.write_bytes(encode_bundle(entries))


def drop_entry(root: Path, world: Any) -> None:
    path = lane_path(root, world, "tile/entries/000")
    path.write_bytes(encode_bundle([e for n, e in enumerate(decode_bundle(path.read_bytes())) if n != 10]))


def resign(root: Path, world: Any, audit: LocalSigner, *, origin: str = "", cut: int = 0) -> None:
    raws = [
        e
        for p in ("000", f"001.p/{ENTRIES - 256}")
        for e in decode_bundle(lane_path(root, world, f"tile/entries/{p}").read_bytes())
    ]
    write_log(root, world, raws[: len(raws) - cut], audit=audit, origin=origin)


def future(root: Path, world: Any) -> None:
    """A checkpoint of a size that the archive does not have."""
    name = f"{ORIGIN}/lanes/{world.lane}"
    note = sign_checkpoint(Checkpoint(name, ENTRIES + 100, bytes(32)), [NoteSigner(name, world.signers["audit-1"])])
    lane_path(root, world, "checkpoint").write_bytes(note)


def fork(root: Path, world: Any) -> None:
    """A signed checkpoint over another tree of the same size."""
    name = f"{ORIGIN}/lanes/{world.lane}"
    note = sign_checkpoint(Checkpoint(name, ENTRIES, bytes(32)), [NoteSigner(name, world.signers["audit-1"])])
    lane_path(root, world, "checkpoint").write_bytes(note)


def partial_as_full(root: Path, world: Any) -> None:
    partial = lane_path(root, world, f"tile/entries/001.p/{ENTRIES - 256}")
    lane_path(root, world, "tile/entries/000").write_bytes(partial.read_bytes())


MANIPULATIONS: dict[str, tuple[Callable[[Path, Any], Any], set[str]]] = {
    "no checkpoint": (lambda r, w: lane_path(r, w, "checkpoint").unlink(), {"no_checkpoint"}),
    "an empty checkpoint": (lambda r, w: lane_path(r, w, "checkpoint").write_bytes(b""), {"bad_checkpoint"}),
    "a byte of the checkpoint's signature": (lambda r, w: flip(lane_path(r, w, "checkpoint"), -10), {"bad_checkpoint"}),
    "a byte of the checkpoint's root": (lambda r, w: flip(lane_path(r, w, "checkpoint"), 40), {"bad_checkpoint"}),
    "a checkpoint by an unknown key": (lambda r, w: resign(r, w, LocalSigner.fresh("audit-1")), {"bad_checkpoint"}),
    "a checkpoint by a key of another use": (lambda r, w: resign(r, w, w.signers["manifest-1"]), {"bad_checkpoint"}),
    "a checkpoint of another lane": (
        lambda r, w: resign(r, w, w.signers["audit-1"], origin=f"{ORIGIN}/lanes/{w.lane + 1}"),
        {"bad_checkpoint"},
    ),
    "a checkpoint of the future": (future, {"missing_bundle", "short_bundle"}),
    "a fork of the same size": (fork, {"wrong_root"}),
    "two entries swapped": (swap_entries, {"changed_entry"}),
    "an entry dropped": (drop_entry, {"short_bundle"}),
    "a bundle gone": (lambda r, w: lane_path(r, w, "tile/entries/000").unlink(), {"missing_bundle"}),
    "a bundle cut": (
        lambda r, w: lane_path(r, w, "tile/entries/000").write_bytes(
            lane_path(r, w, "tile/entries/000").read_bytes()[:-1]
        ),
        {"bad_bundle"},
    ),
    "a bundle with more behind it": (
        lambda r, w: lane_path(r, w, "tile/entries/000").write_bytes(
            lane_path(r, w, "tile/entries/000").read_bytes() + b"\0"
        ),
        {"bad_bundle"},
    ),
    "a partial bundle as the full one": (partial_as_full, {"short_bundle"}),
    "a leaf tile gone": (lambda r, w: lane_path(r, w, "tile/0/000").unlink(), {"missing_tile"}),
    "a leaf tile changed": (lambda r, w: flip(lane_path(r, w, "tile/0/000"), 3200), {"changed_entry"}),
    "a tile above the leaves changed": (lambda r, w: flip(lane_path(r, w, "tile/1/000.p/1")), {"bad_tile"}),
}


@pytest.mark.parametrize("what", MANIPULATIONS)
def test_a_manipulation_is_found_and_named(log: tuple[Path, Any, list[bytes]], copy: Path, what: str) -> None:
    _, world, _ = log
    manipulate, codes = MANIPULATIONS[what]
    manipulate(copy, world)
    assert {code for _, code in named(audited(copy, world))} & codes, what


def test_a_log_written_anew_by_who_has_all_keys_but_the_roots_differs_in_its_head(
    log: tuple[Path, Any, list[bytes]], copy: Path
) -> None:
    """What no reader of one archive alone can see: a shorter history, validly signed. Its checkpoint is another one,
    which is what witnesses, subscribers of audit.checkpoint and Postgres hold against it."""
    root, world, _ = log
    resign(copy, world, world.signers["audit-1"], cut=20)
    report = audited(copy, world)
    assert report.ok
    assert report.root != audited(root, world).root
