"""Tessera's own checker finds a lane's archive in order, from a folder and as static files, and notices what is not.

The program is `github.com/transparency-dev/tessera/cmd/fsck`, built once into the cache by the Go on this machine.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ai_infra.devstack.cache import cache_directory, cached
from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import NoteSigner
from ai_infra.trust.signers import LocalSigner

MODULE = "github.com/transparency-dev/tessera/cmd/fsck"
VERSION = "v1.0.4"
ORIGIN = "example.org/log/lanes/3"
SIZE = 66_000  # more than one full tile of level 1, and partial ones at every level


@pytest.fixture(scope="module")
def fsck() -> Path:
    name = f"tessera-fsck-{VERSION}"
    program = cache_directory() / name / "fsck"
    if not program.exists() and shutil.which("go") is None:
        pytest.skip("Tessera's checker is built with Go, which is not installed")

    def build(into: Path) -> None:
        # Modules go where Go keeps them anyway; only the program comes into our cache.
        done = subprocess.run(
            ["go", "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(into)},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        if done.returncode != 0:
            pytest.skip(f"Tessera's checker can't be built here: {done.stderr.strip()[-300:]}")

    return cached(name, build, progress=lambda _: None) / "fsck"


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
    """What Tessera's checker says of a log; it ends with 0 either way."""
    key = tmp_path / "log.vkey"
    key.write_text(str(NoteSigner(ORIGIN, audit).verifier))
    done = subprocess.run(
        [str(fsck), "-ui=false", "-N=4", f"-storage_url={url}", f"-public_key={key}", f"-origin={ORIGIN}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    good, bad = "Successfully fsck'd" in done.stderr, "fsck failed" in done.stderr
    assert good is not bad, done.stderr[-500:]
    return good


@pytest.fixture
def served(lane: tuple[Path, LocalSigner]) -> Iterator[str]:
    """The folder as static files."""
    handler = functools.partial(_Quiet, directory=str(lane[0]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
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
