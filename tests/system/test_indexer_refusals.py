"""What the indexer says as a service: to whom it has refused something, and how far its own numbers have come."""

from __future__ import annotations

import secrets
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from tests.commands import run_command
from tests.faults.forger import Forger, event_id
from tests.system.bus_bench import read

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.config import producer_config
from ai_infra.client import Client
from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.event import Event, Record
from ai_infra.events.generated import (
    EventRefused,
    JobCancelRequested,
    Reason,
)
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings
from ai_infra_indexer import refusals
from ai_infra_indexer.migrations import migrate
from ai_infra_indexer.refusals import Refusal

PATIENCE = 90.0


def two_days_ago() -> datetime:
    return datetime.now(UTC) - timedelta(days=2)


@dataclass
class Place:
    """A model of its own, what is said of it past the SDK, and what the indexer makes of it."""

    stack: Stack
    settings: Settings
    client: Client
    producer: Producer
    model: str
    sent: dict[str, int] = field(default_factory=dict)
    """The last offset that was sent past the SDK, by topic."""

    @property
    def lane(self) -> int:
        return lane_of(self.model, self.settings.log.lanes)

    def expired(self) -> Record:
        """An event of a signer who is known, and whose delegation is not valid any more."""
        forger = Forger.with_key(
            self.settings, "orchestrator-1", "orchestrator", JobCancelRequested.TOPIC, clock=two_days_ago
        )
        return forger.record(
            JobCancelRequested(job_id="none", model=self.model, reason="r", requested_by="orchestrator")
        )

    def send(self, *records: Record) -> None:
        def delivered(error: Any, message: Any) -> None:
            assert error is None, error
            self.sent[message.topic()] = message.offset()

        for r in records:
            self.producer.produce(
                r.topic,
                partition=r.partition,
                key=r.key,
                value=r.value,
                headers=list(r.headers),
                on_delivery=delivered,
            )
        assert self.producer.flush(60) == 0

    def start(self) -> None:
        self.stack.start_service("indexer", env={"AI_INFRA_CHECKPOINT_INTERVAL_MS": "200"})

    def settled(self) -> None:
        """Returns when the indexer has said all that it had to say about what was sent before."""
        mark = self.client.record_evaluation(model=self.model, artifact_id="none", dataset_ref=dataset(), score=0.5)
        self.until(lambda: self.position(mark.id) is not None, "it is entered")
        # Topics are read in no order among each other.
        behind = "SELECT next_offset FROM lane_offsets WHERE lane = %s AND topic = %s"
        for topic, offset in self.sent.items():
            self.until(lambda t=topic, o=offset: (self.one(behind, self.lane, t) or 0) > o, "what was sent is read")
        place = self.position(mark.id)
        self.until(
            lambda: self.one("SELECT published_size FROM lane_progress WHERE lane = %s", self.lane) > place, "said"
        )
        self.until(lambda: self.one("SELECT count(*) FROM unsaid_refusals WHERE lane = %s", self.lane) == 0, "told")

    def until(self, condition: Any, what: str) -> None:
        assert wait_until(condition, PATIENCE), f"waited in vain: {what}"

    def one(self, query: str, *values: Any) -> Any:
        with psycopg.connect(self.settings.database.url) as connection:
            row = connection.execute(query.encode(), values).fetchone()
        return row[0] if row is not None else None

    def position(self, id_: str) -> int | None:
        found = self.one("SELECT position FROM entries WHERE lane = %s AND event_id = %s::uuid", self.lane, id_)
        return int(found) if found is not None else None

    def refused(self) -> list[Event[EventRefused]]:
        """Verified, and in the order in which they were said; one that was said twice is there twice."""
        return [e for e in self.client.history(EventRefused, model=self.model) if e.body.service == "indexer"]

    def letters(self) -> list[str]:
        place = ("indexer.dlq", self.lane)
        mark = KafkaAdmin(self.settings).watermarks([place])[place]
        found = [r for r in read(self.settings, {place: (mark.low, mark.high)}) if r.key == self.model.encode()]
        return [dict(r.headers)["dlq_error"].decode() for r in found]


def dataset() -> Any:
    from ai_infra.client import DatasetRef

    return DatasetRef(id="held-out", checksum="sha256:" + "0" * 64, version="1", uri="s3://b/held-out")


@pytest.fixture
def place(stack: Stack, settings: Settings) -> Iterator[Place]:
    with Client(settings) as client:
        producer = Producer(producer_config(settings, "forger"))
        place = Place(stack, settings, client, producer, f"refused-{secrets.token_hex(4)}")
        place.start()
        try:
            yield place
        finally:
            stack.stop_service("indexer")


def test_a_known_sender_is_told_once_what_the_log_refused_and_the_heartbeat_names_the_number(place: Place) -> None:
    records = [place.expired() for _ in range(3)]
    place.send(*records)
    place.settled()
    refused = place.refused()
    assert [e.body.event_id for e in refused] == [event_id(r) for r in records]
    assert {(e.body.signer, e.body.event_type, e.body.reasons[0].code) for e in refused} == {
        ("orchestrator-1", JobCancelRequested.TOPIC, "expired_delegation")
    }
    assert {(e.producer, e.principal) for e in refused} == {(f"indexer/{place.lane}", "indexer")}
    numbers = [e.seq for e in refused]
    assert numbers == list(range(numbers[0] or 0, (numbers[0] or 0) + 3))
    assert [e.attributes.prev for e in refused[1:]] == [e.hash for e in refused[:-1]]

    # They are in the log, and the missing cause, which is what they are about, is no finding.
    place.until(lambda: place.position(refused[-1].id) is not None, "the log has the refusals")
    about = [uuid.UUID(e.id) for e in refused]
    assert place.one("SELECT count(*) FROM findings WHERE event_id = ANY(%s)", about) == 0
    told = "SELECT count(*) FROM refused_events WHERE service = 'indexer' AND model = %s"
    assert place.one(told, place.model) == 3

    # A heartbeat comes at most each ten minutes, so it may be that of an earlier test; what it says is true then too.
    mine = f"indexer/{place.lane}"
    beats = "SELECT count(*) FROM heartbeats WHERE lane = %s AND producer = %s"
    place.until(lambda: place.one(beats, place.lane, mine), "the heartbeat is in the log")
    true = (
        "SELECT bool_and(said.position IS NOT NULL AND beat.seq = h.seq + 1) FROM heartbeats h "
        "JOIN entries beat ON beat.lane = h.lane AND beat.position = h.position LEFT JOIN entries said ON "
        "said.lane = h.lane AND (said.producer, said.epoch, said.seq, said.event_hash) = "
        "(h.producer, h.epoch, h.seq, h.event_hash) WHERE h.lane = %s AND h.producer = %s"
    )
    assert place.one(true, place.lane, mine)


def test_a_refusal_is_said_once_over_a_crash_a_restored_backup_and_a_seek_to_the_start(place: Place) -> None:
    place.send(place.expired())
    place.stack.kill_service("indexer", 0, signal.SIGKILL)
    place.start()
    place.settled()
    [refused] = place.refused()
    # The row as a restored backup brings it back; its record is behind the place that the group has committed.
    with psycopg.connect(place.settings.database.url) as connection:
        connection.execute(
            "INSERT INTO unsaid_refusals SELECT lane, %s, 0, event_id, event_type, event_hash, signer, %s, 'c', 'd' "
            "FROM refused_events WHERE refusal_event_id = %s::uuid",
            (JobCancelRequested.TOPIC, place.model, refused.id),
        )
    place.settled()
    assert [e.id for e in place.refused()] == [refused.id]

    place.until(lambda: place.position(refused.id) is not None, "the log has the refusal")
    place.stack.stop_service("indexer")
    seek = ["groups", "seek", "indexer", "--lane", str(place.lane), "--to", "start", "--reason", "a test", "--yes"]
    done = run_command(place.stack, *seek)
    assert done.returncode == 0, done.stderr
    place.start()
    place.until(lambda: place.letters().count("expired_delegation") >= 2, "it is read and put aside again")
    place.settled()
    assert [e.id for e in place.refused()] == [refused.id]


def test_what_nobody_waits_for_gets_no_refusal_so_that_none_answers_another(place: Place) -> None:
    """An answer that is refused, and an id that an accepted event has."""
    lane = f"promoter/{place.lane}".encode()
    promoter = Forger.with_key(place.settings, "promoter-1", "promoter", EventRefused.TOPIC, clock=two_days_ago)
    answer = EventRefused(
        model=place.model,
        event_id=str(uuid.uuid4()),
        event_type="job.queued",
        event_hash="0" * 64,
        service="promoter",
        signer="orchestrator-1",
        reasons=(Reason(code="c", detail="d"),),
        rules="promoter/v1",
    )
    orchestrator = Forger.with_key(place.settings, "orchestrator-1", "orchestrator", JobCancelRequested.TOPIC)

    def cancel(reason: str) -> JobCancelRequested:
        return JobCancelRequested(job_id="none", model=place.model, reason=reason, requested_by="orchestrator")

    first = orchestrator.record(cancel("one"))
    again = orchestrator.record(cancel("two"), ce_id=event_id(first).encode())
    place.send(promoter.record(answer, producer=lane, epoch=b"1", seq=b"1"), first, again)
    place.settled()
    assert sorted(place.letters()) == ["expired_delegation", "reused_id"]
    assert place.refused() == []


def test_many_refusals_are_told_in_portions_each_up_to_a_place(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "MAX_SAID", 3)
    migrate(database)
    made = [
        Refusal(topic, offset, str(uuid.uuid4()), topic, "0" * 64, "s", "m", "c", "d", None)
        for topic, offsets in {"a": (1, 5), "b": (2, 3, 9), "c": (0,)}.items()
        for offset in offsets
    ]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("INSERT INTO lanes (lane, origin) VALUES (2, 'o')")
        refusals.note_refusals(connection, 2, made)
        refusals.note_refusals(connection, 2, made)  # the same record, read again
        reached = {("a", 2): 6, ("b", 2): 9, ("c", 2): 4}
        first, places = refusals.read_unsaid(connection, 2, said={("c", 2): 0}, reached=reached)
        assert first == made[:3]
        assert places == {("a", 2): 6, ("b", 2): 3, ("c", 2): 0}
        refusals.forget_said(connection, 2, places)
        second, places = refusals.read_unsaid(connection, 2, said=places, reached=reached)
        assert second == [made[3], made[5]], "what is at or behind the place that was reached has to wait"
        assert places == reached
        refusals.forget_said(connection, 2, places)
        assert refusals.any_unsaid(connection, 2)
        behind = dict.fromkeys(reached, 0)
        assert refusals.read_unsaid(connection, 2, said=reached, reached=behind) == ([], reached)
