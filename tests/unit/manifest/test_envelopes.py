"""DSSE envelopes and in-toto statements: what verifies, and everything that must not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from nacl.signing import SigningKey

from ai_infra.events.statement import pae
from ai_infra.manifest.dsse import Envelope, sign_envelope, signed_size
from ai_infra.manifest.exceptions import BadEnvelope, BadEnvelopeSignature, BadStatement, StatementTooLarge
from ai_infra.manifest.statement import Statement, Subject, open_statement

KEY, OTHER = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32)
PUBLIC, OTHER_PUBLIC = bytes(KEY.verify_key), bytes(OTHER.verify_key)
PAYLOAD = b'{"hello":"world"}'


def sign(message: bytes) -> bytes:
    return KEY.sign(message).signature


def document(**change: Any) -> str:
    return json.dumps(json.loads(sign_envelope(PAYLOAD, sign, "key-1").to_text()) | change)


def test_the_pre_authentication_encoding_is_that_of_the_specification() -> None:
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected
    assert pae("é", b"") == "DSSEv1 2 é 0 ".encode()


def test_a_verifier_gets_the_very_bytes_that_were_signed() -> None:
    envelope = sign_envelope(PAYLOAD, sign, "key-1", public_key=PUBLIC)
    assert Envelope.parse(envelope.to_text()) == envelope
    assert envelope.verify(PUBLIC) is envelope.payload
    assert json.loads(envelope.to_text())["payloadType"] == "application/vnd.in-toto+json"


def test_a_keyid_neither_makes_nor_breaks_a_signature() -> None:
    for key_id in ("key-1", "", "somebody-else"):
        Envelope.parse(sign_envelope(PAYLOAD, sign, key_id).to_text()).verify(PUBLIC)
    forged = sign_envelope(PAYLOAD, lambda message: OTHER.sign(message).signature, "key-1")
    with pytest.raises(BadEnvelopeSignature, match="key-1"):
        forged.verify(PUBLIC)


def test_one_good_signature_among_several_is_enough() -> None:
    ours = sign_envelope(PAYLOAD, sign, "key-1")
    theirs = sign_envelope(PAYLOAD, lambda message: OTHER.sign(message).signature, "key-2")
    both = Envelope(ours.payload_type, PAYLOAD, ours.signatures + theirs.signatures)
    assert both.verify(PUBLIC) == both.verify(OTHER_PUBLIC) == PAYLOAD


def test_url_safe_base64_is_read_as_dsse_allows() -> None:
    payload = b"\xfb\xff\xfe" * 5
    envelope = sign_envelope(payload, sign, "key-1")
    safe = envelope.to_text().replace("+", "-").replace("-json", "+json")
    value = json.loads(envelope.to_text())
    value["payload"] = base64.urlsafe_b64encode(payload).decode()
    assert "-" in value["payload"] or "_" in value["payload"]
    assert Envelope.parse(json.dumps(value)).verify(PUBLIC) == payload
    assert safe


def test_every_changed_bit_of_a_payload_is_found() -> None:
    envelope = sign_envelope(PAYLOAD, sign, "key-1")
    for at in range(len(PAYLOAD) * 8):
        changed = bytearray(PAYLOAD)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(BadEnvelopeSignature):
            Envelope(envelope.payload_type, bytes(changed), envelope.signatures).verify(PUBLIC)


def test_a_signature_over_another_payload_type_does_not_count() -> None:
    envelope = sign_envelope(PAYLOAD, sign, "key-1", payload_type="application/vnd.ai-infra.event.v1+json")
    with pytest.raises(BadEnvelope, match="payload"):
        envelope.verify(PUBLIC)
    relabelled = Envelope("application/vnd.in-toto+json", envelope.payload, envelope.signatures)
    with pytest.raises(BadEnvelopeSignature):
        relabelled.verify(PUBLIC)


@pytest.mark.parametrize("public", [b"", PUBLIC[:-1], PUBLIC + b"\0", bytes(32), OTHER_PUBLIC])
def test_no_other_key_verifies(public: bytes) -> None:
    with pytest.raises(BadEnvelopeSignature):
        sign_envelope(PAYLOAD, sign, "key-1").verify(public)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        document(payload=None),
        document(payload="not base64!"),
        document(payload="AAA"),
        document(payloadType=1),
        document(signatures=[]),
        document(signatures={}),
        document(signatures=["AAAA"]),
        document(signatures=[{"keyid": 1, "sig": "AAAA"}]),
        document(signatures=[{"keyid": "k"}]),
        document(signatures=[{"keyid": "k", "sig": "AAAA"}] * 17),
        document(padding="x" * 17_000),
        document()[:-1] + ',"payload":"AAAA"}',
        document(keyid="\x00"),
        "\ud800",
    ],
)
def test_what_is_not_an_envelope_is_refused(text: str) -> None:
    with pytest.raises(BadEnvelope):
        Envelope.parse(text)


def test_nothing_longer_than_a_kms_signs_is_signed() -> None:
    room = 4096 - signed_size(b"")
    largest = b"x" * (room - 3)  # three more digits of its length
    assert signed_size(largest) == 4096
    sign_envelope(largest, sign, "key-1")
    with pytest.raises(StatementTooLarge, match="4097"):
        sign_envelope(largest + b"x", sign, "key-1")


def test_a_signing_service_that_answers_wrongly_is_found_out() -> None:
    for answer in (b"", bytes(63), bytes(64), OTHER.sign(PAYLOAD).signature):
        with pytest.raises(BadEnvelopeSignature):
            sign_envelope(PAYLOAD, lambda message, answer=answer: answer, "key-1", public_key=PUBLIC)


STATEMENT = Statement((Subject("artifact", "a" * 64),), "urn:test", {"n": 1})


def test_a_statement_reads_back_and_names_its_subjects() -> None:
    envelope = STATEMENT.sign(sign, "key-1")
    assert open_statement(Envelope.parse(envelope.to_text()), PUBLIC, "urn:test") == STATEMENT
    assert STATEMENT.subject("artifact") == "a" * 64
    with pytest.raises(BadStatement):
        STATEMENT.subject("manifest")


@pytest.mark.parametrize(
    "change",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"predicateType": "urn:other"},
        {"predicate": []},
        {"subject": []},
        {"subject": [{"name": "artifact"}]},
        {"subject": [{"name": "artifact", "digest": {"sha1": "a" * 40}}]},
        {"subject": [{"name": "artifact", "digest": {"sha256": "A" * 64}}]},
        {"subject": [{"name": 1, "digest": {"sha256": "a" * 64}}]},
        {"subject": [{"digest": {"sha256": "a" * 64}}] * 17},
    ],
)
def test_a_signed_payload_that_is_another_statement_is_refused(change: dict[str, Any]) -> None:
    value = json.loads(STATEMENT.to_bytes()) | change
    with pytest.raises(BadStatement):
        Statement.parse(json.dumps(value).encode(), "urn:test")


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"_type":1,"_type":2}', b"\xff", b"[" * 100_000])
def test_a_signed_payload_that_is_no_statement_is_refused(payload: bytes) -> None:
    with pytest.raises(BadStatement):
        Statement.parse(payload, "urn:test")
