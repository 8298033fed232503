"""A job as a JSON file, as the examples and `ai-infra train --job` have it, under what the command line says.

Fields: model, training_cmd, hyperparams, seed, dataset_refs [{id, checksum, version, uri}], template, container_digest,
resources {cpu_millis, memory_mib}, time_limit_s, parent_artifacts. An unknown field is an error: a typo must not become
a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ai_infra.cli.asking import json_object
from ai_infra.errors import ConfigurationError
from ai_infra.events.generated import DatasetRef, Resources

_FIELDS: Final = (
    "model",
    "training_cmd",
    "hyperparams",
    "seed",
    "dataset_refs",
    "template",
    "container_digest",
    "resources",
    "time_limit_s",
    "parent_artifacts",
)


def job_fields(file: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for `Client.submit_job`, from a file and what was given beside it. Raises ConfigurationError."""
    found = dict(_read(file)) if file is not None else {}
    resources = dict(found.pop("resources", {}))
    found |= {name: value for name, value in given.items() if value is not None}
    limits = {name: found.pop(name, resources.pop(name, None)) for name in ("cpu_millis", "memory_mib")}
    if resources:
        raise ConfigurationError(f"resources has unknown fields: {', '.join(sorted(resources))}")
    missing = [name for name in ("model", "training_cmd") if not found.get(name)]
    if missing:
        raise ConfigurationError(
            f"a job needs {' and '.join(missing)}: say --model NAME and, after `--`, the command; or give a --job file"
        )
    if any(value is not None for value in limits.values()):
        found["resources"] = Resources(cpu_millis=limits["cpu_millis"] or 1000, memory_mib=limits["memory_mib"] or 2048)
    return found


def _read(file: Path) -> Mapping[str, Any]:
    try:
        fields = dict(json_object(file.read_text(), str(file)))
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from None
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise ConfigurationError(f"{file} has unknown fields: {', '.join(unknown)}; there are {', '.join(_FIELDS)}")
    try:
        fields["dataset_refs"] = [DatasetRef(**ref) for ref in fields.get("dataset_refs", ())]
    except TypeError:
        raise ConfigurationError(f"{file}: each of dataset_refs has id, checksum, version and uri") from None
    return fields
