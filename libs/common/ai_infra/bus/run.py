"""Puts a service on its feet: keys, broadcast topics, lanes, health; runs it until it is told to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.judge import Judge
from ai_infra.bus.kafka_config import group_config
from ai_infra.bus.lane import Lane
from ai_infra.bus.restore import Restorer
from ai_infra.bus.runtime import Runtime, utc_now
from ai_infra.bus.service import Service
from ai_infra.bus.speech import Speech
from ai_infra.bus.topics import group_of
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.bus.voice import Surroundings
from ai_infra.errors import AiInfraError
from ai_infra.events.generated import EventRefused, ProducerHeartbeat
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.telemetry.health import Check, HealthServer
from ai_infra.trust.keyring_files import read_roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import open_service_signer
from ai_infra.trust.session import Session
from ai_infra.trust.verify import Verifier

log = structlog.get_logger(__name__)

CATCH_UP_SECONDS: Final = 60.0
BROADCAST_SECONDS: Final = 0.2  # how often the broadcast topics are looked at


class ServiceProcess:
    """What every service process has, the indexer among them: keyring followed, session key, health server."""

    def __init__(self, name: str, says: tuple[type, ...], settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.keyrings = Keyrings(read_roots(settings.keys.roots))
        self.verifier = Verifier(self.keyrings, settings.log.lanes)
        self.checks: dict[str, Check] = {"broadcast": lambda: "the broadcast topics have not been read yet"}
        self.health = HealthServer(
            settings.service.http_port,
            self.checks,
            service=name,
            host=settings.service.http_host,
            tls_cert=settings.service.http_tls_cert,
            tls_key=settings.service.http_tls_key,
            tls_client_ca=settings.service.http_tls_client_ca,
        ).start()
        self.broadcast = Broadcast(settings, service=name, keyrings=self.keyrings, verifier=self.verifier)
        self._broadcast_at = 0.0
        try:
            self.broadcast.catch_up(CATCH_UP_SECONDS)
            del self.checks["broadcast"]
            topics = [t.TOPIC for t in (*says, EventRefused, ProducerHeartbeat)]  # type: ignore[attr-defined]
            self.session = Session(open_service_signer(settings, name), name, topics, self.keyring_version)
        except BaseException:
            self.close()
            raise
        self.checks["delegation"] = self._check_delegation

    def keyring_version(self) -> int:
        return self.keyrings.latest_version

    def turn(self) -> None:
        """To be called in every turn of the service's loop: follows the broadcast topics, renews the delegation."""
        now = time.monotonic()
        if now < self._broadcast_at:
            return
        self._broadcast_at = now + BROADCAST_SECONDS
        self.broadcast.poll()
        self.session.renew_if_due()
        metrics.TRUST_DELEGATION_REMAINING.labels(self.name).set(self.session.remaining())

    def close(self) -> None:
        self.health.close()

    def _check_delegation(self) -> str | None:
        error = self.session.last_error
        if error is None:
            return None
        return f"the delegation could not be renewed and lasts {self.session.remaining():.0f} s more: {error}"


def run_service(service: Service, settings: Settings, stop: threading.Event) -> int:
    """Runs a deciding service until `stop` is set; returns its exit code. Raises what only a restart can mend."""
    process = ServiceProcess(service.name, service.says, settings)
    try:
        runtime = build_runtime(service, process)
        process.checks.update(
            {
                "loop": runtime.check_loop,
                "lanes": runtime.check_lanes,
                "halts": runtime.check_halts,
                **service.checks,
            }
        )
        log.info("service up", service=service.name, listens=[t.TOPIC for t in service.listens])  # type: ignore[attr-defined]
        runtime.run(stop)
    except AiInfraError as error:
        log.error("service ends", service=service.name, code=error.code, why=str(error))
        raise
    finally:
        process.close()
    log.info("service stopped", service=service.name)
    return 0


def build_runtime(service: Service, process: ServiceProcess, *, clock: Callable[[], Any] = utc_now) -> Runtime:
    """The runtime of one service in one process, ready to run."""
    settings = process.settings
    if service.learn_keyrings is not None:
        service.learn_keyrings(process.keyrings)
    surroundings = Surroundings(
        service=service,
        speech=Speech(service.name, process.session),
        clock=clock,
        keyring_version=process.keyring_version,
        policy=lambda: process.broadcast.policy,
    )
    producer = TransactionalProducer(settings, service=service.name)
    producer.initialise()
    return Runtime(
        service,
        consumer_config=group_config(settings, group_of(service.name)),
        producer=producer,
        restorer=Restorer(
            settings,
            service=service.name,
            verifier=process.verifier,
            make_lane=lambda number: Lane(number, surroundings),
        ),
        broadcast=process.broadcast,
        judge=Judge(service.name, process.verifier, process.broadcast, settings.log.lanes),
        surroundings=surroundings,
        each_turn=process.turn,
    )
