"""What every service process has, the indexer among them, and how it is kept running through outages.

A broker or a database that is away for minutes must not take the services with it: what only a new start can mend (an
unknown transaction outcome, something that does not answer) is mended by a new start here, in this process, with the
health port open all the while and saying why. What a new start cannot mend (lost offsets, a wrong configuration, a
signing service that REQUIRE_KMS demands) ends the process with that error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.kafka.consume import RestartNeededError
from ai_infra.bus.kafka.schema_registry import framing, schema_registry, verifier_for
from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.generated import EventRefused, ProducerHeartbeat
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.telemetry.health import Check, HealthServer
from ai_infra.trust.exceptions import SigningUnavailable
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import load_roots, open_service_signer
from ai_infra.trust.session import Session

log = structlog.get_logger(__name__)

CATCH_UP_SECONDS: Final = 60.0
BROADCAST_SECONDS: Final = 0.2  # how often the broadcast topics are looked at
FIRST_WAIT_SECONDS: Final = 0.5
LONGEST_WAIT_SECONDS: Final = 15.0
SETTLED_SECONDS: Final = 60.0  # who has run this long fails for a new reason


class ServiceProcess:
    """One start of a service: keyring followed, session key at hand. `checks` are those of its health port."""

    def __init__(
        self,
        name: str,
        says: tuple[type, ...],
        settings: Settings,
        checks: dict[str, Check],
        stop: threading.Event | None = None,
    ) -> None:
        """Reads the broadcast topics and has the first delegation signed. Raises what those raise; UnavailableError
        too where `stop` is set meanwhile."""
        self.name = name
        self.settings = settings
        self.checks = checks
        self.liveness: dict[str, Check] = {}
        """Checks that only a restart of the whole process mends when they fail: `/healthz`."""
        self.keyrings = Keyrings(load_roots(settings))
        self.verifier = verifier_for(settings, self.keyrings)
        self.frame = framing(settings)
        self.broadcast = Broadcast(settings, service=name, keyrings=self.keyrings, verifier=self.verifier)
        self.keys_open = False
        """Whether every key that the service needs has been opened; whoever serves sets it."""
        self._broadcast_at = 0.0
        try:
            self.broadcast.catch_up(CATCH_UP_SECONDS, stop=stop)
            bodies: list[Any] = [*says, EventRefused, ProducerHeartbeat]
            topics = [body.TOPIC for body in bodies]
            if (registry := schema_registry(settings)) is not None:
                registry.prepare(bodies)
            signer = open_service_signer(settings, name, self.keyrings.latest)
            lifetime = timedelta(hours=settings.keys.delegation_hours)
            self.session = Session(signer, name, topics, self.keyring_version, lifetime)
        except BaseException:
            self.close()
            raise
        self.checks["delegation"] = self._check_delegation

    def keyring_version(self) -> int:
        return self.keyrings.latest_version

    def serving(self, checks: Mapping[str, Check]) -> None:
        """It is built, and these say how it is: until now it was starting, or starting anew for a reason, and not ready
        whatever else was well."""
        self.checks.update(checks)
        self.checks.pop("starting", None)

    def turn(self) -> None:
        """To be called in every turn of the service's loop: follows the broadcast topics, renews the delegation."""
        now = time.monotonic()
        if now < self._broadcast_at:
            return
        self._broadcast_at = now + BROADCAST_SECONDS
        self.broadcast.poll()
        self.session.renew_beside()
        metrics.TRUST_DELEGATION_REMAINING.labels(self.name).set(self.session.remaining())

    def close(self) -> None:
        self.broadcast.close()

    def _check_delegation(self) -> str | None:
        error = self.session.last_error
        if error is None:
            return None
        return f"the delegation could not be renewed and lasts {self.session.remaining():.0f} s more: {error}"


def keep_running(
    name: str,
    says: tuple[Any, ...],
    settings: Settings,
    stop: threading.Event,
    serve: Callable[[ServiceProcess, threading.Event], None],
) -> int:
    """Runs `serve` until `stop` is set, anew after each failure that a new start can mend; returns the exit code."""
    starting = {"starting": lambda: "starting: what it needs is being read and opened"}
    checks: dict[str, Check] = dict(starting)
    liveness: dict[str, Check] = {}
    with health_server(name, settings, checks, liveness):
        wait, keys_were_open = FIRST_WAIT_SECONDS, False
        while not stop.is_set():
            began = time.monotonic()
            try:
                process = ServiceProcess(name, says, settings, checks, stop)
                process.liveness = liveness
                try:
                    serve(process, stop)
                finally:
                    keys_were_open = keys_were_open or process.keys_open
                    process.close()
            except (RestartNeededError, UnavailableError) as error:
                if stop.is_set():
                    log.warning("stopped in a failure", service=name, code=error.code, why=str(error))
                    break
                if settings.guards.require_kms and not keys_were_open and isinstance(error, SigningUnavailable):
                    raise SigningUnavailable(
                        f"{name} does not start, since REQUIRE_KMS=true and a key can't be opened: {error} Bring the "
                        "signing service back, then start it again; `ai-infra keys test` says which keys sign."
                    ) from None
                if time.monotonic() - began > SETTLED_SECONDS:
                    wait = FIRST_WAIT_SECONDS
                metrics.BUS_ERRORS.labels(name, error.code).inc()
                log.error("starting anew", service=name, code=error.code, why=str(error), in_seconds=wait)
                why = f"starting anew after {error.code}: {error}"
                checks.clear()
                liveness.clear()
                checks["starting"] = lambda why=why: why  # type: ignore[misc]  # bound now, called later
                stop.wait(wait)
                wait = min(LONGEST_WAIT_SECONDS, wait * 2)
            except AiInfraError as error:
                log.error("service ends", service=name, code=error.code, why=str(error))
                raise
    log.info("service stopped", service=name)
    return 0


def health_server(
    name: str, settings: Settings, checks: dict[str, Check], liveness: dict[str, Check] | None = None
) -> HealthServer:
    """The health port of a service, by its settings; not started yet."""
    own = settings.service
    return HealthServer(
        own.http_port,
        checks,
        liveness=liveness,
        service=name,
        host=own.http_host,
        tls_cert=own.http_tls_cert,
        tls_key=own.http_tls_key,
        tls_client_ca=own.http_tls_client_ca,
    )
