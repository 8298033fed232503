"""Old rows leave a real Postgres when a real, locked bucket has them; everybody who reads the log goes on as before."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import sql
from tests.unit.indexer.log_folder import LANES, ORIGIN, model_in
from tests.unit.indexer.voices import worlds

from ai_infra.devstack import Stack
from ai_infra.events.event import Record
from ai_infra.events.generated import JobStatus, JobStatusKind
from ai_infra.objects.buckets import ensure_buckets
from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import ReadModel, connect
from ai_infra.readmodel.migrations import migrate
from ai_infra.settings import Settings
from ai_infra.tlog.growth import RightEdge
from ai_infra.tlog.tiles import entries_path
from ai_infra_indexer import pruning
from ai_infra_indexer.appending import append
from ai_infra_indexer.archive import LaneArchive
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import audit_postgres
from ai_infra_indexer.companions import archive_companions
from ai_infra_indexer.decisions import read_archived, read_postgres
from ai_infra_indexer.exceptions import IndexerError, LaneLost
from ai_infra_indexer.finality import FinalLane, note
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.history import Heard
from ai_infra_indexer.pruner import Pruner
from ai_infra_indexer.pruning import Pruned, prune
from ai_infra_indexer.publish import Position, Publisher
from ai_infra_indexer.sequence import sequence
from ai_infra_indexer.store import ensure_lane, read_head, read_known
from ai_infra_indexer.taking import take

LONG = 800  # entries of lane 0: three full bundles, and some more
FULL = 768
SOON = timedelta(hours=1)  # later than all that is said here


class Log:
    """Four lanes in a database and a bucket of their own, as the indexer writes them."""

    def __init__(self, settings: Settings, world: Callable[[], Any]) -> None:
        self.settings, self.url = settings, settings.database.url
        self.store = ObjectStore(settings)
        self.bucket = f"s3://{settings.objects.archive_bucket}"
        self.worlds = {lane: world() for lane in range(LANES)}
        self.roots = self.worlds[0].roots
        self.records: dict[int, list[Record]] = {}
        migrate(self.url)
        archive_companions(self.store, self.bucket, settings)
        for lane, world_ in self.worlds.items():
            world_.model = model_in(lane)
            with self.connect() as connection:
                ensure_lane(connection, lane, f"{ORIGIN}/lanes/{lane}")
            records = [world_.keyring_record(), *world_.story()]
            while lane == 0 and len(records) < LONG:
                records.append(world_.say("trainer", world_.status(JobStatusKind.RUNNING, attempt=len(records))))
            self.enter(lane, records)
            self.make_final(lane)

    def connect(self) -> Any:
        return connect(self.url, autocommit=True)

    def archived(self, lane: int = 0) -> ArchivedLane:
        return ArchivedLane(BucketReader(self.store, self.bucket), ORIGIN, lane)

    def archive(self, lane: int) -> LaneArchive:
        audit = self.worlds[lane].signers["audit-1"]
        return LaneArchive(self.store, self.bucket, ORIGIN, lane, lambda _: audit, retention_days=400)

    def enter(self, lane: int, records: list[Record]) -> None:
        world = self.worlds[lane]
        verifier = world.verifier()
        events = [verifier.verify(record) for record in records]
        with self.connect() as connection:
            head = read_head(connection, lane)
            lines, after = sequence(head, events, world.chain())
            append(connection, head, lines, after, known=read_known(connection, lane, events), offsets={})
        self.records.setdefault(lane, []).extend(records)

    def make_final(self, lane: int, *, published: bool = True) -> None:
        """Archived, under a checkpoint, and said."""
        archive, edge, edge_hash = self.archive(lane), RightEdge(), ""
        opened = archive.open(self.worlds[lane].keyring)
        with self.connect() as connection:
            if opened is not None:
                taken = self.take(lane)
                archive, edge, edge_hash = self.taken_by, taken.edge, taken.edge_hash
            final = FinalLane(lane, archive, edge, edge_hash, opened, Position(0), Handover(lane, ORIGIN, 1 << 20))
            final.archive_more(connection)
            note(connection, [final])
            if published:
                connection.execute("UPDATE lane_progress SET published_size = checkpoint_size WHERE lane = %s", (lane,))

    def take(self, lane: int = 0) -> Any:
        """As a replica takes it that starts."""
        self.taken_by = self.archive(lane)
        with self.connect() as connection:
            keyring = self.worlds[lane].keyring
            return take(connection, self.taken_by, lane, keyring=keyring, roots=self.roots, lanes=LANES)

    def prune(self, **options: Any) -> Pruned:
        with self.connect() as connection:
            before = datetime.now(UTC) + SOON
            return prune(connection, self.archived(), roots=self.roots, before=before, **options)

    def rows(self, lane: int = 0) -> dict[str, tuple[int, int]]:
        """Of both tables: the first position, and how many."""
        with self.connect() as connection:
            return {
                table: connection.execute(
                    f"SELECT min(position), count(*) FROM {table} WHERE lane = %s",
                    (lane,),
                ).fetchone()
                for table in ("entries", "audit_events")
            }

    def change(self, statement: str) -> None:
        with self.connect() as connection:
            assert connection.execute(statement.encode()).rowcount > 0

    def problems(self, *, archive: bool = True) -> set[tuple[str, int | None]]:
        with self.connect() as connection:
            archived = self.archived() if archive else None
            origin = self.archived().origin
            report = audit_postgres(connection, 0, origin, self.roots, LANES, archived=archived)
        return {(problem.code, problem.position) for problem in report.problems}


@pytest.fixture(scope="module")
def world(settings: Settings) -> Callable[[], Any]:
    return worlds(settings.keys.dir)


@pytest.fixture(scope="module")
def make_log(stack: Stack, world: Callable[[], Any]) -> Iterator[Callable[[], Log]]:
    made: list[tuple[Log, str]] = []

    def make() -> Log:
        name = f"pruned_{secrets.token_hex(6)}"
        own = {"AI_INFRA_DATABASE_URL": stack.create_database(name), "AI_INFRA_ARCHIVE_BUCKET": name.replace("_", "-")}
        settings = stack.settings(**own, AI_INFRA_LOG_ORIGIN=ORIGIN, AI_INFRA_LANES=LANES)
        ensure_buckets(settings)
        made.append((Log(settings, world), name))
        return made[-1][0]

    yield make
    for log, name in made:
        log.store.close()
        stack.drop_database(name)


@pytest.fixture(scope="module")
def first(make_log: Callable[[], Log]) -> Log:
    return make_log()


@pytest.fixture
def log(first: Log, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    """The first log in a database of its own; its archive is everybody's, and stays as it is."""
    name, source = f"pruned_{secrets.token_hex(6)}", first.url.rpartition("/")[2]
    with connect(stack.env()["AI_INFRA_DATABASE_URL"], autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(source)))
    monkeypatch.setattr(first, "url", f"{first.url.rpartition('/')[0]}/{name}")
    yield first
    stack.drop_database(name)


def test_a_pruned_lane_verifies_is_taken_and_grows_and_knows_what_it_has_heard(
    make_log: Callable[[], Log],
) -> None:
    log = make_log()
    with log.connect() as connection:
        counted = read_postgres(connection, log.archived(), log.roots, LANES, frozenset({JobStatus}), lambda _: None)
    done = log.prune()
    assert (done.began_at, done.entries, done.low_water) == (0, FULL, FULL)
    assert log.rows() == {"entries": (FULL, LONG - FULL), "audit_events": (FULL, LONG - FULL)}
    assert log.rows(1)["entries"][0] == 0
    assert log.problems() == log.problems(archive=False) == set()
    assert log.prune().entries == 0

    verifier = log.worlds[0].verifier()
    old = [verifier.verify(record) for record in log.records[0][1:FULL]]
    fresh = verifier.verify(log.worlds[0].say("orchestrator", log.worlds[0].queued("job-new")))
    with log.connect() as connection:
        known = read_known(connection, 0, [*old, fresh])
        replayed = read_postgres(connection, log.archived(), log.roots, LANES, frozenset({JobStatus}), lambda _: None)
        wanted = read_archived(log.archived(), log.roots, LANES, frozenset({JobStatus}), lambda _: None)
    assert {known.heard(event) for event in old} == {Heard.DUPLICATE}
    assert known.heard(fresh) is Heard.NEW
    assert [p.position for p in replayed.placed] == [p.position for p in wanted.placed]
    assert [p.position for p in replayed.placed] == [p.position for p in counted.placed]

    assert log.take().head.size == LONG
    log.enter(0, [fresh.record])
    log.make_final(0)
    assert log.take().checkpoint.checkpoint.size == LONG + 1
    assert log.problems() == set()


def test_only_what_is_old_final_and_said_is_pruned_and_a_run_that_was_stopped_is_gone_on_with(
    make_log: Callable[[], Log],
) -> None:
    log = make_log()
    with log.connect() as connection:
        early = connection.execute("SELECT ts FROM audit_events WHERE lane = 0 AND position = 300").fetchone()[0]
        assert prune(connection, log.archived(), roots=log.roots, before=early).low_water == 256
        connection.execute("UPDATE lane_progress SET published_size = 600 WHERE lane = 0")
    assert log.prune().low_water == 512
    log.change("UPDATE lane_progress SET published_size = checkpoint_size WHERE lane = 0")
    told: list[tuple[int, int]] = []
    assert log.prune(progress=lambda *t: told.append(t)).low_water == FULL
    assert told == [(256, 256)]

    # Three more bundles and the last entry of a full one: that stays, whatever its age.
    say, status = log.worlds[0].say, log.worlds[0].status
    more = [say("trainer", status(JobStatusKind.RUNNING, attempt=LONG + n)) for n in range(2048 - LONG)]
    log.enter(0, more)
    assert log.prune().entries == 0
    log.make_final(0)
    stopped = log.prune(pause=lambda _: True)
    assert (stopped.low_water, stopped.wanted) == (FULL + 1024, FULL + 1024)
    assert log.rows()["entries"] == (1792, 256)
    assert log.take().head.size == 2048


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE entries SET entry = set_byte(entry, 900, 7) WHERE lane = 0 AND position = 600", "600 is another one"),
        ("UPDATE keyrings SET keyring = replace(keyring, 'a', 'b') WHERE lane = 0", "keyring"),
    ],
)
def test_rows_that_are_not_those_of_the_archive_stay(log: Log, statement: str, why: str) -> None:
    log.change(statement)
    with pytest.raises(Exception, match=why):
        log.prune()
    assert log.rows()["entries"] == (0, LONG)


def test_rows_stay_when_the_archive_was_changed_and_the_indexer_says_so_until_that_is_mended(
    make_log: Callable[[], Log],
) -> None:
    log = make_log()  # whose bundle has three versions for ever
    path = f"{log.bucket}/lanes/0/{entries_path(1)}"
    right = log.store.read(path)
    at = right.data.index(b'"append_time_ms"') + 20
    forged = right.data[:at] + bytes([right.data[at] ^ 1]) + right.data[at + 1 :]
    etag = log.store.put_if_match(path, forged, right.etag).etag
    later = lambda: datetime.now(UTC) + 25 * SOON  # noqa: E731 - a clock
    pruner = Pruner(lambda: [0], log.connect, log.archived, log.roots, 1, threading.Event(), clock=later)
    pruner.look()
    said = pruner.check()
    assert said is not None
    assert "lane 0: entry 256 is not in the archive" in said
    assert log.rows()["entries"] == (0, LONG)
    log.store.put_if_match(path, right.data, etag)
    pruner.look()
    assert pruner.check() is None
    assert log.rows()["entries"] == (FULL, LONG - FULL)


def test_of_two_who_prune_one_lane_at_once_only_one_moves_its_low_water(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = pruning._remove

    def after_another(*step: Any) -> None:
        monkeypatch.setattr(pruning, "_remove", remove)
        assert log.prune(pause=lambda _: True).low_water == FULL
        remove(*step)

    monkeypatch.setattr(pruning, "_remove", after_another)
    with pytest.raises(LaneLost, match="somebody else prunes it"):
        log.prune()
    assert log.rows()["entries"] == (FULL, LONG - FULL)
    assert log.problems() == set()


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE lane_progress SET pruned_size = 512 WHERE lane = 0", ("missing_row", 767)),
        ("UPDATE lane_progress SET pruned_size = 790 WHERE lane = 0", ("stray_row", 768)),
        ("UPDATE lane_progress SET pruned_hash = repeat('a', 64) WHERE lane = 0", ("wrong_low_water", 767)),
        ("DELETE FROM entries WHERE lane = 0 AND position = 768", ("missing_row", 768)),
        ("UPDATE lane_progress SET pruned_size = 801 WHERE lane = 0", ("pruned_too_far", 800)),
    ],
)
def test_a_low_water_that_a_hand_has_moved_is_found(log: Log, statement: str, problem: tuple[str, int]) -> None:
    log.prune()
    log.change(statement)
    assert problem in log.problems()


def test_what_kafka_has_forgotten_to_have_said_is_not_counted_wrongly(log: Log) -> None:
    log.prune()
    opened = log.archive(0).open(log.worlds[0].keyring)
    with log.connect() as connection, pytest.raises(IndexerError, match="Was the group's offset moved back"):
        Publisher(None)._read(connection, Position(500), opened, 0)  # type: ignore[arg-type]  # no session: it only reads


def test_the_commands_prune_and_work_on_a_pruned_log(
    log: Log, monkeypatch: pytest.MonkeyPatch, ai_infra: Callable[..., Any]
) -> None:
    own = {
        "AI_INFRA_DATABASE_URL": log.url,
        "AI_INFRA_ARCHIVE_BUCKET": log.settings.objects.archive_bucket,
        "AI_INFRA_LOG_ORIGIN": ORIGIN,
        "AI_INFRA_LANES": str(LANES),
    }
    for name, value in own.items():
        monkeypatch.setenv(name, value)

    now = (datetime.now(UTC) + SOON).isoformat()
    complete = ai_infra("audit", "complete", "--json")
    assert ai_infra("db", "prune", "--json")["lanes"][0]["pruned"] == 0  # nothing is 90 days old
    assert ai_infra("db", "prune", "--before", now, "--dry-run", "--json")["lanes"][0]["prunable"] == FULL
    assert ai_infra("db", "prune", "--before", now, "--lane", "0", "--json")["lanes"] == [
        {"lane": 0, "pruned": FULL, "low_water": FULL, "prunable": 0, "seconds": pytest.approx(5, abs=60)}
    ]
    verified = ai_infra("audit", "verify", "--json")
    assert {(r["source"], r["entries"], r["pruned"]) for r in verified["lanes"] if r["lane"] == 0} == {
        ("archive", LONG, 0),
        ("postgres", LONG - FULL, FULL),
    }
    parity = ai_infra("rebuild", "--parity", "--processes", "1", "--json")
    [entries] = [t for t in parity["tables"] if (t["table"], t["lane"]) == ("entries", 0)]
    assert (entries["live_rows"], entries["equal"]) == (LONG - FULL, True)
    [heard] = [t for t in parity["tables"] if (t["table"], t["lane"]) == ("event_ids", 0)]
    assert heard["live_rows"] == LONG
    assert ai_infra("audit", "complete", "--json")["lanes"] == complete["lanes"]
    event_id = dict(log.records[0][5].headers)["ce_id"].decode()
    assert ai_infra("audit", "prove", event_id, "--json")["position"] == 5
    with ReadModel(log.url) as model:
        assert [lane.pruned_size for lane in model.lanes()] == [FULL, 0, 0, 0]
        assert model.artifact("art-1") is not None
