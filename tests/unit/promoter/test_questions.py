"""How the promoter's questions are answered: by the manifest key's signature, and by the static threshold."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from ai_infra.bus.decision import WorkItem
from ai_infra.errors import ConfigurationError, UnavailableError
from ai_infra.events.event import Cause
from ai_infra.events.generated import Environment, PromotionKind
from ai_infra.manifest.registration import Registration, sign_registration
from ai_infra.settings import load_settings
from ai_infra.trust.keyring import MANIFEST, PROMOTION, Key, Revocation
from ai_infra.trust.signers import LocalSigner
from ai_infra_promoter.questions import ManifestQuestion, PolicyQuestion
from ai_infra_promoter.service import build
from ai_infra_promoter.threshold import StaticThreshold
from ai_infra_promoter.verification import ManifestVerification

SIGNER = LocalSigner("manifest-1", bytes(range(32)))
NOW = datetime(2025, 1, 1, tzinfo=UTC)
REGISTRATION = Registration(
    artifact_id="0e0f6a5e-1111-5222-8333-444455556666",
    model="digits",
    version=3,
    artifact_sha256="a" * 64,
    artifact_bytes=7,
    manifest_sha256="b" * 64,
    provenance_sha256="c" * 64,
    input_checksum="d" * 64,
    builder_id="urn:trainer",
    produced_event_id="e1",
    keyring_version=1,
    rules="registry/v1",
    registered_at=NOW,
)
SIGNED = sign_registration(REGISTRATION, SIGNER.sign, SIGNER.key_id)
QUESTION = ManifestQuestion(
    promotion_id="p1",
    model="digits",
    artifact_id=REGISTRATION.artifact_id,
    version=3,
    artifact_sha256="a" * 64,
    manifest_sha256="b" * 64,
    manifest_signature_id=SIGNED.manifest_signature_id,
    signer_id="manifest-1",
    envelope=SIGNED.envelope,
    tries=0,
)


def key(**changes: Any) -> Key:
    return replace(Key("manifest-1", SIGNER.public_key, "", MANIFEST), **changes)


def answer(question: ManifestQuestion, *keys: Key, revoked: bool = False) -> tuple[str, ...]:
    """Codes of the reasons, by a keyring with these keys."""
    revocations = {"manifest-1": Revocation("manifest-1", 0, "lost")} if revoked else {}
    known = {k.id: k for k in keys}

    def key_of(key_id: str, use: str) -> Key | None:
        found = known.get(key_id)
        return found if found is not None and found.use == use else None

    keyring = SimpleNamespace(version=1, key_of=key_of, revocations=revocations)
    verification = ManifestVerification()
    verification.learn(SimpleNamespace(latest=keyring, latest_version=1))  # type: ignore[arg-type]  # what it reads
    found = verification.run(WorkItem("k", "w", question, 1, "digits", 0, Cause("e", 0), threading.Event()))
    return tuple(r.code for r in found.reasons)


def test_a_good_manifest_signature_has_nothing_against_it() -> None:
    assert answer(QUESTION, key()) == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact_sha256": "f" * 64},
        {"manifest_sha256": "f" * 64},
        {"model": "other"},
        {"artifact_id": "another"},
        {"version": 4},
        {"manifest_signature_id": "another"},
        {"envelope": SIGNED.envelope.replace("a", "b", 1)},
    ],
)
def test_a_signature_over_anything_else_does_not_count(changes: dict[str, Any]) -> None:
    assert answer(replace(QUESTION, **changes), key()) == ("manifest_signature_invalid",)


def test_a_key_that_is_unknown_or_for_another_use_or_revoked_or_not_yet_alive_does_not_count() -> None:
    assert answer(QUESTION) == ("unknown_manifest_key",)
    assert answer(QUESTION, key(use=PROMOTION)) == ("unknown_manifest_key",)
    assert answer(QUESTION, key(), revoked=True) == ("revoked_key",)
    later = int(NOW.timestamp() * 1000) + 1
    assert answer(QUESTION, key(not_before=later)) == ("manifest_signature_invalid",)
    assert answer(QUESTION, key(not_after=later)) == ()  # a retired key keeps what it signed in its life


def test_without_a_keyring_it_is_asked_again() -> None:
    with pytest.raises(UnavailableError):
        ManifestVerification().run(WorkItem("k", "w", QUESTION, 1, "m", 0, Cause("e", 0), threading.Event()))


def question(**changes: Any) -> PolicyQuestion:
    values: dict[str, Any] = {
        "promotion_id": "p1",
        "model": "digits",
        "artifact_id": "A",
        "env": Environment.PROD,
        "kind": PromotionKind.PROMOTION,
        "requested_by": "someone",
        "manifest_signature_id": "s",
        "evaluation_id": "e",
        "score_e6": 850_000,
        "threshold_e6": None,
        "served_before": False,
        "facts": (),
        "tries": 0,
    }
    return PolicyQuestion(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "allowed"),
    [
        ({}, True),
        ({"score_e6": 849_999}, False),
        ({"score_e6": None, "evaluation_id": None}, False),
        ({"score_e6": None, "served_before": True}, False),
        ({"threshold_e6": 900_000}, False),
        ({"threshold_e6": 0, "score_e6": 0}, True),
        ({"kind": PromotionKind.ROLLBACK, "score_e6": None, "served_before": True}, True),
        ({"kind": PromotionKind.ROLLBACK, "score_e6": None, "served_before": False}, False),
    ],
)
def test_the_threshold_is_reached_or_it_is_not(changes: dict[str, Any], allowed: bool) -> None:
    verdict = StaticThreshold(850_000).judge(question(**changes))
    assert verdict.allowed is allowed
    assert bool(verdict.reasons) is not allowed
    said = orjson.loads(verdict.answer_json)
    assert said["decision"] == ("allow" if allowed else "deny")
    assert said["verifier"] == verdict.verifier_id
    assert said["threshold_e6"] == verdict.threshold_e6


def test_a_promoter_that_should_ask_a_policy_service_does_not_decide_by_a_threshold_instead(tmp_path: Path) -> None:
    build(load_settings(environ={}, directory=tmp_path))
    with pytest.raises(ConfigurationError, match="cannot ask one"):
        build(load_settings(environ={"SENTINELNET_URL": "https://policy.example"}, directory=tmp_path))
