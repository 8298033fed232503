"""The registry from the archive alone: lanes side by side, gone on with after a kill, and as it was at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder, put
from tests.unit.indexer.voices import worlds

from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import JobStatusKind, SignerChanged
from ai_infra.objects.reader import open_store
from ai_infra.readmodel import connect
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer import parity
from ai_infra_indexer.rebuild import Rebuilt, rebuild

LONG = 3_000  # entries of lane 0: long enough to be killed in the middle


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rebuilt") / "keys"
    init_keys(directory)
    return directory


@pytest.fixture(scope="module")
def make_world(keys: Path) -> Callable[[], Any]:
    return worlds(keys)


@pytest.fixture(scope="module")
def log(make_world: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> LogFolder:
    made = LogFolder.make(tmp_path_factory.mktemp("log"), make_world)
    for lane, world in made.worlds.items():
        while len(made.records[lane]) < LONG // (1 + lane):
            said = world.status(JobStatusKind.RUNNING, attempt=len(made.records[lane]))
            made.records[lane].append(world.say("trainer", said))
        made.enter(lane, made.records[lane])
    put(made.root / "heads", made.heads())
    return made


@pytest.fixture
def databases(stack: Stack) -> Iterator[Callable[[str], str]]:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(f"rebuilt_{name}_{os.getpid()}")
        return stack.create_database(made[-1])

    yield make
    for name in made:
        stack.drop_database(name)


def rebuilt(log: LogFolder, url: str, **more: Any) -> list[Rebuilt]:
    roots = log.worlds[0].roots
    return rebuild(open_store(str(log.root)), url, log_origin=ORIGIN, lanes=LANES, roots=roots, **more)


def same(one: str, other: str) -> bool:
    with parity.snapshot(one) as left, parity.snapshot(other) as right:
        comparisons, _ = parity.compare(left, right)
        return bool(comparisons) and all(c.equal for c in comparisons)


def sizes(url: str) -> dict[int, int]:
    with connect(url, application="test", autocommit=True) as connection:
        known = connection.execute("SELECT to_regclass('lanes')").fetchone()
        return parity.sizes(connection) if known is not None and known[0] is not None else {}


def test_lanes_side_by_side_rebuild_to_what_one_after_the_other_does_and_tell_how_far_they_are(
    log: LogFolder, databases: Callable[[str], str]
) -> None:
    told: list[tuple[int, int, int]] = []
    one, other = databases("one"), databases("other")
    rebuilt(log, one)
    reopen = partial(open_store, str(log.root))
    done = rebuilt(log, other, reopen=reopen, processes=2, progress=lambda *t: told.append(t))
    assert [d.lane for d in done] == list(range(LANES))
    assert same(one, other)
    assert {t[0] for t in told[:LANES]} == set(range(LANES))  # how much there is in all is told first
    assert max(t[1] for t in told if t[0] == 0) == LONG


def test_a_rebuild_that_was_killed_goes_on_where_it_stood(
    log: LogFolder, keys: Path, stack: Stack, databases: Callable[[str], str]
) -> None:
    one, other = databases("straight"), databases("killed")
    rebuilt(log, one)
    command = [sys.executable, "-m", "ai_infra.cli.main", "rebuild", "--archive", str(log.root), "--into", other]
    command += ["--origin", ORIGIN, "--roots", str(keys / "roots.json"), "--processes", "2", "--json"]
    env = {**os.environ, **stack.env(), "AI_INFRA_LANES": str(LANES)}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as begun:
        assert wait_until(lambda: sizes(other).get(0, 0) > 0 or begun.poll() is not None, 60)
        os.kill(begun.pid, signal.SIGKILL)
    stood = sizes(other)
    assert 0 < sum(stood.values()) < sum(len(raws) for raws in log.raws.values())
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert same(one, other)
    loaded = sum(lane["loaded"] for lane in json.loads(ran.stdout))
    assert loaded <= sum(map(len, log.raws.values())) - sum(stood.values())


def test_the_registry_is_rebuilt_as_it_was_before_a_position(log: LogFolder, databases: Callable[[str], str]) -> None:
    url = databases("then")
    story = [dict(record.headers)["ce_type"].decode() for record in log.records[1]]
    before = story.index("deployment.changed")
    for size, served in ((before, 0), (before + 1, 1)):  # the second goes on with what the first has made
        rebuilt(log, url, only=[1], until={1: size})
        with connect(url, application="test", autocommit=True) as connection:
            assert parity.sizes(connection)[1] == size
            assert connection.execute("SELECT count(*) FROM deployments").fetchone() == (served,)


def test_the_past_is_rebuilt_from_a_log_whose_audit_key_is_newer_than_that(
    make_world: Callable[[], Any], databases: Callable[[str], str], tmp_path: Path
) -> None:
    log, audit = LogFolder.make(tmp_path, make_world), LocalSigner.fresh("audit-2")
    world = log.worlds[1]
    keys = {
        **world.keyring.keys,
        "audit-2": replace(world.keyring.keys["audit-1"], id="audit-2", public_key=audit.public_key),
    }
    keyring = replace(world.keyring, version=2, keys=keys)
    text = sign_keyring(keyring, [world.signers["root-1"], world.signers["root-2"]])
    digest = sha256_hex(text.encode())
    said = SignerChanged(version=2, keyring=text, keyring_sha256=digest, reason="a new audit key")
    log.enter(1, [*log.records[1], world.say("operator", said)], audit=audit)
    url = databases("newer")
    [done] = rebuilt(log, url, only=[1], until={1: 3})
    assert (done.size, done.checkpoint_size) == (3, len(log.raws[1]))
