"""What the trainer leaves in the object store, each under the hash of its content: artifact, log, libraries, manifest.

Put once and never over anything: the same training uploaded twice is the same objects.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import tenacity

from ai_infra.errors import ConfigurationError, UnavailableError
from ai_infra.manifest.exceptions import ManifestError
from ai_infra.manifest.provenance import Run as Occasion
from ai_infra.manifest.provenance import provenance_statement
from ai_infra.manifest.training import LogRef, TrainingManifest
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.uri import object_uri
from ai_infra.trust.provenance import builder_id, sign_provenance
from ai_infra.trust.session import Session
from ai_infra_trainer.environment import libraries
from ai_infra_trainer.exceptions import TrainingFailed
from ai_infra_trainer.state import Order, Product
from ai_infra_trainer.training import LOG_FILE, Run
from ai_infra_trainer.workspaces import Workspace

UPLOAD_PATIENCE_SECONDS: Final = 900.0
"""How long a finished training waits for the object store before its result is given up and it has to run again."""

TAR: Final = "application/x-tar"
TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"


def runner_name() -> str:
    """How this runner is named in `job.status`: the machine and the process."""
    return f"{socket.gethostname()}/{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Uploads what a training leaves into one bucket, until `cancelled` is set."""

    objects: ObjectStore
    bucket: str
    cancelled: threading.Event

    def log(self, run: Run, workspace: Workspace) -> LogRef:
        """Upload the training's output."""
        uri = object_uri(self.bucket, f"logs/{run.ended.log_sha256}.log")
        self._put(uri, workspace.private / LOG_FILE, TEXT, run.ended.log_sha256)
        return LogRef(LOG_FILE, uri, run.ended.log_sha256)

    def product(
        self,
        order: Order,
        run: Run,
        log: LogRef,
        *,
        session: Session,
        container_digest: str | None,
        job_id: str | None,
    ) -> Product:
        """Upload artifact, library list and manifest; sign the provenance. `run` must have completed."""
        packed = run.packed
        if packed is None:
            raise ConfigurationError("only a completed training has a product")
        artifact_uri = object_uri(self.bucket, f"models/{order.model}/{packed.sha256}.tar")
        self._put(artifact_uri, packed.path, TAR, packed.sha256)
        installed = libraries()
        libraries_uri = object_uri(self.bucket, f"environments/{installed.sha256}.json")
        self._put(libraries_uri, installed.listing, JSON, installed.sha256)
        manifest = manifest_of(
            order,
            run,
            artifact_uri=artifact_uri,
            logs=(log, LogRef("libraries.json", libraries_uri, installed.sha256)),
            container_digest=container_digest,
            job_id=job_id,
        )
        data = manifest.to_bytes()
        manifest_uri = object_uri(self.bucket, f"manifests/{manifest.sha256}.json")
        self._put(manifest_uri, data, JSON, manifest.sha256)
        occasion = Occasion(
            builder_id=builder_id(session.service),
            started_on=run.ended.started,
            finished_on=run.ended.ended,
            manifest_uri=manifest_uri,
        )
        session.renew_if_due()
        try:
            envelope = sign_provenance(
                provenance_statement(manifest, occasion), session, requested_by=order.requested_by
            )
        except ManifestError as error:
            raise TrainingFailed(f"the provenance cannot be signed: {error}", code=error.code) from error
        return Product(
            artifact_id=manifest.artifact_id,
            artifact_uri=artifact_uri,
            artifact_sha256=packed.sha256,
            artifact_bytes=packed.size,
            manifest_uri=manifest_uri,
            manifest_sha256=manifest.sha256,
            provenance=envelope.to_text(),
            input_checksum=manifest.input_checksum,
        )

    def _put(self, uri: str, data: bytes | Path, content_type: str, sha256: str) -> None:
        """Put once, and wait for a store that does not answer: what was trained must not be lost to an outage."""
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_exponential(multiplier=0.5, max=30),
            stop=tenacity.stop_after_delay(UPLOAD_PATIENCE_SECONDS) | tenacity.stop_when_event_set(self.cancelled),
            sleep=tenacity.sleep_using_event(self.cancelled),
            reraise=True,
        ):
            with attempt:
                self.objects.put_once(uri, data, content_type=content_type, expected_sha256=sha256)


def manifest_of(
    order: Order,
    run: Run,
    *,
    artifact_uri: str,
    logs: tuple[LogRef, ...],
    container_digest: str | None,
    job_id: str | None,
) -> TrainingManifest:
    """The training manifest of a completed run."""
    packed = run.packed
    if packed is None:
        raise ConfigurationError("only a completed training has a manifest")
    return TrainingManifest.of(
        model=order.model,
        template=order.template,
        code_ref=order.code_ref,
        container_digest=container_digest,
        dataset_refs=order.dataset_refs,
        hyperparams=hyperparams(order),
        seed=order.seed,
        training_cmd=order.training_cmd,
        environment=run.environment,
        metrics=run.metrics,
        artifact_uri=artifact_uri,
        artifact_sha256=packed.sha256,
        artifact_bytes=packed.size,
        created_at=now(),
        training_job_id=job_id,
        parent_artifacts=order.parent_artifacts,
        logs=logs,
    )


def hyperparams(order: Order) -> dict[str, object]:
    """The hyperparameters as a dictionary."""
    value: dict[str, object] = json.loads(order.hyperparams_json)
    return value


def now() -> datetime:
    """The present in UTC, whole milliseconds."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
