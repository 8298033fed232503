"""What is signed about an artifact keeps its bytes: vectors that two readings of the format agree on.

A change that alters these bytes breaks signatures that exist: it needs a new predicate type or manifest version, not
new vectors.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from ai_infra.events.generated import DatasetRef
from ai_infra.manifest.approval import Approval, sign_approval
from ai_infra.manifest.decision import CountedApproval, PromotionDecision, sign_decision
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.provenance import Run, provenance_statement
from ai_infra.manifest.registration import Registration, sign_registration
from ai_infra.manifest.training import LogRef, TrainingManifest

HERE = Path(__file__).parent
KEY = SigningKey(bytes(range(32)))  # a seed for test vectors, known to everybody
START, END = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2026, 1, 2, 3, 5, 6, 789_000, UTC)


def sign(message: bytes) -> bytes:
    return KEY.sign(message).signature


def made() -> dict[str, str]:
    """The vectors, made by our code."""
    manifest = TrainingManifest.of(
        model="digits",
        task="classification",
        template="urn:ai-infra:template:python:v1",
        code_ref="git+https://example.com/models@0123456789abcdef0123456789abcdef01234567#digits",
        container_digest=None,
        dataset_refs=[DatasetRef(id="digits", checksum="sha256:" + "b" * 64, version="1.9", uri="s3://data/digits")],
        hyperparams={"C": 0.5, "kernel": "rbf", "layers": [64, 32], "noisy": True, "müde": None},
        seed=20_260_102,
        training_cmd=["python", "train.py", "--out", "model.onnx"],
        environment={"interpreter": "CPython 3.11.7", "threads": "1"},
        metrics={"accuracy": 0.9722222222222222, "samples": 360},
        logs=[LogRef("stdout", "s3://models/jobs/1/stdout", "e" * 64)],
        artifact_uri="s3://models/artifacts/c",
        artifact_sha256="c" * 64,
        artifact_bytes=12_345,
        training_job_id="01234567-89ab-7def-8123-456789abcdef",
        created_at=END,
    )
    run = Run(
        builder_id="urn:ai-infra:trainer", started_on=START, finished_on=END, manifest_uri="s3://models/manifests/m"
    )
    provenance = provenance_statement(manifest, run).sign(sign, "trainer-1")
    registration = Registration(
        artifact_id=manifest.artifact_id,
        model="digits",
        version=1,
        artifact_sha256=manifest.artifact_sha256,
        artifact_bytes=manifest.artifact_bytes,
        manifest_sha256=manifest.sha256,
        provenance_sha256=provenance.sha256,
        input_checksum=manifest.input_checksum,
        builder_id=run.builder_id,
        produced_event_id="11234567-89ab-7def-8123-456789abcdef",
        keyring_version=1,
        rules="registry/v1",
        registered_at=END,
    )
    signature = sign_registration(registration, sign, "manifest-1")
    approval = Approval(
        promotion_id="21234567-89ab-7def-8123-456789abcdef",
        approver="approver-1",
        artifact_sha256=manifest.artifact_sha256,
        manifest_sha256=manifest.sha256,
        target_env="prod",
        expected_current_digest=None,
        policy_digest="d" * 64,
        decision_id=None,
        nonce="31234567-89ab-7def-8123-456789abcdef",
        keyring_version=1,
        not_after=END,
        decision="approve",
        reason="looked at the evaluation",
    )
    approved = sign_approval(approval, sign, "approver-1")
    decision = PromotionDecision(
        promotion_id=approval.promotion_id,
        kind="promotion",
        model="digits",
        artifact_id=manifest.artifact_id,
        artifact_sha256=manifest.artifact_sha256,
        manifest_sha256=manifest.sha256,
        manifest_signature_id=signature.manifest_signature_id,
        target_env="prod",
        status="approved",
        passed=True,
        verifier_id="urn:ai-infra:verifier:static-threshold",
        policy_version=0,
        policy_sha256="d" * 64,
        policy_answer_sha256="f" * 64,
        fallback=False,
        evaluation_id=None,
        score_e6=972_222,
        threshold_e6=850_000,
        approvals=(CountedApproval("approver-1", "approver-1", approved.sha256),),
        expected_current_artifact_id="",
        plan_percent=(100,),
        requested_by="operator",
        request_event_id=approval.nonce,
        keyring_version=1,
        rules="promoter/v1",
        decided_at=END,
    )
    return {
        "public_key": base64.b64encode(bytes(KEY.verify_key)).decode(),
        "manifest": manifest.to_bytes().decode(),
        "manifest_sha256": manifest.sha256,
        "artifact_id": manifest.artifact_id,
        "input_checksum": manifest.input_checksum,
        "provenance": provenance.to_text(),
        "registration": signature.envelope,
        "manifest_signature_id": signature.manifest_signature_id,
        "approval": approved.to_text(),
        "decision": sign_decision(decision, sign, "promotion-1").to_text(),
    }


def vectors() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "vectors.json").read_text())
    return found


def independently(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "independent.py"), str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_our_bytes_are_those_of_the_vectors() -> None:
    assert made() == vectors()


def test_a_reading_that_uses_nothing_of_ours_agrees() -> None:
    source = (HERE / "independent.py").read_text()
    assert "import ai_infra" not in source
    assert "from ai_infra" not in source
    checked = independently(HERE / "vectors.json")
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["provenance", "registration", "approval", "decision"])
def test_a_reading_that_uses_nothing_of_ours_finds_a_changed_statement(name: str, tmp_path: Path) -> None:
    changed = vectors()
    envelope = Envelope.parse(changed[name])
    other = dataclasses.replace(envelope, payload=envelope.payload.replace(b"c" * 64, b"a" * 64))
    assert other != envelope
    (tmp_path / "vectors.json").write_text(json.dumps(changed | {name: other.to_text()}))
    checked = independently(tmp_path / "vectors.json")
    assert checked.returncode != 0
