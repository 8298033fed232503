"""An artifact for tests of what comes after registration: the registry's part is played, with the real manifest key.

It is a principal of its own, because numbering what it says as the real registry would spoil that one's sequence.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.commands import run_command

from ai_infra.client import Client, DatasetRef
from ai_infra.devstack import Stack
from ai_infra.events.compose import uuid7
from ai_infra.events.generated import ArtifactRegistered, ManifestSignature
from ai_infra.manifest.identity import artifact_id
from ai_infra.manifest.registration import Registration, sign_registration
from ai_infra.settings import Settings
from ai_infra.trust.open import open_manifest_signer
from ai_infra.trust.signers import Signer

DATASET = DatasetRef(id="held-out", checksum="sha256:" + "0" * 64, version="1", uri="s3://b/held-out")


@dataclass
class Registry:
    """Says `artifact.registered` with the role of a registry, and with a signature by the manifest key."""

    client: Client
    manifest: Signer
    versions: dict[str, int] = field(default_factory=dict)

    def register(self, model: str, *, signed_by: Signer | None = None) -> str:
        """A new artifact of the model; returns its id."""
        version = self.versions[model] = self.versions.get(model, 0) + 1
        sha256 = hashlib.sha256(secrets.token_bytes(8)).hexdigest()
        now = datetime.now(UTC).replace(microsecond=0)
        registration = Registration(
            artifact_id=artifact_id(model, sha256),
            model=model,
            version=version,
            artifact_sha256=sha256,
            artifact_bytes=8,
            manifest_sha256="b" * 64,
            provenance_sha256="c" * 64,
            input_checksum="d" * 64,
            builder_id="urn:test",
            produced_event_id=uuid7(),
            keyring_version=1,
            rules="registry/v1",
            registered_at=now,
        )
        key = signed_by or self.manifest
        signature = sign_registration(registration, key.sign, "manifest-1")
        body = ArtifactRegistered(
            artifact_id=registration.artifact_id,
            model=model,
            version=version,
            new_version=True,
            attestation=1,
            job_id=None,
            artifact_uri="s3://b/a",
            artifact_sha256=sha256,
            artifact_bytes=8,
            manifest_uri="s3://b/m",
            manifest_sha256="b" * 64,
            manifest_signature_id=signature.manifest_signature_id,
            manifest_signature=ManifestSignature(
                signer_id="manifest-1", signature=signature.signature, ts=now, envelope=signature.envelope
            ),
            code_ref="git+https://example.org/r@" + "0" * 40,
            container_digest=None,
            dataset_refs=(DATASET,),
            parent_artifacts=(),
            input_checksum="d" * 64,
            builder_id="urn:test",
            metadata_json="{}",
            created_by="orchestrator",
            keyring_version=1,
            rules="registry/v1",
        )
        self.client.publish(body)
        return registration.artifact_id


@contextmanager
def outside_registry(stack: Stack, settings: Settings) -> Iterator[Registry]:
    """A principal with the registry's role, new in the keyring."""
    name = f"outside-registry-{secrets.token_hex(3)}"
    new_key = ["keys", "new", f"{name}-1", "--principal", name, "--kind", "orchestrator", "--role", "registry"]
    done = run_command(stack, *new_key)
    assert done.returncode == 0, done.stderr
    with Client(settings, key_id=f"{name}-1") as client:
        yield Registry(client, open_manifest_signer(settings))


def evaluate(client: Client, model: str, artifact: str, score: float = 0.97) -> None:
    client.record_evaluation(
        model=model, artifact_id=artifact, dataset_ref=DATASET, score=score, metrics={"accuracy": score}
    )


def promote(client: Client, registry: Registry, model: str, **more: Any) -> str:
    """A new artifact that serves in prod; returns its id."""
    artifact = registry.register(model)
    evaluate(client, model, artifact)
    promotion = client.request_promotion(model=model, artifact_id=artifact, env="prod", reason="better", **more)
    client.wait(promotion, timeout=60)
    return artifact
