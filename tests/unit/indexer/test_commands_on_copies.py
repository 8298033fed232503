"""`audit complete`, `audit replay` and `audit prove` on copies that are not the log: none is found good."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tampering.forging import Forger
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder, put

from ai_infra.cli import main as program
from ai_infra.tlog.heads import Heads, sign_heads
from ai_infra.tlog.note import NoteSigner, parse_note
from ai_infra.trust.changes import with_key, with_revocation
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyring_document import roots_text
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.cli import commands

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("copies") / "log", make_world)


@pytest.fixture
def copy(log: LogFolder, tmp_path: Path) -> Forger:
    return Forger.of(log, tmp_path / "copy")


@pytest.fixture
def run(copy: Forger, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`ai-infra audit …` on the copy; returns exit code and what it printed."""
    monkeypatch.setattr(program, "_loaded", {"indexer": commands})
    monkeypatch.setenv("AI_INFRA_LANES", str(LANES))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "roots.json").write_text(roots_text(copy.world().roots))

    def call(*arguments: Any, options: Sequence[Any] = ()) -> tuple[int, str]:
        where = options or ["--archive", copy.root, "--origin", ORIGIN, "--roots", tmp_path / "roots.json"]
        with pytest.raises(SystemExit) as ended:
            program.main(["audit", *(str(a) for a in (*arguments, *where))])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out + err

    return call


def code_of(found: tuple[int, str]) -> tuple[int, str]:
    return found[0], json.loads(found[1])["error"]["code"]


def take_checkpoints(root: Path, lanes: range = range(LANES)) -> None:
    for lane in lanes:
        (root / f"lanes/{lane}/checkpoint").unlink()


def unsigned(lane: int) -> bytes:
    """A checkpoint of no entries, which anybody can write."""
    root, junk = (base64.b64encode(b).decode() for b in (sha256(b"").digest(), b"junkjunk"))
    return f"{ORIGIN}/lanes/{lane}\n0\n{root}\n\n\N{EM DASH} x {junk}\n".encode()


def revoke_the_log_key(copy: Forger, lanes: range = range(LANES)) -> LocalSigner:
    """The lanes' newest keyring has another audit key; their checkpoints are signed by the revoked one."""
    fresh = LocalSigner.fresh("audit-2")

    def change(keyring: Keyring) -> Keyring:
        at = keyring.created_at + 1000
        key = replace(keyring.keys["audit-1"], id="audit-2", public_key=fresh.public_key, deployed_at=at)
        return replace(with_revocation(with_key(keyring, key), "audit-1", "stolen", {}, now=at), version=2)

    for lane in lanes:
        copy.next_keyring(lane, change)
    return fresh


def test_a_whole_copy_is_complete(run: Run) -> None:
    code, said = run("complete")
    assert (code, "Nothing is missing of what is counted." in said) == (0, True)


@pytest.mark.parametrize("command", ["complete", "replay"])
def test_nothing_is_said_of_a_copy_without_checkpoints(command: str, run: Run, copy: Forger) -> None:
    take_checkpoints(copy.root)
    assert code_of(run(command, "--json"))[0] == 1
    shutil.rmtree(copy.root)
    copy.root.mkdir()
    code, said = run(command)
    assert code == 1
    assert "lanes/0" in said or "lane 0" in said


@pytest.mark.parametrize("command", ["complete", "replay"])
def test_a_lane_that_the_log_does_not_have_is_not_good(command: str, run: Run) -> None:
    assert code_of(run(command, "--lane", "17", "--json")) == (1, "usage")


@pytest.mark.parametrize("command", ["complete", "replay"])
def test_a_checkpoint_of_no_entries_is_verified_as_any_other(command: str, run: Run, copy: Forger) -> None:
    for lane in range(LANES):
        put(copy.path("checkpoint", lane), unsigned(lane))
    assert run(command)[0] == 1


def test_a_checkpoint_that_is_missing_from_a_log_that_went_on_is_an_error(run: Run, copy: Forger) -> None:
    world = copy.world(2)
    world.clock += timedelta(hours=1)
    copy.append(2, world.say("orchestrator", world.promotion(promotion_id="late")))
    take_checkpoints(copy.root, range(1, 2))
    assert code_of(run("complete", "--json")) == (1, "no_checkpoint")
    assert code_of(run("complete", "--lane", "1", "--json")) == (1, "no_checkpoint")


def test_a_lane_of_a_log_that_has_just_begun_has_no_checkpoint_yet(run: Run, copy: Forger) -> None:
    take_checkpoints(copy.root, range(1, 2))
    code, said = run("complete")
    assert (code, "lane 1 has no checkpoint yet" in said) == (0, True)


@pytest.mark.parametrize(
    "command", [("complete",), ("replay",), ("prove", "--consistency", "4", "--lane", "1")], ids=lambda c: c[0]
)
def test_checkpoints_of_a_revoked_log_key_count_nowhere(command: tuple[str, ...], run: Run, copy: Forger) -> None:
    revoke_the_log_key(copy)
    assert code_of(run(*command, "--json")) == (1, "unverified_note")


@pytest.mark.parametrize("command", ["complete", "replay"])
def test_a_revocation_that_a_lane_was_kept_from_hearing_of_counts_there_too(
    command: str, run: Run, copy: Forger
) -> None:
    fresh = revoke_the_log_key(copy, range(1))
    copy.log.archive(0, copy.log.raws[0], audit=fresh)
    assert code_of(run(command, "--json")) == (1, "unverified_note")
    for lane in range(1, LANES):
        copy.log.archive(lane, copy.log.raws[lane], audit=fresh)  # that key is none of the lanes' own keyring
    assert code_of(run(command, "--json")) == (1, "unverified_note")


def withhold(copy: Forger, lane: int) -> None:
    """The second event of the lane's trainer is gone, and the log knows nothing of it."""
    records = copy.log.records[lane]
    hole = next(n for n, r in enumerate(records) if r.topic == "job.status" and dict(r.headers)["seq"] == b"1")
    copy.log.enter(lane, [*records[:hole], *records[hole + 1 :]])


def test_a_gap_in_an_idle_lane_is_withheld_once_another_lane_has_gone_on(run: Run, copy: Forger) -> None:
    withhold(copy, 1)
    copy.root.joinpath("heads").unlink()
    code, said = run("complete")
    assert (code, "open: missing so far" in said, "Nothing is missing" in said) == (0, True, False)
    world = copy.world(2)
    world.clock += timedelta(hours=20)
    copy.log.enter(2, [*copy.log.records[2], world.say("orchestrator", world.promotion(promotion_id="late"))])
    code, said = run("complete")
    assert (code, "withheld" in said) == (1, True)


def test_the_time_of_the_signed_heads_settles_a_gap_of_one_lane(run: Run, copy: Forger) -> None:
    withhold(copy, 1)
    copy.root.joinpath("heads").unlink()
    assert run("complete", "--lane", "1")[0] == 0
    heads = Heads.parse(parse_note(copy.log.heads()).text)
    later = replace(heads, time_ms=int(copy.world(1).clock.timestamp() * 1000) + 3_600_000)
    put(copy.root / "heads", sign_heads(later, [NoteSigner(heads.origin, copy.signer("audit-1"))]))
    assert run("complete", "--lane", "1")[0] == 1


@pytest.mark.parametrize("written", [b"\xff\xfe\n", b"\x1b[2J\n", "\N{CONTROL SEQUENCE INTRODUCER}2J\n".encode()])
@pytest.mark.parametrize("path", ["lanes/1/checkpoint", "heads"])
def test_what_is_no_text_is_not_printed(path: str, written: bytes, run: Run, copy: Forger) -> None:
    put(copy.root / path, written)
    where = ["--archive", copy.root, "--origin", ORIGIN]
    found = run("checkpoint", "--json", options=where)
    assert code_of(found) == (1, "malformed_note")
    assert "\x1b" not in run("checkpoint", options=where)[1]


def a_loop(place: Path) -> None:
    place.symlink_to(place.name)


def a_link_out(place: Path) -> None:
    outside = next(folder for folder in place.parents if folder.name == "copy").with_name("outside")
    outside.write_bytes(b"what nobody should read")
    place.symlink_to(outside)


@pytest.mark.parametrize("make", [a_loop, a_link_out, os.mkfifo])
def test_what_is_no_file_of_the_copy_is_an_error_of_that_object_alone(
    make: Callable[[Path], None], run: Run, copy: Forger
) -> None:
    for path in ("tile/entries/000.p/9", "checkpoint"):
        place = copy.path(path, 1)
        place.unlink()
        make(place)
        code, said = run("verify", "--json")
        assert code == 1
        told = json.loads(said)
        assert {p["lane"] for p in told["problems"]} == {1}
        assert {"missing_bundle", "no_checkpoint"} & {p["code"] for p in told["problems"]}
        assert [r["entries"] for r in told["lanes"] if r["lane"] != 1] == [300, 9, 9]
