"""Bad input at the doors of real services: put aside or refused with the reason, no state changed, nobody stopped."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from confluent_kafka import Producer
from tests.commands import run_command
from tests.faults.flow import until
from tests.faults.forger import Forger, encoded, event_id, with_header
from tests.faults.raw_producer import append
from tests.system.bus_bench import read

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.config import producer_config
from ai_infra.client import Client, Promotion
from ai_infra.client.wishes import DEFAULT_TEMPLATE
from ai_infra.devstack import Stack
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.compose import uuid7
from ai_infra.events.event import Record
from ai_infra.events.generated import (
    Environment,
    EventRefused,
    JobQueued,
    PromotionDecided,
    PromotionRequested,
    Resources,
)
from ai_infra.events.lanes import lane_of
from ai_infra.events.statement import DATASCHEMA_PREFIX
from ai_infra.settings import Settings

TOPIC = PromotionRequested.TOPIC
SERVICES = ("promoter", "trainer", "indexer")


@dataclass
class Doors:
    """The services, and what is written past the SDK."""

    stack: Stack
    settings: Settings
    client: Client
    producer: Producer
    admin: KafkaAdmin

    def send(self, *records: Record) -> None:
        for r in records:
            headers = list(r.headers)
            self.producer.produce(r.topic, partition=r.partition, key=r.key, value=r.value, headers=headers)
            self.producer.poll(0)
        assert self.producer.flush(60) == 0

    def answered(self, model: str) -> Promotion:
        """Asks for a promotion of the lane and waits for its first answer: all that was sent before is dealt with."""
        promotion = self.client.request_promotion(model=model, artifact_id="none", env="dev", reason="good")
        assert promotion.published is not None
        self.client.wait_for(promotion.published, lambda e: isinstance(e.body, PromotionDecided) and e, timeout=60)
        return promotion

    def letters(self, service: str, model: str) -> list[tuple[str, str]]:
        """(error, reason) of a model's dead letters."""
        place = (f"{service}.dlq", lane_of(model, self.settings.log.lanes))
        mark = self.admin.watermarks([place])[place]
        headers = [
            dict(r.headers) for r in read(self.settings, {place: (mark.low, mark.high)}) if r.key == model.encode()
        ]
        return [(h["dlq_error"].decode(), h["dlq_reason"].decode()) for h in headers]

    def refusals(self, model: str) -> dict[str, str]:
        """Event id to the first reason's code."""
        return {e.body.event_id: e.body.reasons[0].code for e in self.client.history(EventRefused, model=model)}

    def entered(self, *ids: str) -> set[str]:
        """Which of these the log holds."""
        with psycopg.connect(self.settings.database.url) as connection:
            query = "SELECT event_id::text FROM entries WHERE event_id = ANY(%s::uuid[])"
            return {i for (i,) in connection.execute(query, (list(ids),))}

    def check_up(self) -> None:
        for service in SERVICES:
            answer = httpx.get(f"{self.stack.service_url(service)}/readyz", trust_env=False)
            assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def doors(stack: Stack, settings: Settings) -> Iterator[Doors]:
    for service in SERVICES:
        stack.start_service(service, wait=False)
    try:
        with Client(settings) as client:
            doors = Doors(stack, settings, client, Producer(producer_config(settings, "forger")), KafkaAdmin(settings))
            doors.answered("bad-input-0")
            yield doors
    finally:
        for service in SERVICES:
            stack.stop_service(service)


@pytest.fixture
def model() -> str:
    return f"bad-input-{secrets.token_hex(4)}"


@pytest.fixture
def forger(settings: Settings) -> Forger:
    return Forger.with_key(settings, "orchestrator-1", "orchestrator", TOPIC)


def request(model: str, reason: str = "bad", requested_by: str = "orchestrator") -> PromotionRequested:
    return PromotionRequested(
        promotion_id=uuid7(),
        artifact_id="none",
        model=model,
        target_env=Environment.DEV,
        reason=reason,
        evaluation_id=None,
        confidence_e6=None,
        evidence=(),
        traffic_percent=None,
        manifest_signature_id=None,
        expected_current_artifact_id=None,
        idempotency_key=None,
        emergency=False,
        not_after=None,
        requested_by=requested_by,
    )


def job(model: str) -> JobQueued:
    return JobQueued(
        job_id=uuid7(),
        model=model,
        template=DEFAULT_TEMPLATE,
        code_ref="git+https://host.invalid/repo@" + "a" * 40,
        container_digest=None,
        dataset_refs=(),
        hyperparams_json="{}",
        seed=0,
        training_cmd=("true",),
        resources=Resources(cpu_millis=1, memory_mib=1),
        time_limit_s=1,
        requested_by="drift",
        parent_artifacts=(),
    )


def other_model_of_the_lane(model: str, lanes: int) -> str:
    return next(name for i in range(10_000) if lane_of(name := f"{model}-{i}", lanes) == lane_of(model, lanes))


def faults(forger: Forger, settings: Settings, model: str) -> dict[str, list[tuple[Record, bool]]]:
    """Records by the code that they must be put aside with, and whether their sender is known and must be told."""
    lanes = settings.log.lanes
    sound = forger.record(request(model))
    body = request(model)
    unknown = sha256_hex(b"no schema of ours")
    expired = Forger.with_key(
        settings, "orchestrator-1", "orchestrator", TOPIC, clock=lambda: datetime.now(UTC) - timedelta(days=2)
    )
    approver = Forger.with_key(settings, "approver-1", "approver-1", TOPIC)
    elsewhere = replace(forger.record(request(model)), partition=(lane_of(model, lanes) + 1) % lanes)
    assert sound.value is not None
    return {
        "undecodable_body": [
            (forger.record(body, raw=b"\xff" * 40), True),
            (forger.record(body, raw=encoded(body)[:-3]), True),
            (forger.record(body, raw=encoded(body) + b"\0"), True),
        ],
        "unknown_schema": [
            (replace(forger.record(body), value=b"\xc3\x01" + bytes(8) + encoded(body)), False),
            (replace(forger.record(body), value=b"{}"), False),
            (forger.record(body, ce_dataschema=(DATASCHEMA_PREFIX + unknown).encode()), False),
        ],
        "repeated_header": [(replace(sound, headers=(*sound.headers, ("signer", b"operator-1"))), False)],
        "malformed_event": [
            (replace(forger.record(body), headers=()), False),
            (replace(forger.record(body), value=None), False),
        ],
        "bad_text": [
            (forger.record(body, raw=encoded(request(model, "nul?")).replace(b"nul?", b"nul\0")), True),
            (forger.record(body, raw=encoded(request(model, "utf?")).replace(b"utf?", b"utf\xff")), True),
        ],
        "bad_signature": [
            (with_header(forger.record(body), "signature", bytes(64)), False),
            (with_header(forger.record(body), "ce_id", uuid7().encode()), False),
            (replace(sound, value=sound.value[:10] + encoded(request(model, "other"))), False),
        ],
        "unknown_signer": [(forger.record(body, signer=b"nobody-1"), False)],
        "expired_delegation": [(expired.record(body), True)],
        "not_allowed": [
            (approver.record(request(model, requested_by="approver-1")), True),
            (forger.record(request(model, requested_by="operator")), True),  # in another's name
            (forger.record(body, producer=b"promoter/0", epoch=b"1", seq=b"1"), True),  # a number it may not have
        ],
        "body_too_large": [(forger.record(request(model, "x" * 50_000)), False)],
        "wrong_key": [(forger.record(request(other_model_of_the_lane(model, lanes)), key=model), True)],
        "wrong_lane": [(elsewhere, False)],
    }


def test_every_fault_is_put_aside_with_its_reason_and_changes_nothing(
    doors: Doors, forger: Forger, settings: Settings, model: str
) -> None:
    bad = faults(forger, settings, model)
    records = [record for cases in bad.values() for record, _ in cases]
    doors.send(*records)
    good = doors.answered(model)
    here = sorted(code for code, cases in bad.items() for _ in cases if code != "wrong_lane")
    until(lambda: len(doors.letters("promoter", model)) >= len(here), "all of them are put aside")
    assert sorted(code for code, _ in doors.letters("promoter", model)) == here
    assert all(reason for _, reason in doors.letters("promoter", model))
    told = {event_id(record): code for code, cases in bad.items() for record, known in cases if known}
    until(lambda: len(doors.refusals(model)) >= len(told), "their senders are told")
    assert doors.refusals(model) == told
    decided = doors.client.history(PromotionDecided, model=model)
    assert {e.body.promotion_id for e in decided} == {good.promotion_id}
    assert good.published is not None
    until(lambda: doors.entered(good.published.id), "the log goes on")  # type: ignore[union-attr]  # asserted above
    ids = [event_id(record) for record in records if record.headers]
    assert not doors.entered(*ids)
    doors.check_up()


def test_names_of_headers_that_are_no_text_stop_nobody(doors: Doors, forger: Forger, model: str) -> None:
    """No client library writes such a name, but anybody may who may write at all, and reading it raises."""
    sound = forger.record(request(model))
    assert sound.key is not None
    assert sound.value is not None
    names = [(b"\xff\xfe", b"x"), *((name.encode(), value) for name, value in sound.headers)]
    broker = doors.settings.kafka.bootstrap_servers
    for _ in range(40):  # what reads them has been specialised by then
        append(broker, sound.topic, sound.partition, sound.key, sound.value, names)
    with doors.client.subscribe("promotion.decided", model=model, from_="latest") as decided:
        for _ in range(40):
            append(broker, "promotion.decided", sound.partition, sound.key, sound.value, names)
        answered = doors.answered(model)
        heard = until(lambda: decided.poll(0.2), "the listener goes on")
    assert heard.body.promotion_id == answered.promotion_id
    for service in ("promoter", "indexer"):
        until(lambda service=service: doors.letters(service, model), f"{service} has put it aside")
        assert doors.letters(service, model)[0] == ("bad_text", "expected names of headers in UTF-8")
    assert answered.published is not None
    until(lambda: doors.entered(answered.published.id), "the log goes on")  # type: ignore[union-attr]  # asserted above
    doors.check_up()


def test_the_wrong_lane_gets_no_answer_and_its_own_lane_goes_on(doors: Doors, forger: Forger, model: str) -> None:
    [(elsewhere, _)] = faults(forger, doors.settings, model)["wrong_lane"]
    doors.send(elsewhere)
    place = ("promoter.dlq", elsewhere.partition)

    def letter() -> bool:
        mark = doors.admin.watermarks([place])[place]
        return any(r.key == elsewhere.key for r in read(doors.settings, {place: (mark.low, mark.high)}))

    until(letter, "it is put aside where it came")
    assert not doors.refusals(model)
    doors.answered(model)


def test_a_signer_whose_role_is_for_other_models_is_refused(doors: Doors, settings: Settings, model: str) -> None:
    name = f"narrow-{secrets.token_hex(4)}"
    for arguments in (
        ["new", f"{name}-1", "--principal", name, "--kind", "orchestrator"],
        ["grant", name, "orchestrator", "--model", "fraud-*"],
    ):
        done = run_command(doors.stack, "keys", *arguments)
        assert done.returncode == 0, done.stderr
    narrow = Forger.with_key(settings, f"{name}-1", name, TOPIC)
    record = narrow.record(request(model, requested_by=name))
    doors.send(record)
    doors.answered(model)
    assert doors.refusals(model) == {event_id(record): "not_allowed"}
    [(_, reason)] = doors.letters("promoter", model)
    assert model in reason


def test_a_replayed_event_is_heard_once(doors: Doors, forger: Forger, model: str) -> None:
    record = forger.record(request(model, "once"))
    doors.send(
        record,
        record,
        replace(record, headers=(*record.headers, ("traceparent", b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"))),
    )
    doors.answered(model)
    assert [code for code, _ in doors.letters("promoter", model)] == ["duplicate", "duplicate"]
    asked = [e for e in doors.client.history(PromotionDecided, model=model) if e.causes[0].id == event_id(record)]
    assert len(asked) == 1
    until(lambda: doors.entered(event_id(record)), "it is in the log")
    with psycopg.connect(doors.settings.database.url) as connection:
        query = "SELECT count(*) FROM entries WHERE event_id = %s::uuid"
        assert connection.execute(query, (event_id(record),)).fetchone() == (1,)


def test_two_events_with_one_number_are_heard_once_and_found(doors: Doors, settings: Settings, model: str) -> None:
    drift = Forger.with_key(settings, "drift-1", "drift", JobQueued.TOPIC)
    lane = lane_of(model, settings.log.lanes)
    epoch = int(datetime.now(UTC).timestamp() * 1000)
    number: dict[str, Any] = {"producer": f"drift/{lane}".encode(), "epoch": str(epoch).encode(), "seq": b"1"}
    one, twin = (drift.record(job(model), **number) for _ in range(2))
    doors.send(one, twin)
    letters = until(lambda: len(found := doors.letters("trainer", model)) == 2 and found, "both are put aside")
    assert [code for code, _ in letters] == ["repository_not_allowed", "duplicate"]
    assert doors.refusals(model) == {event_id(one): "repository_not_allowed"}

    def found() -> bool:
        with psycopg.connect(settings.database.url) as connection:
            query = "SELECT count(*) FROM findings WHERE lane = %s AND kind = 'equivocation' AND about LIKE %s"
            return connection.execute(query, (lane, f"%{epoch}%")).fetchone() != (0,)

    until(found, "the equivocation is found")
    doors.check_up()


def test_a_flood_of_junk_from_a_writer_without_a_key_halts_nothing(doors: Doors, forger: Forger, model: str) -> None:
    sound = forger.record(request(model))
    forged = with_header(sound, "signature", bytes(64))
    kinds = (
        forged,
        with_header(forged, "keyring", b"9000"),
        with_header(forged, "signer", b"nobody-1"),
        replace(forged, headers=()),
        replace(forged, value=b"\0" * 40_000),
        replace(forged, key=None),
    )
    lanes = range(doors.settings.log.lanes)
    doors.send(*(replace(kind, partition=lane) for _ in range(200) for lane in lanes for kind in kinds))
    for number in lanes:
        name = next(n for i in range(10_000) if lane_of(n := f"{model}-{i}", len(lanes)) == number)
        doors.answered(name)
    doors.check_up()
    assert not doors.refusals(model)
    until(lambda: doors.letters("promoter", model), "some of it is kept as evidence")
    assert len(doors.letters("promoter", model)) < 200 * len(kinds)
