"""The Kernel's two verifiers accept any lane of ours, with nothing but a connection string and a signers file.

The verifiers are foreign programs in other languages (`kernel_verifier.mjs`, `kernel_verifier.go`), written from the
contract alone: what they read is what a stock query gives them on `?options=-csearch_path%3Dlane_<p>`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from tests.unit.indexer.voices import LANES, worlds

from ai_infra.events.generated import JobStatusKind
from ai_infra.events.lanes import lane_of
from ai_infra.readmodel import connect, migrate
from ai_infra.trust.init import init_keys
from ai_infra_indexer.appending import append
from ai_infra_indexer.sequence import Head, sequence
from ai_infra_indexer.store import ensure_lane, read_head, read_known

HERE = Path(__file__).parent
AWKWARD = 'a<b> & "c"\u2028\u2029\\ 100% é😀\b\f\t\x7f'


@pytest.fixture
def lane(database: str, tmp_path: Path) -> tuple[str, int, list[dict[str, Any]]]:
    """(database, lane, signers): two lanes with a story each, awkward texts and keys among it."""
    directory = tmp_path / "keys"
    init_keys(directory)
    make_world = worlds(directory)
    migrate(database)
    with connect(database, autocommit=True) as connection:
        for model in ("digits", "m3"):
            world = make_world(model=model)
            records = [world.keyring_record(), *world.story()]
            records.append(world.say("trainer", world.status(JobStatusKind.FAILED, reason=AWKWARD)))
            keys = {"12": 1, "9": 2, "0": 3, "__proto__": 4, "é<": 2**60, "": -(2**63)}
            records.append(world.say("orchestrator", world.evaluated(evaluation_id="e2", metrics_e6=keys)))
            records += [world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=n)) for n in range(2, 60)]
            verifier = world.verifier()
            events = [verifier.verify(record) for record in records]
            ensure_lane(connection, world.lane, f"example.org/log/lanes/{world.lane}")
            head: Head = read_head(connection, world.lane)
            lines, after = sequence(head, events, world.chain())
            append(connection, head, lines, after, known=read_known(connection, world.lane, events), offsets={})
    return (
        database,
        lane_of("digits", LANES),
        json.loads((directory / "signers.json").read_text())["signers"],
    )


def stock_rows(url: str, lane: int, query: str) -> list[dict[str, Any]]:
    """What a stock tool reads whose connection string selects the lane."""
    separator = "&" if "?" in url else "?"
    with psycopg.connect(f"{url}{separator}options=-csearch_path%3Dlane_{lane}", row_factory=dict_row) as connection:
        rows = connection.execute(query.encode()).fetchall()
    return [{**row, "created_at": row["created_at"].isoformat(timespec="microseconds"), "ts": None} for row in rows]


def verified(program: list[str], signers: list[dict[str, Any]], rows: list[dict[str, Any]]) -> tuple[int, str]:
    given = json.dumps({"signers": signers, "rows": rows}, default=str)
    done = subprocess.run(program, input=given, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


# The payload as text: drivers hand a json column over as the text that it is, and the verifier parses it.
NEWEST = "SELECT *, payload::text AS payload FROM audit_events ORDER BY created_at DESC LIMIT {}"
OLDEST = (
    "SELECT id, event_type, payload::text AS payload, prev_hash, hash, signature, signer_id, created_at "
    "FROM audit_events ORDER BY ts"
)


@pytest.fixture(scope="session")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    if shutil.which("go") is None:
        pytest.skip("the second verifier is a Go program, and there is no Go here")
    binary = tmp_path_factory.mktemp("go") / "verifier"
    subprocess.run(["go", "build", "-o", str(binary), str(HERE / "kernel_verifier.go")], check=True, timeout=240)
    return str(binary)


@pytest.mark.skipif(shutil.which("node") is None, reason="the first verifier is a Node program, and there is no Node")
def test_the_node_verifier_accepts_a_lane_whole_and_from_the_middle(
    lane: tuple[str, int, list[dict[str, Any]]],
) -> None:
    url, number, signers = lane
    node = ["node", str(HERE / "kernel_verifier.mjs")]
    for limit in (1000, 7, 1):
        rows = stock_rows(url, number, NEWEST.format(limit))
        assert verified(node, signers, rows) == (0, str(len(rows)))
    rows = stock_rows(url, number, NEWEST.format(1000))
    assert any("%E2%80%A8" in row["payload"] for row in rows)
    rows[3]["payload"] = rows[3]["payload"].replace("digits", "digitz", 1)
    assert verified(node, signers, rows)[0] == 1


def test_the_go_verifier_accepts_a_lane_and_finds_a_changed_row(
    lane: tuple[str, int, list[dict[str, Any]]], go_verifier: str
) -> None:
    url, number, signers = lane
    rows = stock_rows(url, number, OLDEST)
    assert len(rows) > 60
    assert verified([go_verifier], signers, rows) == (0, str(len(rows)))
    pruned = rows[20:]  # what is left when the oldest have gone to the archive
    assert verified([go_verifier], signers, pruned) == (0, str(len(pruned)))
    rows[3]["payload"] = rows[3]["payload"].replace("digits", "digitz", 1)
    assert verified([go_verifier], signers, rows)[0] == 1


def test_times_increase_strictly_within_a_lane(lane: tuple[str, int, list[dict[str, Any]]]) -> None:
    url, number, _ = lane
    times = [row["created_at"] for row in stock_rows(url, number, OLDEST)]
    assert all(a < b for a, b in pairwise(times))
