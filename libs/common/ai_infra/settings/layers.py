"""Where variables come from: the process's environment, `.env`, and what `ai-infra dev up` wrote.

Reads files and the environment, once, into layers of plain names and values. A layer that stands earlier wins. It
never decides what a value means, and never writes the environment.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from ai_infra.errors import ConfigurationError

DEV_ENV = Path(".ai-infra") / "dev.env"

# Names of the seeds whose part is not built yet: known, so that an environment written for them still starts.
RESERVED = frozenset({"AI_INFRA_ADDR", "AI_INFRA_ALLOW_DEBUG_TOKEN", "AI_INFRA_DEBUG_TOKEN"})

# Names of the environment itself; they are read by `environment_of`, before anything else.
ENVIRONMENT_NAMES = ("AI_INFRA_ENV", "ENV", "NODE_ENV")

# KAFKA_* names that other programs put there: the broker's own start scripts, and Kubernetes, which describes a
# Service called "kafka" to every pod as KAFKA_SERVICE_HOST, KAFKA_PORT_9092_TCP_ADDR and so on.
_NOT_LIBRDKAFKA = re.compile(
    r"KAFKA_(HOME|OPTS|HEAP_OPTS|JVM_PERFORMANCE_OPTS|GC_LOG_OPTS|LOG4J_OPTS|JMX_OPTS|DEBUG|CLUSTER_ID|VERSION"
    r"|PORT(_.*)?|SERVICE_(HOST|PORT)(_.*)?)"
)

_ENVIRONMENT_WORDS = {
    "dev": "dev",
    "development": "dev",
    "test": "dev",
    "staging": "staging",
    "prod": "prod",
    "production": "prod",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """Variables from one place. `where` names it in errors."""

    where: str
    values: Mapping[str, str]

    def __repr__(self) -> str:  # the values may be secret
        return f"Layer({self.where!r}, {len(self.values)} names)"


def _file_layer(path: Path) -> Layer | None:
    if not path.is_file():
        return None
    # No interpolation: `${ENV}` in a bucket's name is ours to fill in.
    values = dotenv_values(path, interpolate=False)
    return Layer(str(path), {name: value for name, value in values.items() if value})


def read_layers(overrides: Mapping[str, str], environ: Mapping[str, str] | None, directory: Path) -> list[Layer]:
    """All layers, the strongest first. An empty value counts as not set."""
    environ = os.environ if environ is None else environ
    layers = [
        Layer("the command line", {name: value for name, value in overrides.items() if value}),
        Layer("the environment", {name: value for name, value in environ.items() if value}),
    ]
    if (dotenv := _file_layer(directory / ".env")) is not None:
        layers.append(dotenv)
    if not environment_of(layers)[1] and (dev := _file_layer(directory / DEV_ENV)) is not None:
        layers = _keep_credentials_together(layers, dev)
    return layers


def _keep_credentials_together(layers: list[Layer], dev: Layer) -> list[Layer]:
    """Where the object store is the dev stack's, so are region and credentials: somebody's AWS_ACCESS_KEY_ID for
    another account would only be refused there."""
    endpoint = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    if any(name in layer.values for layer in layers for name in endpoint) or endpoint[0] not in dev.values:
        return [*layers, dev]
    ours = [
        Layer(layer.where, {name: value for name, value in layer.values.items() if not name.startswith("AWS_")})
        for layer in layers
    ]
    return [*ours, dev]


def lookup(layers: Iterable[Layer], name: str) -> str | None:
    """The strongest value of one name."""
    return next((layer.values[name] for layer in layers if name in layer.values), None)


def environment_of(layers: Collection[Layer]) -> tuple[str, bool]:
    """Name of the environment, and whether the guards of production are on.

    They are on as soon as any name says production: NODE_ENV=production is often set for staging too, and a
    contradiction must not switch them off.
    """
    found: dict[str, str] = {}
    for name in ENVIRONMENT_NAMES:
        value = lookup(layers, name)
        if value is None:
            continue
        word = _ENVIRONMENT_WORDS.get(value.lower())
        if word is None:
            if name == "ENV":  # shells use this name for a start-up file
                continue
            raise ConfigurationError(
                f"{name} is {value!r}. It must be one of {', '.join(_ENVIRONMENT_WORDS)}, or not set."
            )
        found[name] = word
    return next(iter(found.values()), "dev"), "prod" in found.values()


def check_names(layers: Iterable[Layer], known: Collection[str]) -> None:
    """Raise ConfigurationError for an AI_INFRA_* name that nothing reads: a typo must not become a default."""
    layers = list(layers)
    known = {*known, *RESERVED, *ENVIRONMENT_NAMES}
    # A key may live under any name that a setting points to.
    known |= {
        value.removeprefix("env:") for layer in layers for value in layer.values.values() if value.startswith("env:")
    }
    for layer in layers:
        for name in sorted(layer.values):
            if name.startswith("AI_INFRA_") and name not in known:
                near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigurationError(
                    f"Unknown setting {name} in {layer.where}.{hint} docs/configuration.md lists every name."
                )


def kafka_client_settings(layer: Layer, bound: Collection[str]) -> dict[str, str]:
    """KAFKA_<LIBRDKAFKA_NAME> of a layer by librdkafka's own names: KAFKA_SASL_MECHANISM is `sasl.mechanism`."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in layer.values.items()
        if name.startswith("KAFKA_") and name not in bound and not _NOT_LIBRDKAFKA.fullmatch(name)
    }
