"""A stack with an indexer, as somebody sees it who says things and looks whether they arrive."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.request import Request, urlopen

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from tests.commands import run_command
from tests.unit.indexer.voices import World, worlds

from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.event import Record
from ai_infra.events.lanes import lane_of
from ai_infra.objects.reader import open_store
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import ReadModel, connect
from ai_infra.settings import Settings
from ai_infra.trust.keyring_document import read_roots
from ai_infra_indexer import parity
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import Problem, audit_archive, audit_postgres
from ai_infra_indexer.rebuild import rebuild

PATIENCE = 120.0  # all waits end with what they wait for: this is for a machine that does ten other things
FAST = {"AI_INFRA_CHECKPOINT_INTERVAL_MS": "200"}
_EPOCHS = itertools.count(1)  # of voices that speak as services


class Town:
    """The stack, as somebody sees it who says things and looks whether they arrive."""

    def __init__(self, stack: Stack, settings: Settings) -> None:
        self.stack, self.settings = stack, settings
        self.lanes = settings.log.lanes
        self.archive = open_store(f"s3://{settings.objects.archive_bucket}", settings)
        self.roots = read_roots(settings.keys.roots)
        self._worlds = worlds(settings.keys.dir)
        self.keyring = self._worlds().keyring
        self._producer = Producer({**settings.kafka.client_config(), "enable.idempotence": True})

    def models(self, what: str) -> Iterator[str]:
        """New names, one for each lane in turn."""
        for number in itertools.count():
            lane = number % self.lanes
            names = (f"{what}-{number}-{n}" for n in itertools.count())
            yield next(name for name in names if lane_of(name, self.lanes) == lane)

    def world(self, model: str) -> World:
        """Voices about a model; each call numbers its services' events anew, in an epoch long before the real ones:
        a newer one would make what the real services say later old news to their listeners."""
        return self._worlds(model=model, epoch=next(_EPOCHS))

    def story(self, model: str) -> list[Record]:
        """A model's way into prod, which was said, and may not be in the log yet."""
        records = self.world(model).story()
        self.send(*records)
        return records

    def register(self, model: str) -> tuple[str, str]:
        """An artifact `art-<model>` that is stored, and registered in the log: where it is, and its manifest."""
        world = self.world(model)
        uri = f"s3://{self.settings.objects.models_bucket}/{model}/artifact"
        manifest = f"{uri}.json"
        with ObjectStore(self.settings) as store:
            stored, described = store.put_once(uri, b"weights"), store.put_once(manifest, b"{}")
        body = world.registered(
            f"art-{model}",
            artifact_uri=uri,
            artifact_sha256=stored.sha256,
            manifest_uri=manifest,
            manifest_sha256=described.sha256,
        )
        record = world.say("registry", body)
        self.send(record)
        self.await_final(record)
        return uri, manifest

    def send(self, *records: Record) -> None:
        """In the causal order: each is acknowledged before the next, as it is between services."""
        for record in records:
            self.send_at_once(record)

    def send_at_once(self, *records: Record) -> None:
        """None waits for the one before: in order where they are of one lane."""
        for record in records:
            self._producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                partition=record.partition,
            )
        assert self._producer.flush(60) == 0

    def start(self, replica: int = 0) -> None:
        self.stack.start_service("indexer", replica=replica, env=FAST)

    def stop(self) -> None:
        self.stack.stop_service("indexer")

    def readiness(self) -> str:
        with urlopen(Request(f"{self.stack.service_url('indexer')}/health"), timeout=10) as answer:
            return str(answer.read().decode())

    def cli(self, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """`ai-infra … --json`: its exit code and its result, or else what it says to be wrong."""
        done = run_command(self.stack, *arguments, "--json", env=env)
        return done.returncode, json.loads(done.stdout) if done.stdout.strip() else done.stderr

    def sizes(self) -> dict[int, int]:
        with connect(self.settings.database.url, autocommit=True) as connection:
            return parity.sizes(connection)

    def await_final(self, *records: Record) -> None:
        """Until all of these are in the log, covered by a checkpoint, and said on audit-events."""
        ids = [dict(record.headers)["ce_id"].decode() for record in records]

        def final() -> bool:
            with ReadModel(self.settings.database.url) as model:
                done = {row.lane: min(row.checkpoint_size, row.published_size) for row in model.lanes()}
                entries = [model.event(event_id) for event_id in ids]
            return all(entry is not None and entry.position < done[entry.lane] for entry in entries)

        assert wait_until(final, PATIENCE), (
            f"waited in vain for the events to be final; the indexer said last:\n{self.stack.logs('indexer-0', 20)}"
        )

    def archived(self, lane: int) -> ArchivedLane:
        return ArchivedLane(self.archive, self.settings.log.origin, lane)

    def problems(self) -> list[Problem]:
        """What an audit of archive and Postgres finds."""
        found: list[Problem] = []
        for lane in range(self.lanes):
            archived = self.archived(lane)
            found += audit_archive(archived, self.roots, self.lanes).problems
            with connect(self.settings.database.url, autocommit=True) as connection:
                found += audit_postgres(
                    connection, lane, archived.origin, self.roots, self.lanes, archived=archived
                ).problems
        return found

    def published(self) -> dict[int, list[dict[str, Any]]]:
        """All messages on audit-events, by lane."""
        consumer = Consumer(
            {
                **self.settings.kafka.client_config(),
                "group.id": "test-reader",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        consumer.assign([TopicPartition("audit-events", lane, 0) for lane in range(self.lanes)])
        found: dict[int, list[dict[str, Any]]] = {lane: [] for lane in range(self.lanes)}
        ended: set[int] = set()
        try:
            while len(ended) < self.lanes:
                for message in consumer.consume(500, 1.0):
                    error = message.error()
                    if error is None:
                        found[message.partition() or 0].append(json.loads(message.value() or b""))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        ended.add(message.partition() or 0)
        finally:
            consumer.close()
        return found

    def check_everything(self, database: str) -> None:
        """Audit, exactly-once publication, parity."""
        assert self.problems() == []
        sizes = self.sizes()
        for lane, messages in self.published().items():
            assert [m["metadata"]["position"] for m in messages] == list(range(len(messages)))
            assert [m["prevHash"] for m in messages] == [None, *(m["hash"] for m in messages[:-1])][: len(messages)]
            assert len(messages) <= sizes[lane]
        with parity.snapshot(self.settings.database.url) as live:
            now = parity.sizes(live)
            assert wait_until(lambda: self.covers(now), PATIENCE), "waited in vain for the archive to cover Postgres"
            self.rebuild(database, now)
            with parity.snapshot(database) as rebuilt:
                comparisons, differences = parity.compare(live, rebuilt)
        assert differences == []
        assert all(comparison.equal for comparison in comparisons)

    def rebuild(self, database: str, until: dict[int, int]) -> None:
        """The registry as the archive has it, up to these sizes."""
        origin = self.settings.log.origin
        rebuild(self.archive, database, log_origin=origin, lanes=self.lanes, roots=self.roots, until=until)

    def covers(self, sizes: dict[int, int]) -> bool:
        """Whether the archive's checkpoints are of these sizes at least."""
        for lane, size in sizes.items():
            archived = self.archived(lane)
            note = archived.note()
            if size and (note is None or archived.claimed_size(note) < size):
                return False
        return True
