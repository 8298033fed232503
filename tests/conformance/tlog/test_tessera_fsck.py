"""Tessera's own checker finds a lane's archive in order, from a folder and as static files, and notices what is not."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.conformance.tlog.tessera import built_fsck, fsck_finds_in_order

from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import NoteSigner
from ai_infra.trust.signers import LocalSigner

ORIGIN = "example.org/log/lanes/3"
SIZE = 66_000  # more than one full tile of level 1, and partial ones at every level


@pytest.fixture(scope="module")
def fsck() -> Path:
    return built_fsck()


def write(root: Path, sizes: tuple[int, ...]) -> tuple[Path, LocalSigner]:
    """A lane as the indexer archives it, growing through these sizes. Old partial tiles stay, as they do for a day."""
    audit, edge = LocalSigner.fresh("audit-1"), RightEdge()
    for size in sizes:
        entries = [b"entry %d " % n * (1 + n % 7) for n in range(edge.size, size)]
        growth = grow(edge, entries)
        edge = growth.edge
        for item in growth.writes:
            path = root / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(item.data)
        note = sign_checkpoint(Checkpoint(ORIGIN, edge.size, edge.root()), [NoteSigner(ORIGIN, audit)])
        (root / "checkpoint").write_bytes(note)
    return root, audit


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LocalSigner]:
    return write(tmp_path_factory.mktemp("lane"), (1, 300, 512, 1000, SIZE))


def in_order(fsck: Path, url: str, audit: LocalSigner, tmp_path: Path) -> bool:
    return fsck_finds_in_order(fsck, url, str(NoteSigner(ORIGIN, audit).verifier), tmp_path)


@pytest.fixture
def served(lane: tuple[Path, LocalSigner]) -> Iterator[str]:
    """The folder as static files."""
    handler = functools.partial(_Quiet, directory=str(lane[0]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_tessera_finds_a_copied_lane_in_order(fsck: Path, lane: tuple[Path, LocalSigner], tmp_path: Path) -> None:
    root, audit = lane
    assert in_order(fsck, root.as_uri() + "/", audit, tmp_path)


def test_tessera_finds_a_lane_that_is_served_as_static_files_in_order(
    fsck: Path, lane: tuple[Path, LocalSigner], served: str, tmp_path: Path
) -> None:
    assert in_order(fsck, served, lane[1], tmp_path)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513])
def test_tessera_finds_small_lanes_in_order(fsck: Path, tmp_path: Path, size: int) -> None:
    root, audit = write(tmp_path / "lane", (size,))
    assert in_order(fsck, root.as_uri() + "/", audit, tmp_path)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda r: _flip(r / "tile/entries/000"), id="an entry changed"),
        pytest.param(lambda r: _flip(r / "tile/0/001.p/44"), id="a partial leaf tile changed"),
        pytest.param(lambda r: _flip(r / "tile/1/000.p/1"), id="a tile above changed"),
        pytest.param(lambda r: (r / "tile/0/000").unlink(), id="a tile gone"),
        pytest.param(lambda r: _flip(r / "checkpoint"), id="the checkpoint changed"),
    ],
)
def test_tessera_and_we_agree_on_what_is_broken(fsck: Path, tmp_path: Path, break_it: Callable[[Path], None]) -> None:
    root, audit = write(tmp_path / "lane", (300,))
    assert in_order(fsck, root.as_uri() + "/", audit, tmp_path)
    break_it(root)
    assert not in_order(fsck, root.as_uri() + "/", audit, tmp_path)
