"""Trains here, exactly as a runner would, and records it: artifact, manifest and, where there is a key, provenance.

What it records was really run. It publishes nothing unless it is asked to.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import quote

from ai_infra.client.client import Client
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactProduced, ArtifactRefused, ArtifactRegistered
from ai_infra.manifest.provenance import Run as Occasion
from ai_infra.manifest.provenance import provenance_statement
from ai_infra.manifest.training import LogRef, TrainingManifest
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import NotAllowed
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.open import open_client_signer
from ai_infra.trust.provenance import builder_id, sign_provenance
from ai_infra.trust.session import Session
from ai_infra_trainer.exceptions import BadOutput, TrainingFailed
from ai_infra_trainer.publication import Publisher, manifest_of
from ai_infra_trainer.state import Order
from ai_infra_trainer.training import LOG_FILE, Run, prepare, train
from ai_infra_trainer.workspaces import Workspace, Workspaces

R = TypeVar("R")

OUTSIDE_RULES: Final = "train-record/v1"
"""Rules under which this command, and no service, says that an artifact exists."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a recorded training left on this machine."""

    manifest: TrainingManifest
    artifact: Path
    log: Path
    run: Run


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that completed, with its workspace still there."""

    order: Order
    run: Run
    workspace: Workspace


def train_here(order: Order, settings: Settings, use: Callable[[Trained], R], say: Callable[[str], None]) -> R:
    """Run an order on this machine and hand what came of it to `use` before it is cleaned away.

    The code's own repository and its datasets are allowed: who runs this command has chosen them. Raises
    TrainingFailed with the reason.
    """
    spaces = Workspaces(settings.runner.work_dir)
    workspace = spaces.of(order.job_id)
    never = threading.Event()
    try:
        with ObjectStore(settings) as objects:
            say("getting code and datasets")
            repository = order.code_ref.partition("@")[0]
            prepare(
                order,
                workspace,
                repositories=(repository,),
                datasets=tuple(ref.uri for ref in order.dataset_refs),
                objects=objects,
                cancelled=never,
            )
            say("training")
            run = train(
                order,
                workspace,
                spaces=spaces,
                user=settings.runner.user,
                disk_mib=settings.runner.disk_mib,
                cancelled=never,
            )
            if not run.completed:
                raise TrainingFailed(f"the training did not complete: {run.reason}", code=run.reason_code)
            return use(Trained(order, run, workspace))
    finally:
        spaces.close()


def keep(trained: Trained, *, artifact: Path, log: Path, container_digest: str | None) -> Recorded:
    """Keep artifact and log on this machine, and write the manifest that names them."""
    packed = trained.run.packed
    if packed is None:
        raise BadOutput("there is no artifact to keep", code="no_output")
    for path in (artifact, log):
        path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(packed.path, artifact)
    shutil.copyfile(trained.workspace.private / LOG_FILE, log)
    manifest = manifest_of(
        trained.order,
        trained.run,
        artifact_uri=_file_uri(artifact),
        logs=(LogRef(LOG_FILE, _file_uri(log), trained.run.ended.log_sha256),),
        container_digest=container_digest,
        job_id=None,
    )
    return Recorded(manifest, artifact, log, trained.run)


def sign_here(recorded: Recorded, manifest_path: Path, session: Session) -> str:
    """The provenance of a recorded training, signed by whoever's session this is, as text."""
    occasion = Occasion(
        builder_id=builder_id(session.service),
        started_on=recorded.run.ended.started,
        finished_on=recorded.run.ended.ended,
        manifest_uri=_file_uri(manifest_path),
    )
    return sign_provenance(provenance_statement(recorded.manifest, occasion), session).to_text()


def builder_session(settings: Settings, keyring: Keyring, key_id: str | None, model: str) -> Session:
    """A session of the key at hand that may sign provenance of this model. Raises ConfigurationError, NotAllowed."""
    signer = open_client_signer(settings, key_id, keyring)
    principal = keyring.principal_of(signer.key_id)
    if principal is None or not keyring.may_say(principal, ArtifactProduced.TOPIC, model=model, environment=None):
        who = principal.id if principal else signer.key_id
        raise NotAllowed(
            f"{who} may not build {model}: that takes a role that may say {ArtifactProduced.TOPIC} of it "
            "(`ai-infra keys grant`), or the key of somebody who has one (--key)"
        )
    return Session(signer, principal.id, [ArtifactProduced.TOPIC], lambda: keyring.version)


def publish(
    trained: Trained,
    *,
    settings: Settings,
    client: Client,
    session: Session,
    container_digest: str | None,
    timeout: float,
) -> ArtifactRegistered | ArtifactRefused:
    """Upload what was trained, say that it exists, and return the registry's answer."""
    with ObjectStore(settings) as objects:
        publisher = Publisher(objects, settings.objects.models_bucket, threading.Event())
        log = publisher.log(trained.run, trained.workspace)
        product = publisher.product(
            trained.order, trained.run, log, session=session, container_digest=container_digest, job_id=None
        )
    body = product.produced(model=trained.order.model, job_id=None, rules=OUTSIDE_RULES)
    published = client.publish(body, subject=product.artifact_id)

    def answer(event: Event[Any]) -> ArtifactRegistered | ArtifactRefused | None:
        body = event.body
        if isinstance(body, ArtifactRegistered | ArtifactRefused) and event.causes[0].id == published.id:
            return body
        return None

    found = client.wait_for(published, answer, types=[ArtifactRegistered, ArtifactRefused], timeout=timeout)
    return cast("ArtifactRegistered | ArtifactRefused", found)  # mypy joins the two into their base class


def _file_uri(path: Path) -> str:
    return f"file://{quote(str(path.resolve()))}"
