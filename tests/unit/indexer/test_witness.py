"""A witness cosigns what continues, remembers durably, and names what it must never cosign; the log believes it."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ai_infra.objects.exceptions import BadUri, ObjectsUnavailable, TooLarge
from ai_infra.objects.reader import FolderReader, open_store
from ai_infra.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import COSIGNATURE, NoteSigner, VerifierKey
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.continuity import Continuity, continuity
from ai_infra_indexer.witness import BadMemory, Saw, Witness, put_durably

ORIGIN = "example.org/log"
LANE = f"{ORIGIN}/lanes/0"
AUDIT = LocalSigner.fresh("audit-1")
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Log:
    """A lane in a folder. Entries need not be events: a witness does not look into them."""

    def __init__(self, root: Path, kind: str = "a") -> None:
        self.root, self.kind = root, kind
        self.edge = RightEdge()

    def grow_to(self, size: int, *, kind: str | None = None, signer: LocalSigner = AUDIT) -> ArchivedLane:
        entries = [f"{kind or self.kind} {n}".encode() for n in range(self.edge.size, size)]
        growth = grow(self.edge, entries)
        self.edge = growth.edge
        for write in growth.writes:
            path = self.root / "lanes/0" / write.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write.data)
        return self.sign(Checkpoint(LANE, size, self.edge.root()), signer)

    def sign(self, checkpoint: Checkpoint, signer: LocalSigner = AUDIT) -> ArchivedLane:
        note = sign_checkpoint(checkpoint, [NoteSigner(LANE, signer)])
        (self.root / "lanes/0/checkpoint").write_bytes(note)
        return self.archived

    @property
    def archived(self) -> ArchivedLane:
        return ArchivedLane(FolderReader(self.root), ORIGIN, 0)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    (tmp_path / "log").mkdir()
    return Log(tmp_path / "log")


@pytest.fixture
def signer() -> NoteSigner:
    return NoteSigner("witness.example/w1", LocalSigner.fresh("w1"), COSIGNATURE)


@pytest.fixture
def witness(tmp_path: Path, signer: NoteSigner) -> Witness:
    return Witness(signer, [AUDIT.public_key], tmp_path / "state")


def test_what_grows_is_cosigned_and_verifies_for_everybody(log: Log, witness: Witness, signer: NoteSigner) -> None:
    (log.root / "lanes/0").mkdir(parents=True)
    assert witness.look(log.archived, NOW).saw is Saw.EMPTY
    for size in (1, 2, 255, 256, 257, 600):
        look = witness.look(log.grow_to(size), NOW)
        assert (look.saw, look.size) == (Saw.COSIGNED, size)
        note = witness.cosigned(LANE)
        assert note is not None
        opened = open_checkpoint(
            note, origin=LANE, log_keys=[VerifierKey(LANE, AUDIT.public_key)], witnesses=[signer.verifier], quorum=1
        )
        assert opened.checkpoint.size == size
        assert opened.witnessed[0].timestamp == int(NOW.timestamp())


def test_an_idle_log_is_cosigned_anew_once_an_hour(log: Log, witness: Witness) -> None:
    archived = log.grow_to(10)
    assert witness.look(archived, NOW).saw is Saw.COSIGNED
    assert witness.look(archived, NOW + timedelta(minutes=59)).saw is Saw.UNCHANGED
    assert witness.look(archived, NOW + timedelta(minutes=61)).saw is Saw.COSIGNED


def test_a_log_that_is_shown_older_is_named_and_nothing_is_cosigned(log: Log, witness: Witness) -> None:
    early = log.grow_to(100).note()
    witness.look(log.grow_to(300), NOW)
    before = witness.cosigned(LANE)
    assert early is not None
    (log.root / "lanes/0/checkpoint").write_bytes(early)
    look = witness.look(log.archived, NOW)
    assert (look.saw, look.size) == (Saw.OLDER, 300)
    (log.root / "lanes/0/checkpoint").unlink()
    assert witness.look(log.archived, NOW).saw is Saw.OLDER
    assert witness.cosigned(LANE) == before


@pytest.mark.parametrize("size", [300, 301, 512, 700])
def test_a_fork_is_named_kept_as_evidence_and_never_cosigned(
    log: Log, witness: Witness, tmp_path: Path, size: int
) -> None:
    witness.look(log.grow_to(300), NOW)
    before = witness.cosigned(LANE)
    shutil.rmtree(log.root / "lanes")
    look = witness.look(Log(log.root, "b").grow_to(size), NOW)
    assert look.saw is Saw.FORKED
    evidence = sorted(path.name for path in (tmp_path / "state").rglob("fork-*"))
    assert [name.rsplit("-", 1)[0] for name in evidence] == ["fork-seen-300", f"fork-shown-{size}"]
    for path in (tmp_path / "state").rglob("fork-*"):
        open_checkpoint(path.read_bytes(), origin=LANE, log_keys=[VerifierKey(LANE, AUDIT.public_key)])
    assert witness.cosigned(LANE) == before
    assert witness.look(log.archived, NOW + timedelta(days=1)).saw is Saw.FORKED


def test_an_archive_that_can_not_be_read_is_no_fork(log: Log, witness: Witness) -> None:
    witness.look(log.grow_to(300), NOW)
    archived = log.grow_to(700)
    for path in (log.root / "lanes/0/tile/0").rglob("*"):
        if path.is_file():
            path.write_bytes(bytes(len(path.read_bytes())))
    look = witness.look(archived, NOW)
    assert (look.saw, look.size) == (Saw.UNVERIFIED, 300)
    shutil.rmtree(log.root / "lanes/0/tile")
    assert witness.look(archived, NOW).saw is Saw.UNVERIFIED


@pytest.mark.parametrize("how", ["another key", "another lane", "no note", "a flipped byte"])
def test_a_checkpoint_that_the_log_has_not_signed_is_not_cosigned(log: Log, witness: Witness, how: str) -> None:
    log.grow_to(5)
    path = log.root / "lanes/0/checkpoint"
    if how == "another key":
        log.sign(Checkpoint(LANE, 5, log.edge.root()), LocalSigner.fresh("audit-1"))
    elif how == "another lane":
        other = f"{ORIGIN}/lanes/1"
        path.write_bytes(sign_checkpoint(Checkpoint(other, 5, log.edge.root()), [NoteSigner(other, AUDIT)]))
    elif how == "no note":
        path.write_bytes(b"\xff\xfe")
    else:
        path.write_bytes(path.read_bytes().replace(b"\n5\n", b"\n6\n"))
    look = witness.look(log.archived, NOW)
    assert (look.saw, look.size) == (Saw.UNVERIFIED, None)
    assert witness.cosigned(LANE) is None


def test_a_witness_never_begins_anew_over_a_memory_that_does_not_verify(
    log: Log, witness: Witness, tmp_path: Path
) -> None:
    archived = log.grow_to(5)
    witness.look(archived, NOW)
    [memory] = (tmp_path / "state").rglob("checkpoint")
    for broken in (b"", memory.read_bytes()[:-30], memory.read_bytes().replace(b"\n5\n", b"\n4\n")):
        memory.write_bytes(broken)
        with pytest.raises(BadMemory):
            witness.look(archived, NOW)


def test_one_memory_has_one_witness(witness: Witness) -> None:
    with witness.holding(), pytest.raises(BadMemory), witness.holding():
        pass


def test_a_crash_while_writing_leaves_the_old_file_whole(tmp_path: Path) -> None:
    """A process is ended between every two system calls that change the folder."""
    path = tmp_path / "state" / "checkpoint"
    put_durably(path, b"old")
    program = """
import os, sys
from pathlib import Path
from ai_infra_indexer.witness import put_durably

def put(left):
    def audit(event, args):
        nonlocal left
        if event in ("open", "os.rename") and str(args[0]).startswith(sys.argv[1]):
            if left == 0:
                os._exit(9)
            left -= 1
    sys.addaudithook(audit)
    put_durably(Path(sys.argv[1]) / "checkpoint", b"new")
    os._exit(0)

for calls in range(6):
    child = os.fork()
    if child == 0:
        try:
            put(calls)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, (Path(sys.argv[1]) / "checkpoint").read_text())
    if code == 0:
        break
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(path.parent)], check=True, timeout=120, capture_output=True, text=True
    )
    seen = [line.split() for line in done.stdout.splitlines()]
    assert seen[0] == ["9", "old"], done.stderr
    assert seen[-1] == ["0", "new"], done.stderr
    assert {code for code, _ in seen} == {"9", "0"}, done.stderr
    assert {data for _, data in seen} == {"old", "new"}


def test_a_log_that_is_served_as_static_files_is_witnessed_like_a_folder(log: Log, witness: Witness) -> None:
    handler = functools.partial(_Quiet, directory=str(log.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        served = ArchivedLane(open_store(address), ORIGIN, 0)
        assert witness.look(served, NOW).saw is Saw.EMPTY
        for size in (5, 300):
            log.grow_to(size)
            look = witness.look(served, NOW)
            assert (look.saw, look.size) == (Saw.COSIGNED, size)
        assert open_store(address).exists("lanes/0/checkpoint")
        assert not open_store(address).exists("lanes/1/checkpoint")
        with pytest.raises(TooLarge):
            open_store(address).get("lanes/0/checkpoint", max_bytes=10)
        with pytest.raises(BadUri):
            open_store(address).get("lanes/../../secret")
        server.shutdown()
        thread.join()
    with pytest.raises(ObjectsUnavailable):
        witness.look(served, NOW)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def test_continuity_between_any_two_sizes(log: Log) -> None:
    """Every size to 40 and around the tile's width, against the true history and against another one."""
    sizes = [*range(1, 41), 255, 256, 257, 511, 512, 513, 600]
    true: dict[int, bytes] = {}
    edge = RightEdge()
    for size in sizes:
        edge = grow(edge, [f"a {n}".encode() for n in range(edge.size, size)]).edge
        true[size] = edge.root()
    archived = log.grow_to(600)
    shown = Checkpoint(LANE, 600, true[600])
    for size in sizes:
        assert continuity(Checkpoint(LANE, size, true[size]), shown, archived.read_tile) is Continuity.CONTINUES
        wrong = Checkpoint(LANE, size, bytes(32))
        assert continuity(wrong, shown, archived.read_tile) is Continuity.FORKED
        if size < 600:
            short = Checkpoint(LANE, size, true[size])
            assert continuity(shown, short, archived.read_tile) is Continuity.OLDER
