"""The trainer as a service: what it listens to and says, and how it starts."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import cache
from typing import Final

import structlog

from ai_infra.bus.run import run_service
from ai_infra.bus.service import Service, WorkKind
from ai_infra.events.generated import (
    ArtifactProduced,
    EventRefused,
    JobCancelRequested,
    JobQueued,
    JobStatus,
)
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.telemetry.health import HealthServer
from ai_infra.trust.exceptions import SigningUnavailable
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import open_service_signer
from ai_infra.trust.session import Session
from ai_infra_trainer.admission import Limits
from ai_infra_trainer.decide import RULES, rules
from ai_infra_trainer.runner import Place, Runner, hide_memory
from ai_infra_trainer.state import CancelWish, Job, Prepared, Task, Trained

NAME: Final = "trainer"
LISTENS: Final = (JobQueued, JobCancelRequested)
SAYS: Final = (JobStatus, ArtifactProduced, EventRefused)

log = structlog.get_logger(__name__)


class Builder:
    """The session that signs provenance: opened at each start, by the keyrings that the process follows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None

    def learn(self, keyrings: Keyrings) -> None:
        """Open the service's key anew. Raises ConfigurationError, SigningUnavailable."""
        signer = open_service_signer(self._settings, NAME, keyrings.latest)
        lifetime = timedelta(hours=self._settings.keys.delegation_hours)
        self._session = Session(signer, NAME, [ArtifactProduced.TOPIC], lambda: keyrings.latest_version, lifetime)

    def session(self) -> Session:
        """The session of the newest start."""
        if self._session is None:
            raise SigningUnavailable("No keyring is known yet, so the trainer's key is not open.")
        return self._session


def build(settings: Settings) -> Service:
    """The trainer as these settings describe it. Opens nothing but its working directory."""
    return assemble(settings)[0]


def assemble(settings: Settings) -> tuple[Service, Runner]:
    """The trainer, and the runner inside it."""
    place = Place(
        repositories=settings.runner.allowed_repositories,
        datasets=settings.runner.allowed_datasets,
        bucket=settings.objects.models_bucket,
        slots=settings.runner.slots,
        disk_mib=settings.runner.disk_mib,
        user=settings.runner.user,
        directory=settings.runner.work_dir,
        container_digest=settings.runner.container_digest,
    )
    builder = Builder(settings)

    @cache
    def objects() -> ObjectStore:
        return ObjectStore(settings)

    runner = Runner(place, objects=objects, session=builder.session)
    service = Service(
        name=NAME,
        listens=LISTENS,
        says=SAYS,
        decide=rules(
            Limits(repositories=place.repositories, datasets=place.datasets, container=place.container_digest)
        ),
        rules=RULES,
        records=(Job, CancelWish),
        work={
            "prepare": WorkKind(run=runner.prepare, args=Task, result=Prepared, slots=place.slots),
            "train": WorkKind(run=runner.train, args=Task, result=Trained, slots=place.slots),
        },
        checks={"runner": runner.check},
        learn_keyrings=builder.learn,
    )
    return service, runner


def main(settings: Settings, stop: threading.Event) -> int:
    """Run the trainer until `stop` is set. Without AI_INFRA_RUNNER=true it takes no lane and stands by."""
    if not settings.runner.enabled:
        return stand_by(settings, stop)
    hide_memory()
    service, runner = assemble(settings)
    try:
        runner.try_out()
        return run_service(service, settings, stop)
    finally:
        runner.close()


def stand_by(settings: Settings, stop: threading.Event) -> int:
    """Answer on the health port, say why nothing is done here, and wait for the end."""
    why = "standing by: this process runs no trainings; set AI_INFRA_RUNNER=true where it should"
    log.warning(why)
    with HealthServer(
        settings.service.http_port, {"runner": lambda: why}, service=NAME, host=settings.service.http_host
    ):
        stop.wait()
    return 0
