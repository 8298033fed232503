"""With a real indexer and bucket: the heads of all lanes are signed as they grow, and a witness's word is taken in."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.conformance.tlog.tessera import built_fsck, fsck_finds_in_order
from tests.system.town import Town

from ai_infra.devstack.waiting import wait_until
from ai_infra.objects.exceptions import NotFound
from ai_infra.tlog.heads import heads_origin, open_heads
from ai_infra.trust.ed25519 import new_seed
from ai_infra.trust.log_keys import audit_keys

PATIENCE = 60.0


def heads_of(town: Town) -> Any:
    origin = heads_origin(town.settings.log.origin)
    try:
        note = town.archive.get("heads", max_bytes=1 << 20)
    except NotFound:
        return None
    return open_heads(note, origin=origin, log_keys=audit_keys(town.keyring, origin)).heads


def test_the_heads_of_all_lanes_follow_their_checkpoints_and_never_go_back(town: Town) -> None:
    sizes: list[tuple[int, ...]] = []
    for model in ("heads-a", "heads-b", "heads-c"):
        story = town.story(model)
        town.await_final(*story)
        final = town.sizes()

        def covered(final: dict[int, int] = final) -> bool:
            heads = heads_of(town)
            return heads is not None and all(heads.lanes[lane].size >= size for lane, size in final.items())

        assert wait_until(covered, PATIENCE)
        sizes.append(tuple(head.size for head in heads_of(town).lanes))
    assert all(a <= b for before, after in pairwise(sizes) for a, b in zip(before, after, strict=True))
    for lane, head in enumerate(heads_of(town).lanes):
        archived = town.archived(lane)
        note = archived.note()
        if note is None:
            assert head.size == 0
            continue
        assert archived.checkpoint(note, town.keyring).checkpoint.size >= head.size
    assert town.cli("audit", "verify", "--from", "archive")[0] == 0


def test_an_indexer_that_starts_again_goes_on_from_the_heads_that_are_there(town: Town) -> None:
    before = heads_of(town)
    town.stop()
    town.start()
    story = town.story("heads-again")
    town.await_final(*story)
    lane = town.world("heads-again").lane
    assert wait_until(lambda: heads_of(town).lanes[lane].size > before.lanes[lane].size, PATIENCE)
    after = heads_of(town)
    assert after.time_ms > before.time_ms
    assert all(b.size >= a.size for a, b in zip(before.lanes, after.lanes, strict=True))


def test_lanes_copied_out_of_the_bucket_are_logs_for_tessera(town: Town, tmp_path: Path) -> None:
    fsck = built_fsck()
    code, keys = town.cli("audit", "checkpoint", "keys")
    assert code == 0, keys
    checked = 0
    for item in keys:
        prefix = f"lanes/{item['lane']}/"
        # The checkpoint first: what it covers was there before it.
        for path in [f"{prefix}checkpoint", *town.archive.list(f"{prefix}tile/")]:
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(town.archive.get(path))
        assert fsck_finds_in_order(fsck, (tmp_path / prefix).as_uri() + "/", item["vkey"], tmp_path)
        checked += 1
    assert checked > 1


def test_heads_cover_the_lanes_of_all_replicas_and_go_on_whichever_of_them_dies(town: Town) -> None:
    """Lane 0 is with one of two replicas: both are killed in turn, so its holder is among them."""

    def say(name: str) -> None:
        town.await_final(*(record for n in range(4) for record in town.story(f"heads-{name}-{n}")))
        final = town.sizes()

        def covered() -> bool:
            return all(heads_of(town).lanes[lane].size >= size for lane, size in final.items())

        assert wait_until(covered, PATIENCE), "the heads did not follow"

    town.start(1)
    say("two")
    for replica in (0, 1):
        before = heads_of(town)
        town.stack.kill_service("indexer", replica)
        say(f"without-{replica}")
        after = heads_of(town)
        assert after.time_ms > before.time_ms
        assert all(b.size >= a.size for a, b in zip(before.lanes, after.lanes, strict=True))
        town.start(replica)
    town.stack.stop_service("indexer", 1)
    assert town.cli("audit", "verify", "--from", "archive")[0] == 0


def test_an_event_is_proven_by_postgres_and_by_the_archive_alike(town: Town, tmp_path: Path) -> None:
    story = town.story("heads-proof")
    town.await_final(*story)
    event_id = dict(story[3].headers)["ce_id"].decode()
    bucket = f"s3://{town.settings.objects.archive_bucket}"
    places = set()
    for number, where in enumerate(([], ["--archive", bucket])):
        file = tmp_path / f"{number}.tlog-proof"
        code, told = town.cli("audit", "prove", event_id, "--out", str(file), *where)
        assert code == 0, told
        places.add((told["lane"], told["position"]))
        offline = {"PATH": os.environ["PATH"]}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ai_infra.cli.main", "audit", "verify", "--proof", str(file), "--json"),
                *("--roots", str(town.settings.keys.roots), "--origin", town.settings.log.origin),
            ],
            env=offline,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["event_id"] == event_id
    assert len(places) == 1


def test_a_witness_that_may_only_read_has_its_word_taken_in_by_the_operator(town: Town, tmp_path: Path) -> None:
    key = tmp_path / "witness.key"
    key.write_text(base64.b64encode(new_seed()).decode())
    key.chmod(0o600)
    mine = ["--key", f"file:{key}", "--name", "witness.example/w1"]
    vkey = town.cli("audit", "witness", *mine, "--show-vkey")[1]["vkey"]
    log_key = base64.b64encode(
        next(key.public_key for key in audit_keys(town.keyring, town.settings.log.origin, standing=True))
    ).decode()
    bucket, out = f"s3://{town.settings.objects.archive_bucket}", tmp_path / "out"
    look = [*mine, "--log", bucket, "--origin", town.settings.log.origin, "--state", str(tmp_path / "state")]
    code, saw = town.cli("audit", "witness", *look, "--log-key", log_key, "--once", "--out", str(out))
    assert code == 0, saw
    files = sorted(str(path) for path in out.glob("*.cosigned"))
    assert files
    known = {"AI_INFRA_WITNESSES": vkey, "AI_INFRA_WITNESS_QUORUM": "1"}
    stranger = {"AI_INFRA_WITNESSES": vkey.replace("w1+", "w2+")}
    assert town.cli("audit", "checkpoint", "add-cosignature", *files, env=stranger)[0] == 1
    code, taken = town.cli("audit", "checkpoint", "add-cosignature", *files, env=known)
    assert (code, [t["taken_in"] for t in taken]) == (0, [True] * len(files)), taken
    code, again = town.cli("audit", "checkpoint", "add-cosignature", *files, env=known)
    assert (code, [t["taken_in"] for t in again]) == (0, [False] * len(files))
    lane = str(taken[0]["lane"])
    code, told = town.cli("audit", "verify", "--from", "archive", "--lane", lane, env=known)
    assert (code, [w["witness"] for w in told["witnessed"]]) == (0, ["witness.example/w1"]), told
