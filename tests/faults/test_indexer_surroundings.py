"""What the indexer needs goes away, comes back, is full, or tells another time: it waits or goes on, says so on
/readyz, in `ai-infra status` and in metrics, and afterwards the log is whole.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from tests.faults.faulty_indexer import Plan, start
from tests.faults.flow import SOAK, until
from tests.system.town import FAST, Town

from ai_infra.devstack import Stack
from ai_infra.devstack.environment import service_environment
from ai_infra.devstack.ports import free_port
from ai_infra.devstack.postgres import Postgres
from ai_infra.events.event import Record
from ai_infra.events.lanes import lane_of
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.tlog.heads import Heads
from ai_infra.tlog.note import parse_note

FLAPPING_SECONDS = 180.0 if SOAK else 0.0  # and twice at least
TOLERATED, HOUR = 600, 3_600  # seconds: S3 takes requests whose clock is up to a quarter of an hour behind its own


class Said:
    """What one replica says of itself over HTTP, and what `status` makes of it."""

    def __init__(self, town: Town, url: str) -> None:
        self._town, self._url = town, url

    def ready(self) -> tuple[bool, str]:
        answer = httpx.get(f"{self._url}/readyz", timeout=10, trust_env=False)
        return answer.status_code == 200, answer.text

    def waits_for(self, what: str) -> None:
        """Until /readyz says no, and why."""
        until(
            lambda: not (said := self.ready())[0] and what in said[1], lambda: f"/readyz says {what!r}: {self.ready()}"
        )

    def is_well(self) -> None:
        until(lambda: self.ready()[0], lambda: f"/readyz says yes: {self.ready()}")

    def metric(self, name: str, **labels: str) -> float:
        text = httpx.get(f"{self._url}/metrics", timeout=10, trust_env=False).text
        samples = [s for family in text_string_to_metric_families(text) for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())

    def status(self) -> dict[str, str]:
        """What `ai-infra status` finds wrong, by subject."""
        code, told = self._town.cli("status", env={"AI_INFRA_SERVICE_URLS": f"indexer={self._url}"})
        assert code == 1, told
        return {found["subject"]: found["what"] for found in told["findings"] if found["problem"]}


@pytest.fixture(scope="module")
def town(stack: Stack, settings: Settings) -> Town:
    return Town(stack, settings)


@pytest.fixture(scope="module")
def said(town: Town) -> Iterator[Said]:
    """A running indexer."""
    town.start()
    said = Said(town, town.stack.service_url("indexer"))
    said.is_well()
    yield said
    town.stop()


@contextmanager
def away(town: Town, part: str) -> Iterator[None]:
    """The part is killed, and started again after the block, however that ends."""
    town.stack.kill(part)
    try:
        yield
    finally:
        town.stack.start(part)


def test_archive_and_postgres_come_and_go_and_what_waits_for_them_is_said(
    town: Town, said: Said, database: str
) -> None:
    names, records = town.models("flapping"), list[Record]()
    down, began = 0, time.monotonic()
    while down < 2 or time.monotonic() - began < FLAPPING_SECONDS:
        said.is_well()  # to take a lane it needs both
        with away(town, "s3"):
            records += town.story(next(names))
            said.waits_for("do not become final")
            until(lambda: said.metric("ai_infra_indexer_uncovered_seconds") > 1, "what is not final grows older")
            with away(town, "postgres"):
                records += town.story(next(names))
                said.waits_for("stands still")
                if down == 0:
                    wrong = said.status()
                    assert {"Postgres", "object store"} <= wrong.keys()
                    assert any("stands still" in what and "final" in what for what in wrong.values()), wrong
                    owned = said.metric("ai_infra_bus_owned_lanes", service="indexer")
                    assert owned < town.lanes, "a lane that has something to do can't be worked"
        records += town.story(next(names))
        down += 1
    town.await_final(*records)
    said.is_well()
    assert said.metric("ai_infra_indexer_uncovered_seconds") < 1
    town.check_everything(database)


@contextmanager
def small_disk(town: Town, size: int) -> Iterator[Path]:
    """A file system of this size that the database server may write to. Skips where none can be mounted."""
    if not (town.stack.directory / "postgres").exists() or shutil.which("mount") is None:
        pytest.skip("Postgres has its files elsewhere: no disk of it can be filled from here")
    where = Path(tempfile.mkdtemp(prefix="ai-infra-small-disk-"))
    account = Postgres(town.stack.directory, "").account
    owner = f",uid={account.uid},gid={account.gid}" if account is not None else ""
    where.chmod(0o755)
    options = f"size={size},mode=0700{owner}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], capture_output=True, text=True, check=False
    )
    try:
        if done.returncode != 0:
            pytest.skip(f"a small file system can't be mounted here, which takes root: {done.stderr.strip()}")
        yield where
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", str(where)], check=True)
        where.rmdir()


@contextmanager
def moved_to(disk: Path, url: str, table: str) -> Iterator[None]:
    """A table on that disk while the block runs."""
    move = sql.SQL("ALTER TABLE {} SET TABLESPACE {}").format
    space, moved = sql.Identifier("small_disk"), sql.Identifier(*table.split("."))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(space, sql.Literal(str(disk))))
        connection.execute(move(moved, space))
        try:
            yield
        finally:
            connection.execute(move(moved, sql.Identifier("pg_default")))
            connection.execute(sql.SQL("DROP TABLESPACE {}").format(space))


def fill(disk: Path) -> Path:
    """A file that leaves nothing of the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            try:
                while file.write(b"\0" * block) == block:
                    pass
            except OSError:
                continue
    return ballast


def test_a_lane_whose_disk_is_full_waits_and_says_so_while_the_others_go_on(
    town: Town, said: Said, database: str
) -> None:
    url, names = town.settings.database.url, town.models("full")
    full, other = next(names), next(names)
    lane = lane_of(full, town.lanes)
    town.await_final(*town.story(full))
    with psycopg.connect(url) as connection:
        query = "SELECT tableoid::regclass::text, pg_total_relation_size(tableoid) FROM entries WHERE lane = %s "
        found = connection.execute(query + "ORDER BY position DESC LIMIT 1", (lane,)).fetchone()
        assert found is not None
        table, size = found
    with small_disk(town, 2 * size + (8 << 20)) as disk, moved_to(disk, url, table):
        ballast = fill(disk)
        world = town.world(full)
        # More than what is left of pages that the table has already.
        records = [world.say("orchestrator", world.queued(f"job-{n}")) for n in range(200)]
        town.send(*records)
        said.waits_for(f"lane {lane} stands still")
        assert "No space left on device" in said.ready()[1]
        until(lambda: said.metric("ai_infra_bus_owned_lanes", service="indexer") < town.lanes, "the metric says so")
        town.await_final(*town.story(other))
        assert any("No space left on device" in what for what in said.status().values())
        ballast.unlink()
        town.await_final(*records)
    said.is_well()
    town.check_everything(database)


@pytest.fixture
def shifted(town: Town, tmp_path: Path) -> Iterator[tuple[Said, Callable[[int], None]]]:
    """An indexer whose clock can be set wrong by some seconds while it runs."""
    clock, log, port = tmp_path / "clock", tmp_path / "log", free_port(set())
    town.stop()  # the one with the right clock
    env = {name: value for name, value in town.stack.env().items() if "SIGNER" not in name}
    env = service_environment("indexer", town.stack.directory, env) | FAST | {"AI_INFRA_HTTP_PORT": str(port)}
    clock.write_text("0")
    process = start(Plan(), env, town.stack.directory, log, tmp_path / "writes", clock)
    yield Said(town, f"http://127.0.0.1:{port}"), lambda seconds: write_whole(clock, str(seconds))
    process.terminate()
    process.join(60)
    assert process.exitcode == 0, log.read_text()[-3000:]


def write_whole(path: Path, text: str) -> None:
    """So that nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_clock_that_jumps_back_changes_no_order_and_no_head_and_an_hour_is_said(
    town: Town, shifted: tuple[Said, Callable[[int], None]], database: str
) -> None:
    said, shift = shifted
    names = town.models("clock")
    town.await_final(*town.story(next(names)))
    said.is_well()
    shift(-TOLERATED)
    town.await_final(*town.story(next(names)))
    shift(-HOUR)
    waiting = town.story(next(names))
    said.waits_for("do not become final")
    assert "RequestTimeTooSkewed" in said.ready()[1]
    shift(0)
    town.await_final(*waiting)
    said.is_well()
    town.check_everything(database)
    with psycopg.connect(town.settings.database.url) as connection:
        rows = connection.execute("SELECT lane, ts FROM audit_events ORDER BY lane, position").fetchall()
    assert all(later[1] > earlier[1] for earlier, later in pairwise(rows) if earlier[0] == later[0])
    times = heads_by_age(town.settings)
    assert times == sorted(set(times))


def heads_by_age(settings: Settings) -> list[Any]:
    """(how much they cover, when they say that it was) of all heads ever signed, the smallest first."""
    with ObjectStore(settings) as store:
        versions = list(store.versions(f"s3://{settings.objects.archive_bucket}/heads"))
        notes = [store.get(version.uri, version_id=version.version_id) for version in versions]
    heads = [Heads.parse(parse_note(note).text) for note in notes]
    return [h.time_ms for h in sorted(heads, key=lambda h: sum(head.size for head in h.lanes))]
