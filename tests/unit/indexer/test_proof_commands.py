"""The commands around proofs and witnesses, on a folder: nothing is asked over the network."""

from __future__ import annotations

import base64
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ai_infra.cli import main as program
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import JobStatusKind, SignerChanged
from ai_infra.events.schemas import KNOWN
from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.heads import Heads, LaneHead, heads_origin, sign_heads
from ai_infra.tlog.note import COSIGNATURE, NoteSigner, parse_vkey
from ai_infra.tlog.proof_file import LogProof
from ai_infra.tlog.tree import EMPTY_ROOT
from ai_infra.trust.ed25519 import new_seed
from ai_infra.trust.keyring import AUDIT, Key, Revocation
from ai_infra.trust.keyring_document import roots_text, sign_keyring
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.cli import commands
from ai_infra_indexer.cosignatures import cosignature_path
from ai_infra_indexer.sequence import Head, sequence

ORIGIN = "example.org/log"
Run = Callable[..., tuple[int, Any]]


class Archive:
    """One lane of four in a folder, its roots beside it, and who may sign."""

    def __init__(self, root: Path, world: Any) -> None:
        self.root, self.world = root, world
        self.origin = f"{ORIGIN}/lanes/{world.lane}"
        self.lane = root / f"lanes/{world.lane}"
        self.roots = root / "roots.json"
        self.roots.parent.mkdir(parents=True)
        self.roots.write_text(roots_text(world.roots))
        self.records = [world.keyring_record(), *world.story()]
        self.head = Head(world.lane, self.origin)
        self.edge = RightEdge()
        self.event_ids: list[str] = []
        (root / "schemas").mkdir()
        for sha256, text in KNOWN.items():
            (root / f"schemas/{sha256}.avsc").write_text(text)
        self.grow(self.records)

    def grow(self, records: list[Any]) -> None:
        verifier = self.world.verifier()
        events = [verifier.verify(record) for record in records]
        self.event_ids += [event.id for event in events]
        lines, self.head = sequence(self.head, events, self.world.chain())
        growth = grow(self.edge, [line.raw for line in lines])
        self.edge = growth.edge
        for write in growth.writes:
            path = self.lane / write.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write.data)
        note = self.note(self.edge.size, self.edge.root())
        (self.lane / "checkpoint").write_bytes(note)
        (self.lane / "checkpoints").mkdir(exist_ok=True)
        (self.lane / f"checkpoints/{self.edge.size:020d}").write_bytes(note)

    def take_back(self, early: bytes) -> None:
        """Show the lane as it was, without the checkpoints that were kept since."""
        (self.lane / "checkpoint").write_bytes(early)
        shutil.rmtree(self.lane / "checkpoints")

    def more(self, count: int) -> None:
        say, status = self.world.say, self.world.status
        self.grow([say("trainer", status(JobStatusKind.RUNNING, attempt=n)) for n in range(2, count + 2)])

    def note(self, size: int, root: bytes) -> bytes:
        return sign_checkpoint(
            Checkpoint(self.origin, size, root), [NoteSigner(self.origin, self.world.signers["audit-1"])]
        )

    def heads(self, size: int, root: bytes, time_ms: int = 1) -> None:
        name = heads_origin(ORIGIN)
        lanes = [LaneHead(0, EMPTY_ROOT)] * 4
        lanes[self.world.lane] = LaneHead(size, root)
        note = sign_heads(Heads(name, time_ms, tuple(lanes)), [NoteSigner(name, self.world.signers["audit-1"])])
        (self.root / "heads").write_bytes(note)


@pytest.fixture
def archive(tmp_path: Path, make_world: Callable[[], Any]) -> Archive:
    return Archive(tmp_path / "archive", make_world())


@pytest.fixture
def run(archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`ai-infra audit …` in an empty folder, without a network; returns exit code and what it printed as JSON."""

    def no_network(*_: object, **__: object) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(program, "_loaded", {"indexer": commands})
    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setenv("AI_INFRA_LANES", "4")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def call(*arguments: Any) -> tuple[int, Any]:
        with pytest.raises(SystemExit) as ended:
            program.main(["audit", *(str(a) for a in arguments), "--json"])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(out or err)

    return call


def reading(archive: Archive) -> list[Any]:
    return ["--archive", archive.root, "--origin", ORIGIN, "--roots", archive.roots]


def test_an_event_is_proven_to_somebody_who_has_the_file_and_the_roots_only(archive: Archive, run: Run) -> None:
    event_id = archive.event_ids[4]
    code, told = run("prove", event_id, *reading(archive))
    assert (code, told["event_id"], told["position"]) == (0, event_id, 4)
    file = Path(told["file"])
    assert file.name == f"{event_id}.tlog-proof"
    code, found = run("verify", "--proof", file, "--roots", archive.roots)
    assert (code, found["ok"], found["principal"], found["body"]["artifact_id"]) == (0, True, "registry", "art-1")
    assert any("name is the file's own" in line for line in found["not_proven"])
    key = base64.b64encode(archive.world.signers["audit-1"].public_key).decode()
    code, found = run("verify", "--proof", file, "--roots", archive.roots, "--origin", ORIGIN, "--log-key", key)
    assert code == 0
    assert not any("name is the file's own" in line for line in found["not_proven"])


def test_a_proof_that_does_not_hold_exits_with_one_and_says_why(archive: Archive, run: Run, tmp_path: Path) -> None:
    run("prove", archive.event_ids[4], "--out", tmp_path / "proof", *reading(archive))
    data = (tmp_path / "proof").read_bytes()
    (tmp_path / "proof").write_bytes(data.replace(b"index 4", b"index 5"))
    code, told = run("verify", "--proof", tmp_path / "proof", "--roots", archive.roots)
    assert (code, told["error"]["code"]) == (1, "misplaced")
    code, told = run("verify", "--proof", tmp_path / "nothing", "--roots", archive.roots)
    assert code == 1
    (tmp_path / "proof").write_bytes(data)
    code, told = run("verify", "--proof", tmp_path / "proof", "--roots", archive.roots, "--origin", "example.org/x")
    assert (code, told["error"]["code"]) == (1, "wrong_origin")


def test_an_event_that_is_not_in_the_log_is_not_proven(archive: Archive, run: Run) -> None:
    code, told = run("prove", "018f0000-0000-7000-8000-000000000000", *reading(archive))
    assert (code, told["error"]["code"]) == (1, "not_provable")


def test_growth_is_proven_to_somebody_who_kept_an_old_checkpoint(archive: Archive, run: Run, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes((archive.lane / "checkpoint").read_bytes())
    size = archive.edge.size
    archive.more(300)
    code, told = run("prove", "--consistency", size, "--lane", archive.world.lane, *reading(archive))
    assert (code, told["new_size"]) == (0, size + 300)
    _, keys = run("checkpoint", "keys", "--lane", archive.world.lane, *reading(archive))
    key = keys[0]["vkey"]
    assert parse_vkey(key).name == archive.origin
    code, found = run("verify", "--consistency", told["file"], "--old", old, "--log-key", key)
    assert (code, found["consistent"], found["old_size"], found["new_size"]) == (0, True, size, size + 300)
    archive.more(10)
    code, told = run("prove", "--consistency", size, size + 300, "--lane", archive.world.lane, *reading(archive))
    assert (code, told["new_size"]) == (0, size + 300)
    old.write_bytes(archive.note(size, bytes(32)))
    code, found = run("verify", "--consistency", told["file"], "--old", old, "--log-key", key)
    assert (code, found["error"]["code"]) == (1, "bad_proof")
    old.write_bytes(archive.note(size, bytes(32))[:-5])
    code, found = run("verify", "--consistency", told["file"], "--old", old, "--log-key", key)
    assert code == 1


def test_a_lane_that_is_older_than_the_signed_heads_is_named(archive: Archive, run: Run) -> None:
    lane = archive.world.lane
    early = (archive.lane / "checkpoint").read_bytes()
    archive.heads(archive.edge.size, archive.edge.root())
    assert run("verify", "--lane", lane, *reading(archive))[0] == 0
    archive.more(300)
    assert run("verify", "--lane", lane, *reading(archive))[0] == 0
    archive.heads(archive.edge.size, archive.edge.root())
    archive.take_back(early)
    code, told = run("verify", "--lane", lane, *reading(archive))
    assert (code, [p["code"] for p in told["problems"]]) == (1, ["older_than_heads"])
    assert told["problems"][0]["lane"] == lane
    (archive.lane / "checkpoint").write_bytes(archive.note(archive.edge.size, archive.edge.root()))
    archive.heads(archive.edge.size - 10, bytes(32))
    assert [p["code"] for p in run("verify", "--lane", lane, *reading(archive))[1]["problems"]] == ["fork_from_heads"]
    (archive.root / "heads").write_bytes(b"heads\n")
    assert [p["code"] for p in run("verify", "--lane", lane, *reading(archive))[1]["problems"]] == ["bad_heads"]
    _, shown = run("checkpoint", *reading(archive)[:4])
    assert shown["heads"] == "heads\n"


def test_an_outside_witness_cosigns_and_the_audit_asks_for_it(
    archive: Archive, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "witness.key"
    key.write_text(base64.b64encode(new_seed()).decode())
    key.chmod(0o600)
    mine = ["--key", f"file:{key}", "--name", "witness.example/w1"]
    _, told = run("witness", *mine, "--show-vkey")
    witness = parse_vkey(told["vkey"])
    log_key = base64.b64encode(archive.world.signers["audit-1"].public_key).decode()
    look = [*mine, "--log", archive.root, "--origin", ORIGIN, "--state", tmp_path / "state", "--log-key", log_key]
    code, saw = run("witness", *look, "--once", "--out", tmp_path / "out")
    assert (code, [(s["lane"], s["saw"]) for s in saw]) == (0, [(archive.world.lane, "cosigned")])

    monkeypatch.setenv("AI_INFRA_WITNESSES", str(witness))
    monkeypatch.setenv("AI_INFRA_WITNESS_QUORUM", "1")
    lane = archive.world.lane
    code, told = run("verify", "--lane", lane, *reading(archive))
    assert (code, [p["code"] for p in told["problems"]]) == (1, ["too_few_witnesses"])
    cosigned = (tmp_path / f"out/lane-{lane}.cosigned").read_bytes()
    place = archive.lane / cosignature_path(witness)
    place.parent.mkdir()
    place.write_bytes(cosigned)
    code, told = run("verify", "--lane", lane, *reading(archive))
    assert (code, [w["witness"] for w in told["witnessed"]]) == (0, ["witness.example/w1"])
    code, told = run("prove", archive.event_ids[2], *reading(archive))
    assert (code, [w["name"] for w in told["witnesses"]]) == (0, ["witness.example/w1"])
    assert LogProof.parse(Path(told["file"]).read_bytes()).checkpoint == cosigned

    (archive.lane / "checkpoint").write_bytes(archive.note(archive.edge.size, bytes(32)))
    code, saw = run("witness", *look, "--once")
    assert (code, [s["saw"] for s in saw]) == (3, ["forked"])
    code, told = run("verify", "--lane", lane, *reading(archive))
    assert {"fork_from_witnessed", "wrong_root", "too_few_witnesses"} <= {p["code"] for p in told["problems"]}
    (archive.lane / "checkpoint").unlink()
    code, saw = run("witness", *look, "--once")
    assert (code, [s["saw"] for s in saw]) == (4, ["older"])


def test_a_lane_that_is_older_than_a_witness_saw_is_named(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = NoteSigner("witness.example/w1", LocalSigner.fresh("w1"), COSIGNATURE)
    early = (archive.lane / "checkpoint").read_bytes()
    archive.more(5)
    place = archive.lane / cosignature_path(witness.verifier)
    place.parent.mkdir()
    place.write_bytes(cosign((archive.lane / "checkpoint").read_bytes(), witness, 1_780_000_000))
    archive.take_back(early)
    monkeypatch.setenv("AI_INFRA_WITNESSES", str(witness.verifier))
    code, told = run("verify", "--lane", archive.world.lane, *reading(archive))
    assert (code, [p["code"] for p in told["problems"]]) == (1, ["older_than_witnessed"])
    place.write_bytes(place.read_bytes()[:-20])
    assert [p["code"] for p in run("verify", "--lane", archive.world.lane, *reading(archive))[1]["problems"]] == [
        "bad_cosignature"
    ]


def test_what_a_revoked_audit_key_signs_after_its_revocation_is_not_believed(archive: Archive, run: Run) -> None:
    first, signers = archive.world.keyring, archive.world.signers
    second = LocalSigner.fresh("audit-2")
    ended = Revocation("audit-1", int(archive.world.clock.timestamp() * 1000), "stolen")
    grown = replace(
        first,
        version=2,
        keys={**first.keys, "audit-2": Key("audit-2", second.public_key, "", AUDIT)},
        revocations={"audit-1": ended},
    )
    roots = [signers[name] for name in sorted(signers) if name.startswith("root-")]
    text = sign_keyring(grown, roots)
    body = SignerChanged(version=2, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason="stolen")
    record = archive.world.say("operator", body)
    archive.grow([record])
    lane = archive.world.lane
    code, told = run("verify", "--lane", lane, *reading(archive))
    assert (code, [p["code"] for p in told["problems"]]) == (1, ["bad_checkpoint"])
    assert run("prove", archive.event_ids[2], *reading(archive))[0] == 1

    head = Checkpoint(archive.origin, archive.edge.size, archive.edge.root())
    (archive.lane / "checkpoint").write_bytes(sign_checkpoint(head, [NoteSigner(archive.origin, second)]))
    code, told = run("verify", "--lane", lane, *reading(archive))
    assert (code, told["problems"]) == (0, []), told  # the kept one was signed while its key stood
    assert run("prove", archive.event_ids[2], *reading(archive))[0] == 0
    archive.heads(archive.edge.size, archive.edge.root())
    assert [p["code"] for p in run("verify", "--lane", lane, *reading(archive))[1]["problems"]] == ["bad_heads"]


@pytest.mark.parametrize(
    ("value", "quorum", "why"),
    [
        ("nonsense", "0", "AI_INFRA_WITNESSES"),
        ("log", "0", "type 0x01"),
        ("", "1", "AI_INFRA_WITNESS_QUORUM"),
    ],
)
def test_settings_of_witnesses_that_can_not_be_met_are_refused(
    archive: Archive, run: Run, monkeypatch: pytest.MonkeyPatch, value: str, quorum: str, why: str
) -> None:
    if value == "log":
        value = str(NoteSigner("example.org/log", archive.world.signers["audit-1"]).verifier)
    monkeypatch.setenv("AI_INFRA_WITNESSES", value)
    monkeypatch.setenv("AI_INFRA_WITNESS_QUORUM", quorum)
    code, told = run("verify", "--lane", archive.world.lane, *reading(archive))
    assert code == 1
    assert why in told["error"]["message"]
