"""What is to be trained, as a person writes it down: a job file, variables of the environment, a command line.

Turns it into the same `Order` that a queued job becomes. Local paths become pinned references here: a dataset by its
SHA-256, code by its commit. It runs nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.events.canonical import canonical_json_numbers
from ai_infra.events.generated import DatasetRef
from ai_infra.events.lanes import check_model
from ai_infra.manifest.training import TrainingManifest
from ai_infra.objects.store import ObjectStore
from ai_infra_trainer.checkout import parse_code_ref
from ai_infra_trainer.datasets import dataset_sha256
from ai_infra_trainer.state import Order

DEFAULT_TEMPLATE: Final = "https://ai-infra.dev/build-types/command/v1"
DEFAULT_TIME_LIMIT_S: Final = 3600
DEFAULT_MEMORY_MIB: Final = 2048
DEFAULT_CPU_MILLIS: Final = 1000
_FIELDS: Final = {
    "model",
    "template",
    "training_cmd",
    "hyperparams",
    "seed",
    "dataset_refs",
    "resources",
    "time_limit_s",
    "parent_artifacts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A job file (`job.json`) with what was said beside it. `directory` is where its code lies."""

    model: str
    training_cmd: tuple[str, ...]
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    template: str = DEFAULT_TEMPLATE
    dataset_refs: tuple[DatasetRef, ...] = ()
    cpu_millis: int = DEFAULT_CPU_MILLIS
    memory_mib: int = DEFAULT_MEMORY_MIB
    time_limit_s: int = DEFAULT_TIME_LIMIT_S
    parent_artifacts: tuple[str, ...] = ()

    def order(self, *, job_id: str, code_ref: str, container_digest: str | None, requested_by: str) -> Order:
        """The order for this code. Raises ConfigurationError or CodeMismatch for what cannot be one."""
        parse_code_ref(code_ref)
        check_model(self.model)
        return Order(
            job_id=job_id,
            model=self.model,
            template=self.template,
            code_ref=code_ref,
            container_digest=container_digest,
            dataset_refs=self.dataset_refs,
            hyperparams_json=canonical_json_numbers(dict(self.hyperparams)).decode(),
            seed=self.seed,
            training_cmd=self.training_cmd,
            cpu_millis=self.cpu_millis,
            memory_mib=self.memory_mib,
            time_limit_s=self.time_limit_s,
            requested_by=requested_by,
            parent_artifacts=self.parent_artifacts,
        )


def read_job_file(path: Path) -> Recipe:
    """Read a job file. Raises ConfigurationError, naming what is wrong."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict) or not set(value) <= _FIELDS or not {"model", "training_cmd"} <= set(value):
        raise ConfigurationError(
            f"{path} must be an object with model and training_cmd, and of {', '.join(sorted(_FIELDS))} what it needs"
        )
    resources = value.get("resources", {})
    try:
        return Recipe(
            model=str(value["model"]),
            training_cmd=tuple(map(str, value["training_cmd"])),
            hyperparams=dict(value.get("hyperparams", {})),
            seed=int(value.get("seed", 0)),
            template=str(value.get("template", DEFAULT_TEMPLATE)),
            dataset_refs=tuple(DatasetRef(**ref) for ref in value.get("dataset_refs", ())),
            cpu_millis=int(resources.get("cpu_millis", DEFAULT_CPU_MILLIS)),
            memory_mib=int(resources.get("memory_mib", DEFAULT_MEMORY_MIB)),
            time_limit_s=int(value.get("time_limit_s", DEFAULT_TIME_LIMIT_S)),
            parent_artifacts=tuple(map(str, value.get("parent_artifacts", ()))),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def recipe_of(manifest: TrainingManifest, *, memory_mib: int, time_limit_s: int) -> Recipe:
    """How a recorded artifact was trained, to train it again."""
    threads = str(manifest.environment.get("threads", "1"))
    return Recipe(
        model=manifest.model,
        training_cmd=manifest.training_cmd,
        hyperparams=manifest.hyperparams,
        seed=manifest.seed,
        template=manifest.template,
        dataset_refs=manifest.dataset_refs,
        cpu_millis=1000 * int(threads) if threads.isdigit() else DEFAULT_CPU_MILLIS,
        memory_mib=memory_mib,
        time_limit_s=time_limit_s,
        parent_artifacts=manifest.parent_artifacts,
    )


def code_ref_here(directory: Path, wanted: str | None) -> str:
    """A whole code reference: `wanted` itself, or for a commit (or nothing: HEAD) that of the repository at hand.

    Only what is committed counts. Raises ConfigurationError where there is no repository, or no such commit.
    """
    if wanted and (wanted.startswith(("git+", "sha256:"))):
        return wanted
    root = Path(_git(directory, "rev-parse", "--show-toplevel"))
    commit = _git(directory, "rev-parse", "--verify", f"{wanted or 'HEAD'}^{{commit}}")
    path = directory.resolve().relative_to(root.resolve()).as_posix()
    return f"git+file://{quote(str(root.resolve()))}@{commit}" + (f"#{path}" if path != "." else "")


def uncommitted(directory: Path) -> bool:
    """Whether there are changes that no commit has, and that a training will therefore not see."""
    return bool(_git(directory, "status", "--porcelain", "--", "."))


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigurationError(
            f"{directory} is in no git repository with that commit; set CODE_REF to git+https://<repo>@<commit>#<path>"
        ) from error
    return done.stdout.strip()


def pinned(places: Sequence[str], objects: ObjectStore | None) -> tuple[DatasetRef, ...]:
    """References to datasets at these paths or URIs, pinned by the SHA-256 that they have now.

    Raises ConfigurationError for one that cannot be read, or two of one name.
    """
    refs = [_pin(place, objects) for place in places]
    if len({ref.id for ref in refs}) != len(refs):
        raise ConfigurationError(f"two datasets have one name: {', '.join(sorted(ref.id for ref in refs))}")
    return tuple(refs)


def _pin(place: str, objects: ObjectStore | None) -> DatasetRef:
    uri = place
    if "://" not in place:
        path = Path(place).resolve()
        uri = f"file://{quote(str(path))}" + ("/" if path.is_dir() else "")
    try:
        if urlsplit(uri).scheme == "s3":
            if objects is None:
                raise ConfigurationError("no object store is configured; set AWS_ENDPOINT_URL_S3 or AWS credentials")
            sha256 = objects.stream_sha256(uri).sha256
        else:
            sha256 = dataset_sha256(uri)
    except (OSError, AiInfraError) as error:
        raise ConfigurationError(f"the dataset {place} cannot be read: {error}") from error
    name = PurePosixPath(unquote(urlsplit(uri).path)).name or "data"
    identifier = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name).strip(".-") or "data"
    return DatasetRef(id=identifier, checksum=f"sha256:{sha256}", version=sha256[:12], uri=uri)
