"""A stack of its own, beside the one that all tests share: started, killed, started again, emptied."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import psycopg
import pytest
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from ai_infra.devstack import PartFailed, Stack, StackNotRunning
from ai_infra.devstack.state import StateFile

PARTS = ("kafka", "postgres", "s3")


@pytest.fixture(scope="module")
def side(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A second stack, while the shared one runs."""
    second = Stack("side", tmp_path_factory.mktemp("side"), lanes=1, fsync=False)
    second.up()
    yield second
    second.reset()


def processes(stack: Stack) -> dict[str, psutil.Process]:
    return {part.name: psutil.Process(part.pid) for part in stack.status() if part.pid}


def object_store(stack: Stack) -> boto3.client:
    return boto3.client("s3", **stack.settings().objects.client_arguments())


def create_topic(stack: Stack, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": stack.settings().kafka.bootstrap_servers})
    admin.create_topics([NewTopic(name, 1, 1)])[name].result()


def test_two_stacks_live_side_by_side_and_share_nothing(stack: Stack, side: Stack) -> None:
    assert stack.running()
    assert side.running()
    assert not set(stack.urls().values()) & set(side.urls().values())
    assert {process.pid for process in processes(stack).values()}.isdisjoint(
        process.pid for process in processes(side).values()
    )


def test_up_again_starts_nothing_twice(side: Stack) -> None:
    before = {name: process.pid for name, process in processes(side).items()}
    side.up()
    assert {name: process.pid for name, process in processes(side).items()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root another user is needed")
def test_postgres_does_not_run_as_root(side: Stack) -> None:
    if "postgres" in processes(side):
        assert processes(side)["postgres"].uids().effective != 0


def test_the_broker_has_transactions_and_the_new_group_protocol(side: Stack) -> None:
    servers = {"bootstrap.servers": side.settings().kafka.bootstrap_servers}
    create_topic(side, "transactions")
    producer = Producer({**servers, "transactional.id": "test", "linger.ms": 0})
    producer.init_transactions()
    for value, commit in ((b"aborted", False), (b"committed", True)):
        producer.begin_transaction()
        producer.produce("transactions", value)
        if commit:
            producer.commit_transaction()
        else:
            producer.flush()
            producer.abort_transaction()
    consumer = Consumer(
        {**servers, "group.id": "g", "group.protocol": "consumer", "auto.offset.reset": "earliest"}
        | {"isolation.level": "read_committed"}
    )
    consumer.subscribe(["transactions"])
    message = consumer.poll(30)
    consumer.close()
    assert message is not None
    assert message.value() == b"committed"


def test_no_topic_comes_to_be_by_a_typo(side: Stack) -> None:
    servers = {"bootstrap.servers": side.settings().kafka.bootstrap_servers}
    errors: list[object] = []
    producer = Producer({**servers, "message.timeout.ms": 3000})
    producer.produce("tpyo", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush()
    assert errors[0] is not None
    assert "tpyo" not in AdminClient(servers).list_topics(timeout=10).topics


def test_a_locked_object_stays_until_its_time_and_a_second_put_is_refused(side: Stack) -> None:
    client = object_store(side)
    client.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    put = client.put_object(
        Bucket="locked",
        Key="a",
        Body=b"1",
        IfNoneMatch="*",
        ObjectLockMode="GOVERNANCE",
        ObjectLockRetainUntilDate="2099-01-01T00:00:00Z",
    )
    with pytest.raises(ClientError):
        client.put_object(Bucket="locked", Key="a", Body=b"2", IfNoneMatch="*")
    with pytest.raises(ClientError):
        client.delete_object(Bucket="locked", Key="a", VersionId=put["VersionId"])
    assert client.get_object(Bucket="locked", Key="a")["Body"].read() == b"1"


def test_after_kill_9_of_every_part_it_starts_again_at_the_same_place_with_its_data(side: Stack) -> None:
    settings = side.settings()
    servers = {"bootstrap.servers": settings.kafka.bootstrap_servers}
    create_topic(side, "kept")
    with psycopg.connect(settings.database.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    object_store(side).create_bucket(Bucket="kept")
    urls = side.urls()

    for part in PARTS:
        side.kill(part)
    assert {part.name: part.state for part in side.status()} == dict.fromkeys(PARTS, "crashed")
    side.up()

    assert side.urls() == urls
    assert "kept" in AdminClient(servers).list_topics(timeout=10).topics
    with psycopg.connect(settings.database.url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
    object_store(side).head_bucket(Bucket="kept")


def test_a_halted_part_is_seen_and_goes_on(side: Stack) -> None:
    side.kill("s3", signal.SIGSTOP)
    assert {part.name: part.state for part in side.status()}["s3"] == "halted"
    side.kill("s3", signal.SIGCONT)
    assert {part.name: part.state for part in side.status()}["s3"] == "running"


def test_a_signal_to_a_part_that_is_down_is_an_error(side: Stack) -> None:
    side.stop("s3")
    with pytest.raises(PartFailed, match="does not run"):
        side.kill("s3")
    side.start("s3")


def test_a_pid_that_now_belongs_to_somebody_else_is_left_alone(side: Stack) -> None:
    side.stop("s3")
    ours = psutil.Process()
    file = StateFile(side.directory / "state.json")
    known = file.read().processes["kafka"]
    stranger = type(known)(ours.pid, known.identity, "s3")
    file.record("s3", stranger)
    side.stop("s3")
    assert ours.is_running()
    side.start("s3")


def test_the_keyring_the_topics_the_buckets_and_the_tables_are_there_after_up(side: Stack) -> None:
    settings = side.settings()
    assert settings.keys.roots.is_file()
    topics = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers}).list_topics(timeout=10).topics
    assert len(topics["job.queued"].partitions) == 1
    for bucket in (settings.objects.models_bucket, settings.objects.archive_bucket):
        assert object_store(side).get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
    with psycopg.connect(settings.database.url) as connection:
        tables = {row[0] for row in connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'public'")}
    assert {"training_jobs", "model_artifacts", "model_promotions"} <= tables


def test_a_service_is_started_killed_started_again_and_stopped(side: Stack) -> None:
    started = side.start_service("registry")
    assert side.start_service("registry").pid == started.pid
    assert side.services() == ["registry-0"]
    environment = psutil.Process(started.pid).environ()
    assert environment["AI_INFRA_SERVICE_KEY_ID"] == "registry-1"
    assert "AI_INFRA_SIGNER_KEY_B64" not in environment

    side.kill_service("registry")
    assert {part.name: part.state for part in side.status()}["registry-0"] == "crashed"

    again = side.start_service("registry", env={"AI_INFRA_LOG_LEVEL": "debug"})
    assert again.pid != started.pid
    assert again.port == started.port
    assert psutil.Process(again.pid).environ()["AI_INFRA_LOG_LEVEL"] == "debug"
    assert side.stop_service("registry")
    assert side.services() == []


def test_a_service_that_cannot_start_says_why(side: Stack) -> None:
    with pytest.raises(PartFailed, match="AI_INFRA_LANES"):
        side.start_service("registry", env={"AI_INFRA_LANES": "many"})
    side.stop_service("registry")


def test_what_a_stack_is_made_of_is_fetched_without_starting_it(stack: Stack, tmp_path: Path) -> None:
    coming = Stack("coming", tmp_path)
    coming.fetch()
    assert {part.state for part in coming.status()} == {"stopped"}
    with pytest.raises(StackNotRunning, match="ai-infra dev up"):
        coming.env()


def test_a_stack_that_was_never_started_says_so(tmp_path: Path) -> None:
    never = Stack("never", tmp_path)
    assert {part.state for part in never.status()} == {"stopped"}
    with pytest.raises(StackNotRunning, match="ai-infra dev up"):
        never.env()
    never.down()
    never.reset()
    assert not never.directory.exists()


def test_down_ends_what_was_started_and_reset_leaves_nothing(stack: Stack, side: Stack) -> None:
    started = processes(side).values()
    side.down()
    assert not [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert {part.state for part in side.status()} == {"stopped"}
    side.reset()
    assert not side.directory.exists()
    assert stack.running()
