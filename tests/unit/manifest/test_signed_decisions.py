"""Registrations, decisions and approvals: each reads back exactly, and is about nothing else."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from nacl.signing import SigningKey

from ai_infra.manifest.approval import Approval, open_approval, sign_approval
from ai_infra.manifest.decision import CountedApproval, PromotionDecision, open_decision, sign_decision
from ai_infra.manifest.dsse import sign_envelope
from ai_infra.manifest.exceptions import BadEnvelopeSignature, BadStatement, ManifestError, StatementTooLarge
from ai_infra.manifest.identity import manifest_signature_id
from ai_infra.manifest.registration import Registration, open_registration, sign_registration

KEY = SigningKey(b"\1" * 32)
PUBLIC, OTHER = bytes(KEY.verify_key), bytes(SigningKey(b"\2" * 32).verify_key)
NOW = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
ARTIFACT = "abaf9281-39b6-52cd-a325-b16830c8d75c"


def sign(message: bytes) -> bytes:
    return KEY.sign(message).signature


REGISTRATION = Registration(
    artifact_id=ARTIFACT,
    model="digits",
    version=3,
    artifact_sha256="a" * 64,
    artifact_bytes=12_345,
    manifest_sha256="b" * 64,
    provenance_sha256="c" * 64,
    input_checksum="d" * 64,
    builder_id="urn:ai-infra:trainer",
    produced_event_id="01234567-89ab-7def-8123-456789abcdef",
    keyring_version=2,
    rules="registry/v1",
    registered_at=NOW,
)
DECISION = PromotionDecision(
    promotion_id="01234567-89ab-7def-8123-456789abcdef",
    kind="promotion",
    model="digits",
    artifact_id=ARTIFACT,
    artifact_sha256="a" * 64,
    manifest_sha256="b" * 64,
    manifest_signature_id="11111111-39b6-52cd-a325-b16830c8d75c",
    target_env="prod",
    status="approved",
    passed=True,
    verifier_id="urn:ai-infra:verifier:static-threshold",
    policy_version=0,
    policy_sha256="e" * 64,
    policy_answer_sha256="f" * 64,
    fallback=False,
    evaluation_id="22222222-89ab-7def-8123-456789abcdef",
    score_e6=972_222,
    threshold_e6=850_000,
    approvals=(CountedApproval("approver-1", "approver-1", "1" * 64),),
    expected_current_artifact_id=None,
    plan_percent=(100,),
    requested_by="operator",
    request_event_id="33333333-89ab-7def-8123-456789abcdef",
    keyring_version=2,
    rules="promoter/v1",
    decided_at=NOW,
)
APPROVAL = Approval(
    promotion_id="01234567-89ab-7def-8123-456789abcdef",
    approver="approver-1",
    artifact_sha256="a" * 64,
    manifest_sha256="b" * 64,
    target_env="prod",
    expected_current_digest="",
    policy_digest="e" * 64,
    decision_id=None,
    nonce="33333333-89ab-7def-8123-456789abcdef",
    keyring_version=2,
    not_after=NOW,
    decision="approve",
    reason="the canary of last week looked good – é",
)


def test_a_registration_is_a_manifest_signature_that_reads_back() -> None:
    signature = sign_registration(REGISTRATION, sign, "manifest-1", public_key=PUBLIC)
    assert signature.signer_id == "manifest-1"
    assert signature.ts == NOW
    assert signature.signature == json.loads(signature.envelope)["signatures"][0]["sig"]
    assert signature.manifest_signature_id == manifest_signature_id(signature.envelope.encode())
    assert open_registration(signature.envelope, PUBLIC) == REGISTRATION


def test_the_same_registration_signed_again_is_the_same_signature() -> None:
    assert sign_registration(REGISTRATION, sign, "manifest-1") == sign_registration(REGISTRATION, sign, "manifest-1")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Registration)])
def test_a_registration_of_anything_else_than_expected_is_refused(field: str) -> None:
    envelope = sign_registration(REGISTRATION, sign, "manifest-1").envelope
    value = getattr(REGISTRATION, field)
    open_registration(envelope, PUBLIC, expected={field: value})
    with pytest.raises(BadStatement, match=field):
        open_registration(envelope, PUBLIC, expected={field: f"not {value}"})


def test_a_registration_in_another_spelling_has_another_id_and_is_refused() -> None:
    envelope = sign_registration(REGISTRATION, sign, "manifest-1").envelope
    with pytest.raises(BadStatement, match="canonical"):
        open_registration(json.dumps(json.loads(envelope)), PUBLIC)


def test_a_decision_reads_back_and_is_a_verification_summary() -> None:
    envelope = sign_decision(DECISION, sign, "promotion-1", public_key=PUBLIC)
    assert open_decision(envelope.to_text(), PUBLIC) == DECISION
    value = json.loads(envelope.payload)
    assert value["predicateType"] == "https://slsa.dev/verification_summary/v1"
    predicate = value["predicate"]
    assert predicate["verificationResult"] == "PASSED"
    assert predicate["verifiedLevels"] == ["AI_INFRA_PROMOTED_PROD"]
    assert predicate["policy"]["digest"] == {"sha256": "e" * 64}
    assert predicate["inputAttestations"] == [{"digest": {"sha256": "1" * 64}}]


def test_a_refusal_is_a_failed_verification() -> None:
    refused = dataclasses.replace(DECISION, passed=False, status="rejected", score_e6=-1, approvals=())
    envelope = sign_decision(refused, sign, "promotion-1")
    assert open_decision(envelope.to_text(), PUBLIC) == refused
    assert json.loads(envelope.payload)["predicate"]["verifiedLevels"] == ["FAILED"]


def test_five_approvals_with_long_names_fit_into_what_a_kms_signs() -> None:
    approvals = tuple(CountedApproval(f"approver-{i}" + "x" * 50, f"key-{i}" + "x" * 50, f"{i:064x}") for i in range(5))
    many = dataclasses.replace(DECISION, approvals=approvals)
    assert open_decision(sign_decision(many, sign, "promotion-1").to_text(), PUBLIC) == many


def spoil(statement: Any, *path: Any, value: Any) -> str:
    """A signed envelope whose statement was changed at one place."""
    document = json.loads(statement.to_bytes())
    at = document
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return sign_envelope(json.dumps(document).encode(), sign, "key").to_text()


EXTENSION = ("predicate", "aiInfra_promotion")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicate", "verificationResult"), "MAYBE"),
        (("predicate", "verificationResult"), "FAILED"),
        (("predicate", "verifiedLevels"), ["SLSA_BUILD_LEVEL_3"]),
        (("predicate", "resourceUri"), "urn:ai-infra:model:other:prod"),
        (("predicate", "inputAttestations"), []),
        (("predicate", "policy", "uri"), "urn:ai-infra:policy:9"),
        ((*EXTENSION, "target_env"), "dev"),
        ((*EXTENSION, "fallback"), 0),
        ((*EXTENSION, "fallback"), "false"),
        ((*EXTENSION, "score_e6"), 0.97),
        ((*EXTENSION, "score_e6"), "972222"),
        ((*EXTENSION, "surprise"), 1),
        ((*EXTENSION, "approvals"), [["approver-1", "approver-1", "x"]]),
        ((*EXTENSION, "approvals"), [["approver-1", "approver-1"]]),
        ((*EXTENSION, "plan_percent"), [True]),
        ((*EXTENSION, "plan_percent"), [101]),
        ((*EXTENSION, "plan_percent"), 100),
    ],
)
def test_a_signed_decision_that_contradicts_itself_is_refused(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(BadStatement):
        open_decision(spoil(DECISION.statement(), *path, value=value), PUBLIC)


def test_more_approvals_than_people_are_not_signed() -> None:
    with pytest.raises(BadStatement):
        sign_decision(dataclasses.replace(DECISION, approvals=DECISION.approvals * 9), sign, "promotion-1")


def test_an_approval_reads_back() -> None:
    for approval in (APPROVAL, dataclasses.replace(APPROVAL, decision="reject", decision_id="x")):
        envelope = sign_approval(approval, sign, "approver-1", public_key=PUBLIC)
        assert open_approval(envelope.to_text(), PUBLIC) == approval


@pytest.mark.parametrize(
    "change",
    [{"decision": "maybe"}, {"decision": ""}, {"reason": "x" * 1001}, {"reason": "é" * 501}],
)
def test_an_approval_that_says_neither_yes_nor_no_or_too_much_is_not_signed(change: dict[str, str]) -> None:
    with pytest.raises(BadStatement):
        sign_approval(dataclasses.replace(APPROVAL, **change), sign, "approver-1")


def test_a_reason_of_the_longest_kind_fits_into_what_a_kms_signs() -> None:
    longest = dataclasses.replace(APPROVAL, reason='"' * 1000)
    try:
        sign_approval(longest, sign, "approver-1")
    except StatementTooLarge:
        pytest.fail("1,000 bytes of reason, each escaped, still fit")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicate", "decision"), "yes"),
        (("predicate", "not_after"), "tomorrow"),
        (("predicate", "policy_digest"), None),
        (("predicate", "nonce"), None),
        (("predicate", "surprise"), 1),
        (("subject",), []),
        (("subject", 0, "name"), "artifact"),
    ],
)
def test_signed_bytes_that_are_no_approval_are_refused(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(BadStatement):
        open_approval(spoil(APPROVAL.statement(), *path, value=value), PUBLIC)


def test_a_signature_over_one_kind_of_statement_is_no_signature_over_another() -> None:
    registration = sign_registration(REGISTRATION, sign, "manifest-1").envelope
    decision = sign_decision(DECISION, sign, "promotion-1").to_text()
    approval = sign_approval(APPROVAL, sign, "approver-1").to_text()
    openers = {registration: open_registration, decision: open_decision, approval: open_approval}
    for envelope, own in openers.items():
        own(envelope, PUBLIC)
        with pytest.raises(BadEnvelopeSignature):
            own(envelope, OTHER)
        for other in openers.values():
            if other is not own:
                with pytest.raises(ManifestError):
                    other(envelope, PUBLIC)
