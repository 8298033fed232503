"""What the registry sees when an artifact is not what it claims to be: every lie is found, and named."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ai_infra.devstack import Stack
from ai_infra.events.generated import ArtifactProduced, DatasetRef
from ai_infra.manifest.dsse import Envelope, EnvelopeSignature
from ai_infra.manifest.provenance import PREDICATE_TYPE, Run, provenance_statement
from ai_infra.manifest.statement import Statement
from ai_infra.manifest.training import TrainingManifest
from ai_infra.objects.exceptions import ObjectsUnavailable
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyring_files import latest_keyring
from ai_infra.trust.open import open_client_signer
from ai_infra.trust.provenance import builder_id, sign_provenance
from ai_infra.trust.session import Session
from ai_infra_registry.state import Claim
from ai_infra_registry.verification import Verification


@dataclass
class Workshop:
    """Builds artifacts as an outside trainer would, with a key of its own."""

    objects: ObjectStore
    bucket: str
    keyring: Keyring
    settings: Settings

    def session(self, key_id: str = "trainer-1", events: tuple[str, ...] = (ArtifactProduced.TOPIC,)) -> Session:
        signer = open_client_signer(self.settings, key_id, self.keyring)
        principal = self.keyring.principal_of(key_id)
        assert principal is not None
        return Session(signer, principal.id, events, lambda: self.keyring.version)

    def manifest(self, content: bytes, model: str = "digits") -> TrainingManifest:
        sha256 = hashlib.sha256(content).hexdigest()
        uri = f"s3://{self.bucket}/models/{model}/{sha256}.tar"
        self.objects.put_once(uri, content)
        return TrainingManifest.of(
            model=model,
            template="https://example.org/template",
            code_ref="git+https://example.org/repo@" + "a" * 40,
            container_digest=None,
            dataset_refs=[DatasetRef(id="d", checksum="sha256:" + "b" * 64, version="1", uri="s3://b/d")],
            hyperparams={"c": 0.1},
            seed=1,
            training_cmd=["python", "train.py"],
            environment={},
            metrics={"accuracy": 0.5},
            artifact_uri=uri,
            artifact_sha256=sha256,
            artifact_bytes=len(content),
            created_at=datetime.now(UTC).replace(microsecond=0),
        )

    def claim(self, manifest: TrainingManifest, *, session: Session | None = None, builder: str | None = None) -> Claim:
        session = session or self.session()
        data = manifest.to_bytes()
        manifest_uri = f"s3://{self.bucket}/manifests/{manifest.sha256}.json"
        self.objects.put_once(manifest_uri, data)
        now = datetime.now(UTC).replace(microsecond=0)
        occasion = Run(
            builder_id=builder or builder_id(session.service),
            started_on=now,
            finished_on=now,
            manifest_uri=manifest_uri,
        )
        envelope = sign_provenance(provenance_statement(manifest, occasion), session, requested_by="ann")
        return Claim(
            event_id="e",
            event_type="artifact.produced",
            event_hash="f" * 64,
            signer="trainer-1",
            principal="trainer",
            model=manifest.model,
            job_id=None,
            artifact_id=manifest.artifact_id,
            artifact_uri=manifest.artifact_uri,
            artifact_sha256=manifest.artifact_sha256,
            artifact_bytes=manifest.artifact_bytes,
            manifest_uri=manifest_uri,
            manifest_sha256=manifest.sha256,
            provenance=envelope.to_text(),
            input_checksum=manifest.input_checksum,
            appended=datetime.now(UTC),
        )

    def codes(self, claim: Claim) -> set[str]:
        return {reason.code for reason in self.verification().verify(claim).reasons}

    def verification(self) -> Verification:
        return Verification(lambda: self.objects, lambda _: self.keyring)


@pytest.fixture(scope="module")
def workshop(stack: Stack, settings: Settings) -> Iterator[Workshop]:
    assert settings.keys.dir is not None
    keyring = latest_keyring(settings.keys.dir)
    assert keyring is not None
    with ObjectStore(settings) as objects:
        yield Workshop(objects, settings.objects.models_bucket, keyring, settings)


@pytest.fixture
def content() -> bytes:
    return secrets.token_bytes(64)


def test_a_sound_artifact_has_its_facts_and_no_reason(workshop: Workshop, content: bytes) -> None:
    claim = workshop.claim(workshop.manifest(content))
    found = workshop.verification().verify(claim)
    assert found.reasons == ()
    assert found.facts is not None
    assert found.facts.builder_id == "urn:ai-infra:builder:trainer"
    assert found.facts.created_by == "ann"
    assert '"accuracy_e6":500000' in found.facts.metadata_json


Lie = Callable[[Workshop, bytes], Claim]


def other_bytes(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    bucket, _, key = claim.artifact_uri.removeprefix("s3://").partition("/")
    workshop.objects.client.put_object(Bucket=bucket, Key=key, Body=content[:-1] + bytes([content[-1] ^ 1]))
    return claim


def longer(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    bucket, _, key = claim.artifact_uri.removeprefix("s3://").partition("/")
    workshop.objects.client.put_object(Bucket=bucket, Key=key, Body=content + b"!")
    return claim


def nowhere(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    return replace(claim, artifact_uri=claim.artifact_uri + ".gone")


def other_id(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    return replace(claim, artifact_id=workshop.manifest(b"another").artifact_id)


def other_model(workshop: Workshop, content: bytes) -> Claim:
    return replace(workshop.claim(workshop.manifest(content)), model="letters")


def other_job(workshop: Workshop, content: bytes) -> Claim:
    return replace(workshop.claim(workshop.manifest(content)), job_id="00000000-0000-4000-8000-000000000000")


def no_manifest(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    return replace(claim, manifest_uri=claim.manifest_uri + ".gone")


def other_manifest(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    return replace(claim, manifest_uri=workshop.claim(workshop.manifest(b"another")).manifest_uri)


def lying_manifest(workshop: Workshop, content: bytes) -> Claim:
    return workshop.claim(replace(workshop.manifest(content), input_checksum="0" * 64))


def spaced_manifest(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(manifest := workshop.manifest(content))
    data = manifest.to_bytes().replace(b'":', b'": ', 1)
    uri = f"s3://{workshop.bucket}/manifests/{hashlib.sha256(data).hexdigest()}.json"
    workshop.objects.put_once(uri, data)
    return replace(claim, manifest_uri=uri, manifest_sha256=hashlib.sha256(data).hexdigest())


def provenance_of_another(workshop: Workshop, content: bytes) -> Claim:
    another = workshop.claim(workshop.manifest(b"another"))
    return replace(workshop.claim(workshop.manifest(content)), provenance=another.provenance)


def no_builder(workshop: Workshop, content: bytes) -> Claim:
    return workshop.claim(workshop.manifest(content), session=workshop.session("orchestrator-1"))


def borrowed_name(workshop: Workshop, content: bytes) -> Claim:
    return workshop.claim(workshop.manifest(content), builder="urn:ai-infra:builder:somebody-else")


def other_signature(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    envelope = Envelope.parse(claim.provenance)
    (signature,) = envelope.signatures
    forged = EnvelopeSignature(signature.key_id, bytes(64))
    return replace(claim, provenance=replace(envelope, signatures=(forged,)).to_text())


def another_delegation(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    stranger = Envelope.parse(workshop.claim(workshop.manifest(b"another"), session=workshop.session()).provenance)
    envelope = Envelope.parse(claim.provenance)
    mixed = EnvelopeSignature(stranger.signatures[0].key_id, envelope.signatures[0].signature)
    return replace(claim, provenance=replace(envelope, signatures=(mixed,)).to_text())


def delegated_for_something_else(workshop: Workshop, content: bytes) -> Claim:
    session = workshop.session(events=("job.status",))
    return workshop.claim(workshop.manifest(content), session=session)


def long_ago(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    return replace(claim, appended=datetime(2020, 1, 1, tzinfo=UTC))


def odd_dependencies(workshop: Workshop, content: bytes) -> Claim:
    claim = workshop.claim(workshop.manifest(content))
    statement = Statement.parse(Envelope.parse(claim.provenance).payload, PREDICATE_TYPE)
    definition = {**statement.predicate["buildDefinition"], "resolvedDependencies": ["code"]}
    odd = replace(statement, predicate={**statement.predicate, "buildDefinition": definition})
    return replace(claim, provenance=sign_provenance(odd, workshop.session()).to_text())


def no_json(workshop: Workshop, content: bytes) -> Claim:
    return replace(workshop.claim(workshop.manifest(content)), provenance="{")


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (other_bytes, "artifact_sha256"),
        (longer, "artifact_bytes"),
        (nowhere, "artifact_missing"),
        (other_id, "artifact_id"),
        (other_model, "manifest_model"),
        (other_job, "manifest_job_id"),
        (no_manifest, "manifest_missing"),
        (other_manifest, "manifest_sha256"),
        (lying_manifest, "manifest_input_checksum"),
        (spaced_manifest, "bad_manifest"),
        (provenance_of_another, "provenance_artifact"),
        (no_builder, "provenance_not_allowed"),
        (borrowed_name, "provenance_not_allowed"),
        (other_signature, "provenance_bad_envelope_signature"),
        (another_delegation, "provenance_bad_envelope_signature"),
        (delegated_for_something_else, "provenance_not_allowed"),
        (long_ago, "provenance_expired_delegation"),
        (odd_dependencies, "provenance_bad_statement"),
        (no_json, "provenance_bad_envelope"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_lie_is_found_and_named(workshop: Workshop, content: bytes, lie: Lie, code: str) -> None:
    assert code in workshop.codes(lie(workshop, content))


def test_all_lies_are_named_at_once(workshop: Workshop, content: bytes) -> None:
    claim = replace(other_bytes(workshop, content), job_id="00000000-0000-4000-8000-000000000000", provenance="{")
    assert workshop.codes(claim) == {"artifact_sha256", "manifest_job_id", "provenance_bad_envelope"}


def test_a_store_that_does_not_answer_is_no_reason_against_an_artifact(workshop: Workshop, content: bytes) -> None:
    claim = workshop.claim(workshop.manifest(content))
    arguments: dict[str, Any] = {**workshop.settings.objects.client_arguments(), "endpoint_url": "http://127.0.0.1:9"}
    import boto3
    from botocore.config import Config

    away = ObjectStore(boto3.client("s3", config=Config(connect_timeout=1, retries={"max_attempts": 0}), **arguments))
    with away, pytest.raises(ObjectsUnavailable):
        Verification(lambda: away, lambda _: workshop.keyring).verify(claim)
