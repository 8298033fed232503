"""Rows that an older projection made are made anew beside the live ones, in a real Postgres, while events come in."""

from __future__ import annotations

import itertools
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.voices import LANES, worlds

from ai_infra.devstack import Stack
from ai_infra.events.generated import ArtifactProduced, JobStatusKind
from ai_infra.objects.reader import open_store
from ai_infra.readmodel import connect
from ai_infra.readmodel.migrations import migrate
from ai_infra.settings import Settings
from ai_infra.tlog.tiles import TILE_WIDTH, encode_bundle, entries_path
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer import appending, parity, reprojection
from ai_infra_indexer.appending import append
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.projecting import ProjectionWatch
from ai_infra_indexer.projection.version import PROJECTION, TABLES
from ai_infra_indexer.replay import Replay
from ai_infra_indexer.reprojection import Reprojected, ReprojectionFailed, projections, reproject
from ai_infra_indexer.sequence import sequence
from ai_infra_indexer.store import ensure_lane, read_head, read_known
from ai_infra_indexer.taking import load

ORIGIN = "example.org/log"


class LiveLane:
    """A lane in a database, and the one who enters what is said."""

    def __init__(self, url: str, world: Any, archive: Path) -> None:
        self.url, self.world, self.lane = url, world, world.lane
        archive.mkdir()
        self.archived = ArchivedLane(open_store(str(archive)), ORIGIN, self.lane)
        self._archive = archive / "lanes" / str(self.lane)
        self._verifier, self._numbers = world.verifier(), itertools.count()
        migrate(url)
        with connect(url, autocommit=True) as connection:
            ensure_lane(connection, self.lane, f"{ORIGIN}/lanes/{self.lane}")
        self.enter([world.keyring_record(), *world.story()])
        self.enter_jobs(500)

    def enter(self, records: list[Any]) -> None:
        events = [self._verifier.verify(record) for record in records]
        with connect(self.url, autocommit=True) as connection:
            head = read_head(connection, self.lane)
            lines, after = sequence(head, events, self.world.chain())
            append(connection, head, lines, after, known=read_known(connection, self.lane, events), offsets={})

    def enter_jobs(self, many: int) -> None:
        """Jobs and productions; among them a job whose hyperparameters no jsonb column takes."""
        said, say = [], self.world.say
        for _ in range(many // 3):
            number = next(self._numbers)
            job = f"job-{number}x"
            bad = {"hyperparams_json": "{"} if number == 7 else {}
            said.append(say("orchestrator", self.world.queued(job, **bad)))
            said.append(say("trainer", self.world.status(JobStatusKind.COMPLETED, job)))
            said.append(say("trainer", self._produced(f"art-{number % 50}x", job)))
        self.enter(said)

    def _produced(self, artifact: str, job: str) -> ArtifactProduced:
        return ArtifactProduced(
            artifact_id=artifact,
            model=self.world.model,
            job_id=job,
            artifact_uri=f"s3://models/{artifact}",
            artifact_sha256="b" * 64,
            artifact_bytes=1,
            manifest_uri=f"s3://models/{job}.json",
            manifest_sha256="c" * 64,
            provenance=f'{{"by":"{job}"}}',
            input_checksum="d" * 64,
            rules="trainer/v1",
        )

    def as_an_older_projection_had_it(self) -> None:
        """Rows that lack, rows that are too many, rows that say something else; other entries are refused."""
        with connect(self.url, autocommit=True) as connection:
            for statement in (
                "DELETE FROM productions WHERE lane = %(lane)s",
                "UPDATE artifacts SET manifest_uri = 'old' WHERE lane = %(lane)s AND status <> 'registered'",
                "INSERT INTO lineage_edges SELECT lane, 'artifact', artifact_id, 'trained_by', 'job', 'j', model, '{}',"
                " 1 FROM artifacts WHERE lane = %(lane)s",
                "UPDATE jobs SET hyperparams = '{\"depth\": 3.0}' WHERE lane = %(lane)s AND job_id = 'job-1x'",
                "UPDATE entries SET verdict = 'projected' WHERE lane = %(lane)s AND verdict = 'refused'",
                "UPDATE entries SET verdict = 'refused' WHERE lane = %(lane)s AND position = 2",
                "DELETE FROM findings WHERE lane = %(lane)s AND kind = 'projection_refused'",
                "INSERT INTO findings (lane, position, kind, about, event_id, detail) SELECT lane, position,"
                " 'projection_refused', type, event_id, 'old' FROM entries WHERE lane = %(lane)s AND position = 2",
                "UPDATE lanes SET projection = 1 WHERE lane = %(lane)s",
            ):
                assert connection.execute(statement.encode(), {"lane": self.lane}).rowcount > 0, statement

    def prune(self, before: int) -> None:
        """Entries go to the archive and out of Postgres."""
        with connect(self.url, autocommit=True) as connection:
            rows = connection.execute(
                "DELETE FROM entries WHERE lane = %s AND position < %s RETURNING position, entry", (self.lane, before)
            ).fetchall()
        raws = [bytes(raw) for _, raw in sorted(rows)]
        for index in range(0, len(raws), TILE_WIDTH):
            bundle = raws[index : index + TILE_WIDTH]
            path = self._archive / entries_path(index // TILE_WIDTH, len(bundle))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_bundle(bundle))

    def raws(self) -> list[bytes]:
        with connect(self.url, autocommit=True) as connection:
            rows = connection.execute("SELECT entry FROM entries WHERE lane = %s ORDER BY position", (self.lane,))
            return [bytes(raw) for (raw,) in rows]

    def reproject(self, **options: Any) -> Reprojected:
        return reproject(self.url, self.archived, roots=self.world.roots, lanes=LANES, **options)

    def projection(self) -> int:
        with connect(self.url, autocommit=True) as connection:
            [found] = projections(connection)
        return found.projection

    def digests(self) -> dict[str, str]:
        """All that a rebuild would give, but for the version."""
        with parity.snapshot(self.url) as snapshot:
            keys = parity.tables(snapshot)
            return {t: parity.digest(snapshot, t, keys[t], self.lane).sha256 for t in keys if t != "lanes"}


@pytest.fixture(scope="module")
def world(settings: Settings) -> Any:
    return worlds(settings.keys.dir)


@pytest.fixture
def live(database: str, world: Any, tmp_path: Path) -> LiveLane:
    return LiveLane(database, world(), tmp_path / "archive")


@pytest.fixture
def rebuilt(stack: Stack, live: LiveLane) -> Iterator[Any]:
    """Compares the live lane with one that is loaded from its entries, when it is called."""
    names: list[str] = []

    def compared() -> tuple[list[parity.Comparison], list[parity.Difference]]:
        names.append(f"again_{secrets.token_hex(6)}")
        url = stack.create_database(names[-1])
        migrate(url)
        with connect(url, autocommit=True) as connection:
            ensure_lane(connection, live.lane, f"{ORIGIN}/lanes/{live.lane}")
            head, keyrings = read_head(connection, live.lane), Keyrings(live.world.roots)
            load(connection, Replay(head, keyrings, LANES, chain_signatures=False), live.raws())
        with parity.snapshot(live.url) as ours, parity.snapshot(url) as theirs:
            return parity.compare(ours, theirs)

    yield compared
    for name in names:
        stack.drop_database(name)


def test_a_lane_of_an_older_projection_is_made_anew_while_events_are_entered(live: LiveLane, rebuilt: Any) -> None:
    live.as_an_older_projection_had_it()
    _, differences = rebuilt()
    [cause] = [d for d in differences if d.table == "lanes" and "db reproject" in d.what]
    assert f"rows were made by projection 1, the rebuilt ones by projection {PROJECTION}" in cause.what
    assert not [d for d in differences if d.table in TABLES]

    stop, failed = threading.Event(), []

    def enter() -> None:
        try:
            while not stop.is_set():
                live.enter_jobs(60)
        except BaseException as error:
            failed.append(error)
            raise

    entering = threading.Thread(target=enter)
    entering.start()
    try:
        done = live.reproject()
    finally:
        stop.set()
        entering.join(30)
    assert not failed
    assert done.entries > 509
    assert done.verdicts_changed == 2
    assert live.projection() == PROJECTION
    comparisons, differences = rebuilt()
    assert differences == []
    assert sum(c.live_rows for c in comparisons if c.table == "productions") > 166
    with connect(live.url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'reprojection%%'").fetchone()
        assert row == (0,)


def test_rows_that_are_right_are_left_alone(live: LiveLane) -> None:
    before = live.digests()
    done = live.reproject()
    assert (done.rows_changed, done.verdicts_changed) == (0, 0)
    assert live.digests() == before


def test_entries_that_were_pruned_are_read_from_the_archive(live: LiveLane) -> None:
    before = live.digests()
    live.as_an_older_projection_had_it()
    live.prune(before=300)
    live.reproject()
    after = live.digests()
    assert {t: d for t, d in after.items() if t != "entries"} == {t: d for t, d in before.items() if t != "entries"}


_KILLED = """
import os, signal, sys
from pathlib import Path
from ai_infra.objects.reader import open_store
from ai_infra.trust.keyring_document import read_roots
from ai_infra_indexer import reprojection
from ai_infra_indexer.archived import ArchivedLane

url, archive, lane, roots, where = sys.argv[1:]
setattr(reprojection._Reprojection, where, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
archived = ArchivedLane(open_store(archive), "example.org/log", int(lane))
reprojection.reproject(url, archived, roots=read_roots(Path(roots)), lanes=4)
"""


@pytest.mark.parametrize("where", ["_taken", "_mark", "_compare", "_hold", "_replace_verdicts"])
def test_killed_anywhere_it_leaves_the_live_rows_and_is_begun_anew(
    live: LiveLane, tmp_path: Path, settings: Settings, where: str
) -> None:
    right = live.digests()
    live.as_an_older_projection_had_it()
    old = live.digests()
    command = [live.url, str(tmp_path / "archive"), str(live.lane), str(settings.keys.roots), where]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *command], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert live.digests() == old
    assert live.projection() != PROJECTION
    _wait_for_the_dead(live)
    live.reproject()
    assert live.digests() == right
    assert live.projection() == PROJECTION


def _wait_for_the_dead(live: LiveLane) -> None:
    """Until Postgres has noticed that the process is gone: it holds the lane's lock so long."""
    with connect(live.url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('ai-infra reproject'), %s)", (live.lane,))


def test_one_lane_is_projected_anew_by_one_process_at_a_time(live: LiveLane) -> None:
    with connect(live.url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtext('ai-infra reproject'), %s)", (live.lane,))
        with pytest.raises(ReprojectionFailed, match="by another process"):
            live.reproject()


def test_what_another_projection_enters_meanwhile_is_not_swapped_over(
    live: LiveLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.as_an_older_projection_had_it()
    compare = reprojection._Reprojection._compare

    def older_replica_enters(self: Any) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(appending, "PROJECTION", PROJECTION - 1)
            live.enter_jobs(3)
        compare(self)

    monkeypatch.setattr(reprojection._Reprojection, "_compare", older_replica_enters)
    with pytest.raises(ReprojectionFailed, match="Upgrade that indexer"):
        live.reproject()
    monkeypatch.undo()
    assert live.projection() == 0
    live.reproject()
    assert live.projection() == PROJECTION


def test_an_entry_that_was_changed_in_the_database_is_named_and_swaps_nothing(live: LiveLane) -> None:
    live.as_an_older_projection_had_it()
    old = live.digests()
    raw = live.raws()[20]
    with connect(live.url, autocommit=True) as connection:
        connection.execute(
            "UPDATE entries SET entry = %s WHERE lane = %s AND position = 20", (raw[:-1] + b"!", live.lane)
        )
    assert decode(raw).position == 20
    with pytest.raises(ReprojectionFailed, match="position 20"):
        live.reproject()
    assert {t: d for t, d in live.digests().items() if t != "entries"} == {
        t: d for t, d in old.items() if t != "entries"
    }


def test_what_one_projection_enters_into_rows_of_another_makes_them_rows_of_none(
    live: LiveLane, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert live.projection() == PROJECTION
    live.enter_jobs(3)
    assert live.projection() == PROJECTION
    monkeypatch.setattr(appending, "PROJECTION", PROJECTION + 1)
    live.enter_jobs(3)
    assert live.projection() == 0


def test_the_indexer_projects_a_small_lane_anew_by_itself_and_tells_of_a_large_one(live: LiveLane) -> None:
    live.as_an_older_projection_had_it()

    def watch(**options: Any) -> ProjectionWatch:
        def opened() -> Any:
            return connect(live.url, autocommit=True)

        return ProjectionWatch(lambda: [live.lane], opened, lambda _: live.reproject(), **options)

    large = watch(at_once=100)
    large.look()
    said = large.check()
    assert said is not None
    assert f"the rows of lane {live.lane} are those of projection 1" in said
    assert "ai-infra db reproject" in said
    assert live.projection() == 1
    small = watch()
    small.look()
    assert small.check() is None
    assert live.projection() == PROJECTION
    large.look()
    assert large.check() is None


def test_the_command_makes_lanes_with_older_rows_anew_and_others_only_where_it_is_told_to(
    live: LiveLane, ai_infra: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AI_INFRA_DATABASE_URL", live.url)
    right = live.digests()
    live.as_an_older_projection_had_it()
    said = ai_infra("db", "reproject", "--json")
    assert said["projection"] == PROJECTION
    assert said["before"] == [{"lane": live.lane, "size": 507, "projection": 1}]
    assert [(one["lane"], one["entries"]) for one in said["lanes"]] == [(live.lane, 507)]
    assert live.digests() == right
    assert ai_infra("db", "reproject", "--json")["lanes"] == []
    with connect(live.url, autocommit=True) as connection:
        connection.execute("UPDATE jobs SET status = 'a hand did this' WHERE lane = %s", (live.lane,))
    assert ai_infra("db", "reproject", "--lane", str(live.lane), "--force", "--json")["lanes"][0]["rows_changed"] > 100
    assert live.digests() == right


def test_every_table_of_lanes_is_either_of_the_log_or_of_the_projection(live: LiveLane) -> None:
    log = {"lanes", "entries", "audit_events", "event_ids", "producer_events", "missing_causes", "findings"}
    with parity.snapshot(live.url) as snapshot:
        assert parity.tables(snapshot).keys() == log | set(TABLES)
