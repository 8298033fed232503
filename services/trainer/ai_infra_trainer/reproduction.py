"""Trains a recorded artifact again, from its manifest alone, and says what is the same and what is not."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ai_infra.events.canonical import sha256_hex
from ai_infra.manifest.training import MAX_MANIFEST_BYTES, TrainingManifest
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel.queries import ReadModel
from ai_infra.settings import Settings
from ai_infra_trainer.exceptions import TrainingFailed
from ai_infra_trainer.recipe import recipe_of
from ai_infra_trainer.recording import Trained, train_here

_MISSING: Final = ""


@dataclass(frozen=True, slots=True)
class Repetition:
    """What came of training again. `metrics` and `environment`: (name, recorded, now); of the latter what differs."""

    sha256: str
    equal: bool
    metrics: tuple[tuple[str, Any, Any], ...]
    environment: tuple[tuple[str, Any, Any], ...]

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference of a metric; infinite where one is there only once."""
        return max((_difference(a, b) for _, a, b in self.metrics), default=math.inf)


def manifest_in(path: Path) -> TrainingManifest:
    """The manifest in a file. Raises BadManifest."""
    return TrainingManifest.from_bytes(path.read_bytes())


def manifest_from(settings: Settings, artifact: str) -> TrainingManifest:
    """The manifest of a registered artifact (id, or model@version), from the object store, by its SHA-256."""
    name, at, version = artifact.partition("@")
    with ReadModel(settings.database.url) as index:
        by_version = at and version.isdigit()
        row = index.artifact_version(name, int(version)) if by_version else index.artifact(artifact)
    if row is None or row.manifest_uri is None:
        raise TrainingFailed(f"the index knows no artifact {artifact} with a manifest", code="unknown_artifact")
    with ObjectStore(settings) as objects:
        data = objects.get(row.manifest_uri, max_bytes=MAX_MANIFEST_BYTES)
    if sha256_hex(data) != row.manifest_sha256:
        raise TrainingFailed(
            f"{row.manifest_uri} has SHA-256 {sha256_hex(data)}, registered is {row.manifest_sha256}; "
            f"`ai-infra artifact verify {artifact}` says more",
            code="manifest_sha256",
        )
    return TrainingManifest.from_bytes(data)


def repeat(
    manifest: TrainingManifest, settings: Settings, say: Callable[[str], None], *, memory_mib: int, time_limit_s: int
) -> Repetition:
    """Train again what a manifest describes, here. Raises TrainingFailed where it cannot be done."""
    order = recipe_of(manifest, memory_mib=memory_mib, time_limit_s=time_limit_s).order(
        job_id=str(uuid.uuid4()),
        code_ref=manifest.code_ref,
        container_digest=manifest.container_digest,
        requested_by="reproduce",
    )

    def compare(trained: Trained) -> Repetition:
        packed = trained.run.packed
        sha256 = packed.sha256 if packed else _MISSING
        return Repetition(
            sha256=sha256,
            equal=sha256 == manifest.artifact_sha256,
            metrics=_beside(manifest.metrics, trained.run.metrics),
            environment=tuple(
                (name, before, now)
                for name, before, now in _beside(manifest.environment, trained.run.environment)
                if before != now
            ),
        )

    return train_here(order, settings, compare, say)


def _beside(one: Any, other: Any) -> tuple[tuple[str, Any, Any], ...]:
    return tuple((name, one.get(name), other.get(name)) for name in sorted({*one, *other}))


def _difference(one: Any, other: Any) -> float:
    if not isinstance(one, int | float) or not isinstance(other, int | float):
        return math.inf
    return abs(one - other)
