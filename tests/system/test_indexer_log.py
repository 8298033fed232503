"""The indexer on a real stack: everything once, in order, final, and found again after any crash."""

from __future__ import annotations

import signal

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from psycopg import sql
from tests.system.town import PATIENCE, Town

from ai_infra.devstack.waiting import wait_until
from ai_infra.events.event import Record
from ai_infra.events.generated import JobStatusKind
from ai_infra.events.lanes import lane_of
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import ReadModel, connect
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer import parity
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import audit_archive, audit_artifacts, audit_postgres
from ai_infra_indexer.rebuild import RebuildFailed
from ai_infra_indexer.reprojection import projections


def test_what_is_said_becomes_final_once_and_in_causal_order(town: Town, database: str) -> None:
    records = [record for n in range(6) for record in town.story(f"model-{n}")]
    town.await_final(*records)
    with ReadModel(town.settings.database.url) as model:
        for n in range(6):
            events = [e for e in reversed(model.events(model=f"model-{n}")) if e.type != "audit.finding"]
            assert [e.type for e in sorted(events, key=lambda e: e.position)] == [
                "job.queued",
                "job.status",
                "job.status",
                "artifact.registered",
                "evaluation.recorded",
                "promotion.requested",
                "promotion.decided",
                "deployment.changed",
            ]
            running = model.what_ran(f"model-{n}", "prod")
            assert running is not None
            assert running.deployment.stable_artifact_id == "art-1"
        said = {dict(record.headers)["ce_id"].decode() for record in records}
        assert [finding for finding in model.findings() if finding.event_id in said] == []
    town.check_everything(database)


def test_a_repeated_event_is_sequenced_once(town: Town) -> None:
    world = town.world("repeated")
    record = world.say("orchestrator", world.queued("job-repeated"))
    last = world.say("orchestrator", world.queued("job-after"))
    town.send(record, record, record, last)
    town.await_final(record, last)
    with ReadModel(town.settings.database.url) as model:
        assert [e.type for e in model.events(model="repeated")] == ["job.queued", "job.queued"]


def test_what_does_not_verify_is_put_aside_with_its_reason_and_enters_no_log(town: Town) -> None:
    world = town.world("junk")
    good = world.say("orchestrator", world.queued("job-junk"))
    other = town.world("junk")
    other.signers = {**other.signers, "orchestrator-1": LocalSigner.fresh("orchestrator-1")}
    forged = other.say("orchestrator", other.queued("job-forged"))
    naked = Record("job.queued", world.lane, 0, 0, b"junk", b"\xc3\x01not avro", ())
    wrong = world.say("registry", world.registered())
    tampered = Record(wrong.topic, wrong.partition, 0, 0, wrong.key, (wrong.value or b"") + b"\0", wrong.headers)
    town.send(naked, forged, tampered, good)
    town.await_final(good)
    codes = wait_for_dead_letters(town, world.lane, b"junk", 3)
    assert codes == {"malformed_event", "bad_delegation", "bad_signature"}
    with ReadModel(town.settings.database.url) as model:
        assert [e.type for e in model.events(model="junk")] == ["job.queued"]


def wait_for_dead_letters(town: Town, lane: int, key: bytes, count: int) -> set[str]:
    consumer = Consumer(
        {**town.settings.kafka.client_config(), "group.id": "test-dlq", "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition("indexer.dlq", lane, 0)])
    codes: list[str] = []

    def read() -> bool:
        for message in consumer.consume(10, 0.2):
            if message.error() is None and message.key() == key:  # other tests have junk of their own
                codes.append(dict(message.headers() or [])["dlq_error"].decode())
        return len(codes) >= count

    try:
        assert wait_until(read, PATIENCE), "waited in vain for the dead letters"
    finally:
        consumer.close()
    return set(codes)


def test_a_killed_indexer_loses_and_doubles_nothing(town: Town, database: str) -> None:
    """kill -9 at moments that fall between any two writes, with a second replica taking over in between."""
    records: list[Record] = []
    for round_ in range(5):
        for n in range(4):
            world = town.world(f"killed-{n}")
            said = [world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=a)) for a in range(1, 8)]
            records += said
            town.send(*said)
        if round_ == 2:
            town.start(replica=1)
        town.stack.kill_service("indexer", 0, signal.SIGKILL)
        town.start()
    town.await_final(*records)
    town.stack.kill_service("indexer", 1, signal.SIGKILL)
    more = town.story("after-the-kills")
    town.await_final(*more)
    town.check_everything(database)


def test_without_the_object_store_events_are_projected_and_become_final_when_it_is_back(town: Town) -> None:
    town.stack.kill("s3", signal.SIGKILL)
    records = town.story("no-archive")
    ids = [dict(record.headers)["ce_id"].decode() for record in records]

    def projected() -> bool:
        with ReadModel(town.settings.database.url) as model:
            return all(model.event(event_id) is not None for event_id in ids)

    assert wait_until(projected, PATIENCE), "events must reach Postgres without the archive"
    assert wait_until(lambda: "do not become final" in town.readiness(), PATIENCE), "readiness must say what is wrong"
    town.stack.start("s3")
    town.await_final(*records)
    assert town.problems() == []


def test_without_postgres_lanes_wait_and_go_on_when_it_is_back(town: Town) -> None:
    town.stack.kill("postgres", signal.SIGKILL)
    records = town.story("no-postgres")
    assert wait_until(lambda: "stands still" in town.readiness(), PATIENCE), "readiness must say what is wrong"
    town.stack.start("postgres")
    town.await_final(*records)
    assert town.problems() == []


def test_an_audit_of_a_log_that_grows_meanwhile_finds_nothing(town: Town) -> None:
    world = town.world("growing")

    class Growing(ArchivedLane):
        """The archive as it is after something more has become final."""

        def note(self) -> bytes | None:
            record = world.say("orchestrator", world.queued("job-meanwhile"))
            town.send(record)
            town.await_final(record)
            return super().note()

    archived = Growing(town.archive, town.settings.log.origin, world.lane)
    with connect(town.settings.database.url, autocommit=True) as connection:
        report = audit_postgres(connection, world.lane, archived.origin, town.roots, town.lanes, archived=archived)
    assert report.problems == []


def test_an_artifact_changed_in_its_bucket_is_found_and_named(town: Town) -> None:
    uri, manifest = town.register("bytes")
    with ObjectStore(town.settings) as store:
        told = audit_archive(town.archived(lane_of("bytes", town.lanes)), town.roots, town.lanes).registered
        registered = [item for item in told if item.uri in (uri, manifest)]
        assert audit_artifacts(store, registered) == []
        store.put_if_match(uri, b"Weights", store.head(uri).etag)
        store.delete(manifest)
        problems = audit_artifacts(store, registered)
    assert {(p.code, p.position) for p in problems} == {
        ("changed_object", registered[0].position),
        ("missing_object", registered[0].position),
    }
    assert "artifact art-bytes" in problems[0].detail


def test_a_database_restored_from_a_backup_is_filled_up_before_anything_is_sequenced(town: Town, database: str) -> None:
    url = town.settings.database.url
    name = str(psycopg.conninfo.conninfo_to_dict(url)["dbname"])
    before = town.story("before-the-backup")
    town.await_final(*before)
    town.stop()
    copy_database(town, name, f"{name}_backup")
    town.start()
    after = town.story("after-the-backup")
    town.await_final(*after)
    town.stop()
    with ReadModel(url) as model:
        covered = {row.lane: row.checkpoint_size for row in model.lanes()}
    places = {id_: (lane, position) for id_, (lane, position) in all_places(url).items() if position < covered[lane]}
    assert len(places) >= len(before) + len(after)
    copy_database(town, f"{name}_backup", name)
    more = town.story("after-the-restore")
    town.start()
    town.await_final(*more)
    now = all_places(url)
    assert {event_id: now.get(event_id) for event_id in places} == places
    town.check_everything(database)


def all_places(url: str) -> dict[str, tuple[int, int]]:
    with connect(url) as connection:
        rows = connection.execute("SELECT event_id::text, lane, position FROM entries WHERE verdict <> 'repeated'")
        return {event_id: (lane, position) for event_id, lane, position in rows}


def copy_database(town: Town, source: str, target: str) -> None:
    """The source as it is now, under another name; nobody may be connected to it for good."""
    elsewhere = psycopg.conninfo.make_conninfo(town.settings.database.url, dbname="postgres")
    with psycopg.connect(elsewhere, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(target)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (source,))
        here = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        gone = wait_until(lambda: connection.execute(here, (source,)).fetchone() == (0,), PATIENCE)
        assert gone, f"somebody stays connected to {source}"
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(target), sql.Identifier(source))
        )


def test_parity_names_the_row_and_the_column_that_differ(town: Town, database: str) -> None:
    town.stop()
    with parity.snapshot(town.settings.database.url) as live:
        sizes = parity.sizes(live)
        town.rebuild(database, sizes)
        with connect(database, autocommit=True) as connection:
            connection.execute("UPDATE jobs SET status = 'failed' WHERE job_id = 'job-repeated'")
        with parity.snapshot(database) as rebuilt:
            _, [difference] = parity.compare(live, rebuilt)
    town.start()
    assert (difference.table, difference.key["job_id"]) == ("jobs", "job-repeated")
    assert difference.what == "status is 'requested' live, 'failed' rebuilt"


def test_rows_of_an_older_projection_are_made_anew_by_the_indexer_itself_while_it_sequences(
    town: Town, database: str
) -> None:
    town.await_final(*town.story("model-older"))
    with connect(town.settings.database.url, autocommit=True) as connection:
        with connection.transaction():
            connection.execute("DELETE FROM promotion_steps")
            connection.execute("UPDATE jobs SET status = 'as it was said once'")
            connection.execute("UPDATE lanes SET projection = 1")
        more = town.story("model-newer")

        def current() -> bool:
            return all(lane.current for lane in projections(connection))

        assert wait_until(current, PATIENCE), "waited in vain for the lanes to be projected anew"
    town.await_final(*more)
    town.check_everything(database)
    # A rebuild that goes on where one of an older version stood would leave rows of both.
    with connect(database, autocommit=True) as connection:
        connection.execute("UPDATE lanes SET projection = 1")
        sizes = parity.sizes(connection)
    with pytest.raises(RebuildFailed, match="of another version"):
        town.rebuild(database, sizes)
