"""From body to signed record and back: the signature covers everything that means something."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from ai_infra.events.codec import registry_framing
from ai_infra.events.compose import SignedRecord
from ai_infra.events.event import Cause, Record
from ai_infra.events.exceptions import BadSignature, EventError, MalformedEvent, UnknownSchema, WrongKey, WrongLane
from ai_infra.events.generated import (
    AuditFinding,
    FindingKind,
    JobCancelRequested,
    OperatorAction,
    PolicyChanged,
    ProducerHeartbeat,
)
from ai_infra.events.lanes import lane_of
from ai_infra.events.parse import parse_headers, read, verify_signature
from ai_infra.events.statement import EVENT_PAYLOAD_TYPE, event_hash, pae

Say = Callable[..., SignedRecord]
Received = Callable[[SignedRecord], Record]
LANES = 8
BODY = JobCancelRequested(job_id="j", model="digits", reason="r", requested_by="me")
HEARTBEAT = ProducerHeartbeat(producer="trainer/3", epoch=0, seq=9, event_hash="ab" * 32)
ACTION = OperatorAction(action="dlq.redrive", target="x", arguments_json="{}", reason="r", operator="operator")
POLICY = PolicyChanged(version=1, policy_json="{}", policy_sha256="ab" * 32, reason="r")
OTHER = "018f0000-0000-7000-8000-0000000000ff"


def test_what_was_said_is_what_is_read(say: Say, received: Received, public_key: bytes) -> None:
    signed = say(BODY, subject="größe", producer="trainer/7", epoch=0, seq=1, causes=(Cause(OTHER, 3),))
    unverified = read(received(signed), LANES)
    verify_signature(unverified, public_key)
    assert unverified.decode() == BODY
    assert unverified.hash == signed.hash == event_hash(unverified.message)
    assert (unverified.key, unverified.model, unverified.lane) == ("digits", "digits", lane_of("digits", LANES))


def test_the_statement_names_everything_in_canonical_order(say: Say, received: Received) -> None:
    signed = say(BODY)
    message = read(received(signed), LANES).message
    statement = message.split(b" ", 4)[4]
    claims = json.loads(statement)
    assert message == pae(EVENT_PAYLOAD_TYPE, statement)
    assert list(claims) == sorted(claims)
    assert claims == {
        "body_sha256": hashlib.sha256(signed.value[10:]).hexdigest(),
        "causes": [],
        "ce_dataschema": f"urn:ai-infra:schema:{BODY.SCHEMA_SHA256}",
        "ce_id": signed.id,
        "ce_source": "//ai-infra/test",
        "ce_specversion": "1.0",
        "ce_subject": None,
        "ce_time": "2026-01-02T03:04:05.678Z",
        "ce_type": "job.cancel_requested",
        "content_type": "application/avro",
        "delegation_sha256": hashlib.sha256(b"d" * 300).hexdigest(),
        "epoch": None,
        "key": "digits",
        "keyring": 1,
        "lane": signed.partition,
        "prev": None,
        "producer": None,
        "schema_sha256": BODY.SCHEMA_SHA256,
        "seq": None,
        "signer": "trainer-1",
        "topic": "job.cancel_requested",
    }


def test_pae_counts_bytes_as_dsse_says() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("ü", b"") == b"DSSEv1 2 \xc3\xbc 0 "


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_id", OTHER.encode()),
        ("ce_source", b"//elsewhere"),
        ("ce_time", b"2026-01-02T03:04:05.679Z"),
        ("ce_subject", b"s"),
        ("signer", b"trainer-2"),
        ("delegation", b"e" * 300),
        ("keyring", b"2"),
        ("epoch", b"1"),
        ("seq", b"3"),
        ("prev", b"cd" * 32),
        ("producer", b"trainer/6"),
        ("causes", b'[{"id":"%b","lane":4}]' % OTHER.encode()),
        ("signature", bytes(64)),
        ("signature", b"\xff" * 64),
    ],
)
def test_no_header_can_be_changed(say: Say, received: Received, public_key: bytes, name: str, value: bytes) -> None:
    signed = say(
        BODY, subject="digits", producer="trainer/7", epoch=0, seq=2, prev="ab" * 32, causes=(Cause(OTHER, 3),)
    )
    record = received(signed)
    tampered = replace(record, headers=tuple({**dict(record.headers), name: value}.items()))
    with pytest.raises(BadSignature):
        verify_signature(read(tampered, LANES), public_key)


@pytest.mark.parametrize("name", ["ce_subject", "causes"])
def test_no_header_can_be_taken_away(say: Say, received: Received, public_key: bytes, name: str) -> None:
    record = received(say(BODY, subject="digits", causes=(Cause(OTHER, 3),)))
    tampered = replace(record, headers=tuple(item for item in record.headers if item[0] != name))
    with pytest.raises(BadSignature):
        verify_signature(read(tampered, LANES), public_key)


def test_the_body_can_not_be_changed(say: Say, received: Received, public_key: bytes) -> None:
    record = received(say(BODY))
    assert record.value is not None
    tampered = replace(record, value=record.value[:-1] + b"x")
    with pytest.raises(BadSignature):
        verify_signature(read(tampered, LANES), public_key)


def test_an_event_can_not_move_to_another_model_lane_or_topic(say: Say, received: Received, public_key: bytes) -> None:
    record = received(say(BODY))
    moved = replace(record, key=b"model-1", partition=lane_of("model-1", LANES))
    with pytest.raises(BadSignature):
        verify_signature(read(moved, LANES), public_key)
    with pytest.raises(WrongKey):
        read(moved, LANES).decode()
    with pytest.raises(WrongLane):
        read(replace(record, partition=(record.partition + 1) % LANES), LANES)
    with pytest.raises(MalformedEvent, match="ce_type"):
        read(replace(record, topic="artifact.revoked"), LANES)
    with pytest.raises(WrongLane):
        read(record, LANES + 3)


@pytest.mark.parametrize("key", [None, b"", b"_lane/7", b"_broadcast", b"a/b", b"x" * 129, "größe".encode()])
def test_a_body_about_a_model_travels_under_its_name_only(say: Say, received: Received, key: bytes | None) -> None:
    with pytest.raises(WrongKey):
        read(replace(received(say(BODY)), key=key), LANES)


def test_a_key_that_is_no_text_is_bad_text(say: Say, received: Received) -> None:
    with pytest.raises(EventError, match="UTF-8") as caught:
        read(replace(received(say(BODY)), key=b"\xff"), LANES)
    assert caught.value.code == "bad_text"


def test_a_heartbeat_travels_under_its_lane(say: Say, received: Received, public_key: bytes) -> None:
    unverified = read(received(say(HEARTBEAT, key="_lane/3", lane=3)), LANES)
    verify_signature(unverified, public_key)
    assert (unverified.key, unverified.model, unverified.lane) == ("_lane/3", "", 3)
    assert unverified.decode() == HEARTBEAT
    finding = AuditFinding(kind=FindingKind.WITHHELD, lane_of=3, detail="d")
    assert read(received(say(finding, key="_lane/3", lane=3)), LANES).model == ""


def test_a_lane_key_belongs_to_its_partition_and_to_a_lane_that_exists(say: Say, received: Received) -> None:
    with pytest.raises(WrongLane):
        say(HEARTBEAT, key="_lane/3", lane=4)
    record = received(say(HEARTBEAT, key="_lane/3", lane=3))
    with pytest.raises(WrongLane):
        read(replace(record, partition=4), LANES)
    with pytest.raises(WrongKey):
        read(record, 3)
    with pytest.raises(WrongKey):
        say(HEARTBEAT, key="digits", lane=lane_of("digits", LANES))


def test_an_operators_action_is_about_a_lane_or_a_model(say: Say, received: Received) -> None:
    assert read(received(say(ACTION, key="_lane/0", lane=0)), LANES).model == ""
    assert read(received(say(ACTION, key="digits")), LANES).model == "digits"
    with pytest.raises(WrongKey):
        say(ACTION, key="_broadcast", lane=0)


def test_a_policy_is_broadcast(say: Say, received: Received) -> None:
    record = received(say(POLICY, key="_broadcast", lane=0))
    assert (read(record, LANES).model, read(record, LANES).lane) == ("", 0)
    with pytest.raises(WrongLane):
        read(replace(record, partition=1), LANES)
    with pytest.raises(WrongLane):
        say(POLICY, key="_broadcast", lane=1)
    with pytest.raises(WrongKey):
        say(POLICY, key="_lane/0", lane=0)


def test_a_body_about_another_model_than_the_key_is_not_composed(say: Say) -> None:
    with pytest.raises(WrongKey):
        say(BODY, key="model-1")


def test_a_record_without_a_body_is_malformed(say: Say, received: Received) -> None:
    with pytest.raises(MalformedEvent):
        read(replace(received(say(BODY)), value=None), LANES)


def test_a_schema_that_the_header_names_and_nobody_knows_is_unknown(say: Say, received: Received) -> None:
    record = received(say(BODY))
    other = {**dict(record.headers), "ce_dataschema": b"urn:ai-infra:schema:" + b"00" * 32}
    with pytest.raises(UnknownSchema):
        read(replace(record, headers=tuple(other.items())), LANES)


def test_a_registry_framing_carries_the_same_signature(say: Say, received: Received, public_key: bytes) -> None:
    record = received(say(BODY))
    assert record.value is not None
    unverified = read(replace(record, value=registry_framing(5) + record.value[10:]), LANES)
    verify_signature(unverified, public_key)
    assert unverified.decode() == BODY


def test_thirty_two_causes_and_the_longest_texts_still_fit_into_a_message(say: Say, received: Received) -> None:
    signed = say(
        BODY,
        source="s" * 256,
        subject="s" * 256,
        signer="s" * 128,
        producer="p" * 128,
        epoch=2**53 - 1,
        seq=2**53 - 1,
        prev="ab" * 32,
        keyring=2**53 - 1,
        causes=(Cause(OTHER, 999_999),) * 32,
    )
    assert len(read(received(signed), LANES).message) < 4096


def test_a_message_that_could_not_be_signed_is_refused(say: Say) -> None:
    quotes = '"' * 256
    with pytest.raises(MalformedEvent, match="4095"):
        say(BODY, source=quotes, subject=quotes, signer='"' * 128, producer='"' * 128, epoch=0, seq=1,
            causes=(Cause(OTHER, 999_999),) * 32)  # fmt: skip


def test_a_time_in_another_zone_is_said_in_utc_to_the_millisecond(say: Say, received: Received) -> None:
    time = datetime(2026, 1, 2, 5, 4, 5, 678_999, timezone(timedelta(hours=2)))
    attributes = parse_headers(received(say(BODY, time=time)))
    assert attributes.time == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)


def test_a_signer_that_returns_something_else_is_caught(say: Say) -> None:
    with pytest.raises(MalformedEvent, match="64"):
        say(BODY, sign=lambda message: b"short")


def test_a_public_key_of_another_length_verifies_nothing(say: Say, received: Received) -> None:
    with pytest.raises(BadSignature):
        verify_signature(read(received(say(BODY)), LANES), b"k" * 31)
