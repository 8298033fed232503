"""What the services on a real stack have decided is decided again from their log, in Postgres and in the archive."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from tests.commands import run_command
from tests.system.promoting import evaluate
from tests.system.test_registry_verification import Workshop

from ai_infra.client import Client, PromotionRejectedError
from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.generated import ArtifactProduced, ArtifactRegistered
from ai_infra.events.lanes import lane_of
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.trust.keyring_files import latest_keyring

SERVICES = ("registry", "promoter", "canary", "indexer")


@pytest.fixture(scope="module")
def services(stack: Stack) -> Iterator[None]:
    for service in SERVICES:
        env = {"AI_INFRA_CHECKPOINT_INTERVAL_MS": "200"} if service == "indexer" else {}
        stack.start_service(service, env=env)
    yield
    for service in SERVICES:
        stack.stop_service(service)


def produce(trainer: Client, workshop: Workshop, name: str, model: str, *, provenance: str | None = None) -> str:
    """An artifact of the model, made by an outside trainer; returns its id."""
    claim = workshop.claim(workshop.manifest(secrets.token_bytes(64), model), session=workshop.session(f"{name}-1"))
    trainer.publish(
        ArtifactProduced(
            artifact_id=claim.artifact_id,
            model=model,
            job_id=None,
            artifact_uri=claim.artifact_uri,
            artifact_sha256=claim.artifact_sha256,
            artifact_bytes=claim.artifact_bytes,
            manifest_uri=claim.manifest_uri,
            manifest_sha256=claim.manifest_sha256,
            provenance=provenance or claim.provenance,
            input_checksum=claim.input_checksum,
            rules="trainer/v1",
        )
    )
    return claim.artifact_id


def test_a_promotion_flow_is_replayed_without_a_difference(services: None, stack: Stack, settings: Settings) -> None:
    name, model = f"outside-trainer-{secrets.token_hex(3)}", f"replayed-{secrets.token_hex(3)}"
    made = run_command(
        stack, "keys", "new", f"{name}-1", "--principal", name, "--kind", "orchestrator", "--role", "trainer"
    )
    assert made.returncode == 0, made.stderr
    assert settings.keys.dir is not None
    keyring = latest_keyring(settings.keys.dir)
    assert keyring is not None
    with (
        ObjectStore(settings) as objects,
        Client(settings, key_id=f"{name}-1") as trainer,
        Client(settings) as client,
        Client(settings, speaking="artifact.revoked") as operator,
    ):
        workshop = Workshop(objects, settings.objects.models_bucket, keyring, settings)
        artifacts = [produce(trainer, workshop, name, model) for _ in range(3)]
        produce(trainer, workshop, name, model, provenance="{}")  # refused
        assert wait_until(lambda: len(client.history(ArtifactRegistered, model=model)) == 3, 60)
        for artifact, score in zip(artifacts, (0.97, 0.98, 0.5), strict=True):
            evaluate(client, model, artifact, score)
        for artifact in artifacts[:2]:
            client.wait(client.request_promotion(model=model, artifact_id=artifact, env="prod", reason="better"), 60)
        low = client.request_promotion(model=model, artifact_id=artifacts[2], env="prod", reason="try")
        with pytest.raises(PromotionRejectedError):
            client.wait(low, timeout=60)
        client.wait(client.request_rollback(model=model, env="prod", reason="worse"), timeout=60)
        operator.revoke_artifact(model=model, artifact_id=artifacts[0], reason="bad data")
        late = client.request_promotion(model=model, artifact_id=artifacts[0], env="dev", reason="too late")
        with pytest.raises(PromotionRejectedError):
            client.wait(late, timeout=60)
    lane = lane_of(model, settings.log.lanes)

    def replayed(*where: str) -> dict[str, Any]:
        ran = run_command(stack, "audit", "replay", "--lane", str(lane), "--json", *where)
        assert ran.returncode in {0, 1}, ran.stdout + ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        differences = [d for s in found["services"] for d in s["differences"]]
        assert (ran.returncode == 0) == found["same"] == (not differences)
        # Other tests speak in this lane too, for services that decide by other rules: that is found, and theirs.
        assert not [d for d in differences if d["model"] == model]
        return found

    def whole(*where: str) -> bool:
        done = {s["service"]: s for s in replayed(*where)["services"]}
        return done.get("promoter", {}).get("decisions", 0) >= 14 and done["canary"]["decisions"] >= 7

    for where in ((), ("--from-archive",)):
        assert wait_until(partial(whole, *where), 90)
        found = replayed(*where)
        services_ = {s["service"]: s for s in found["services"]}
        assert services_["registry"]["decisions"] >= 5
        assert services_["canary"]["checked"] == 0
