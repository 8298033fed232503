"""What running replicas say of themselves over HTTP: health, and how long they can still sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ai_infra.devstack import Stack
from ai_infra.devstack.services import installed_services
from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.settings import Settings

_TIMEOUT: Final = 3.0  # seconds; a replica answers in milliseconds or is stuck
DELEGATION_METRIC: Final = "ai_infra_trust_delegation_remaining_seconds"


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as it answers. `status`: ok, not ready, failing, or unreachable; `reasons`: what isn't well, by check.

    `delegation_seconds`: for how much longer it can sign without its signing service.
    """

    service: str
    name: str
    url: str
    status: str
    reasons: Mapping[str, str] = field(default_factory=dict)
    delegation_seconds: float | None = None


def replicas(settings: Settings) -> list[Replica]:
    """All replicas that are known: those of AI_INFRA_SERVICE_URLS, and of the stack in this directory."""
    known = [*_configured(settings), *_of_stack(settings)]
    if not known:
        return []
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda entry: _ask(*entry), known))


def _configured(settings: Settings) -> Iterable[tuple[str, str, str]]:
    for text in settings.service.urls:
        service, separator, url = text.partition("=")
        if not separator or not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"AI_INFRA_SERVICE_URLS wants `<service>=<url>`, comma-separated; got {text!r}")
        yield service, url.split("://", 1)[1].rstrip("/"), url.rstrip("/")


def _of_stack(settings: Settings) -> Iterable[tuple[str, str, str]]:
    """Replicas of the stack in this directory whose broker is the one that the settings name."""
    services = installed_services()
    for _, addresses in _stacks(settings):
        for name, url in addresses.items():
            service = name.rpartition("-")[0]
            if service in services and url:
                yield service, name, url


def revival(settings: Settings) -> str | None:
    """The command that starts again what doesn't run of the stack in this directory; None where none is used."""
    for name, _ in _stacks(settings):
        return "ai-infra dev up --services" + (f" --name {name}" if name != "dev" else "")
    return None


def _stacks(settings: Settings) -> Iterable[tuple[str, Mapping[str, str]]]:
    """Names and addresses of the stacks in this directory whose broker is the one that the settings name."""
    for state in sorted((Path.cwd() / ".ai-infra").glob("*/state.json")):
        try:
            addresses = Stack(state.parent.name, Path.cwd()).urls()
        except AiInfraError:
            continue
        if addresses.get("kafka") == settings.kafka.bootstrap_servers:
            yield state.parent.name, addresses


def _ask(service: str, name: str, url: str) -> Replica:
    try:
        with httpx.Client(timeout=_TIMEOUT, trust_env=False) as client:
            health: dict[str, Any] = client.get(f"{url}/health").json()
            metrics = client.get(f"{url}/metrics", headers={"Accept": "text/plain"}).text
    except (httpx.HTTPError, ValueError) as error:
        return Replica(service, name, url, "unreachable", {"http": f"{type(error).__name__} at {url}"})
    checks = health.get("checks", {})
    reasons = {check: str(result) for check, result in checks.items() if result != "ok"}
    return Replica(service, name, url, str(health.get("status", "unknown")), reasons, _delegation(metrics))


def _delegation(text: str) -> float | None:
    for family in text_string_to_metric_families(text):
        if family.name == DELEGATION_METRIC:
            return min((sample.value for sample in family.samples), default=None)
    return None
