"""Whether a job may be taken on: every reason against it, from the job and the limits of this installation alone.

Pure. It judges what can be known without looking; what only the world knows (is the commit there?) is the runner's.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import canonical_json_numbers
from ai_infra.events.generated import DatasetRef, JobQueued, Reason
from ai_infra_trainer.checkout import allowed, parse_code_ref
from ai_infra_trainer.datasets import CHECKSUM, SCHEMES
from ai_infra_trainer.datasets import allowed as dataset_allowed
from ai_infra_trainer.exceptions import CodeMismatch

MAX_DATASETS: Final = 64
MAX_PARENTS: Final = 16
MAX_WORDS: Final = 64
MAX_SEED: Final = (1 << 53) - 1
MAX_INPUT_BYTES: Final = 16 << 10
"""All that a job names together: it goes, base64-encoded, into the provenance of one event of at most 48 KiB."""

_DATASET_ID: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
_DIGEST: Final = re.compile(r"^sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this installation lets a job be. `container`: the image that its runners run in, if they do."""

    repositories: tuple[str, ...]
    datasets: tuple[str, ...]
    container: str | None = None
    max_time_s: int = 24 * 3600
    max_memory_mib: int = 16 << 10
    max_cpu_millis: int = 64_000


def objections(job: JobQueued, limits: Limits) -> tuple[Reason, ...]:
    """Every reason not to take the job on; empty when there is none."""
    found: list[tuple[str, str]] = []
    _identity(job, found)
    _code(job, limits, found)
    _command(job, found)
    _datasets(job, limits, found)
    _hyperparams(job, found)
    _resources(job, limits, found)
    size = _input_bytes(job)
    if size > MAX_INPUT_BYTES:
        found.append(
            (
                "job_too_large",
                f"code, command, datasets and hyperparameters have {size} bytes together;"
                f" at most {MAX_INPUT_BYTES} fit into a provenance: put the rest into a dataset",
            )
        )
    return tuple(Reason(code=code, detail=detail) for code, detail in found)


def _identity(job: JobQueued, found: list[tuple[str, str]]) -> None:
    if not _is_uuid(job.job_id):
        found.append(("bad_job_id", f"job_id {job.job_id[:80]!r} is no UUID in its usual form"))
    if not urlsplit(job.template).scheme or len(job.template) > 512:
        found.append(("bad_template", f"template {job.template[:80]!r} is no URI of at most 512 characters"))
    if not 0 <= job.seed <= MAX_SEED:
        found.append(("bad_seed", f"seed {job.seed} is not in 0..2^53-1"))
    if len(job.parent_artifacts) > MAX_PARENTS or not all(map(_is_uuid, job.parent_artifacts)):
        found.append(("bad_parent_artifacts", f"parent_artifacts must be at most {MAX_PARENTS} artifact ids (UUIDs)"))


def _code(job: JobQueued, limits: Limits, found: list[tuple[str, str]]) -> None:
    here = limits.container or "no image of a known digest"
    if job.container_digest is not None and not _DIGEST.match(job.container_digest):
        found.append(("bad_container_digest", f"{job.container_digest[:80]!r} is not 'sha256:<64 hex digits>'"))
    elif job.container_digest is not None and job.container_digest != limits.container:
        found.append(("container_mismatch", f"the job asks for {job.container_digest}; runners here run in {here}"))
    try:
        ref = parse_code_ref(job.code_ref)
    except CodeMismatch as error:
        found.append(("bad_code_ref", str(error)))
        return
    if ref.image_digest is not None and ref.image_digest != limits.container:
        found.append(("container_mismatch", f"the code is in image {ref.image_digest}; runners here run in {here}"))
    if ref.url is not None and not allowed(ref.url, limits.repositories):
        found.append(
            (
                "repository_not_allowed",
                f"{ref.url} is not among the allowed repositories;"
                " an operator adds it to AI_INFRA_ALLOWED_REPOSITORIES",
            )
        )


def _command(job: JobQueued, found: list[tuple[str, str]]) -> None:
    words = job.training_cmd
    if not words or not words[0]:
        found.append(("bad_training_cmd", "training_cmd is empty; name a program, e.g. ['python', 'train.py']"))
        return
    if len(words) > MAX_WORDS or sum(map(len, words)) > 4096:
        found.append(("bad_training_cmd", f"training_cmd has more than {MAX_WORDS} words or 4096 characters"))
    if any(ord(c) < 32 or ord(c) == 127 for word in words for c in word):
        found.append(("bad_training_cmd", "training_cmd holds control characters"))
    if words[0].startswith(("/", "-")) or ".." in words[0].split("/"):
        found.append(("bad_training_cmd", f"program {words[0][:80]!r} must be a name, or a path below the code"))


def _datasets(job: JobQueued, limits: Limits, found: list[tuple[str, str]]) -> None:
    if len(job.dataset_refs) > MAX_DATASETS:
        found.append(("too_many_datasets", f"{len(job.dataset_refs)} datasets; at most {MAX_DATASETS}"))
    seen: set[str] = set()
    for ref in job.dataset_refs:
        if ref.id in seen:
            found.append(("bad_dataset", f"dataset id {ref.id[:80]!r} is there twice"))
        seen.add(ref.id)
        found += [("bad_dataset", f"dataset {ref.id[:80]!r}: {why}") for why in _against(ref)]
        if not dataset_allowed(ref.uri, limits.datasets):
            found.append(
                (
                    "dataset_not_allowed",
                    f"dataset {ref.id[:80]!r}: {ref.uri[:200]!r} is not below a place that datasets may come from;"
                    " an operator adds it to AI_INFRA_ALLOWED_DATASETS",
                )
            )


def _against(ref: DatasetRef) -> list[str]:
    why = []
    if not _DATASET_ID.match(ref.id):
        why.append("its id must be letters, digits, '.', '_' and '-', at most 128")
    if not CHECKSUM.match(ref.checksum):
        why.append(f"checksum {ref.checksum[:80]!r} is not 'sha256:<64 hex digits>'")
    if not ref.version or len(ref.version) > 128:
        why.append("its version must have 1 to 128 characters")
    try:
        parts = urlsplit(ref.uri)
        host, user = parts.hostname, parts.username or parts.password
    except ValueError:
        return [*why, f"uri {ref.uri[:80]!r} is no URI"]
    if parts.scheme not in SCHEMES or len(ref.uri) > 1024 or not parts.path.strip("/"):
        why.append(f"uri {ref.uri[:80]!r} is not one of {', '.join(s + '://' for s in SCHEMES)} with a path")
    if user or parts.query or parts.fragment:
        why.append("its uri must carry no user, password, query or fragment (they would be in the log for ever)")
    if (parts.scheme == "file") == bool(host):
        why.append("a file:// uri names no host, and any other names one")
    return why


def _hyperparams(job: JobQueued, found: list[tuple[str, str]]) -> None:
    try:
        value = json.loads(job.hyperparams_json)
        canonical = canonical_json_numbers(value).decode()
    except (ValueError, RecursionError, AiInfraError) as error:
        found.append(("bad_hyperparams", f"hyperparams_json is no JSON that can be made canonical: {error}"))
        return
    if not isinstance(value, dict):
        found.append(("bad_hyperparams", "hyperparams_json must be an object"))
    elif canonical != job.hyperparams_json:
        found.append(("bad_hyperparams", "hyperparams_json is not canonical (RFC 8785): sort keys, no white space"))


def _resources(job: JobQueued, limits: Limits, found: list[tuple[str, str]]) -> None:
    for name, value, most in (
        ("time_limit_s", job.time_limit_s, limits.max_time_s),
        ("memory_mib", job.resources.memory_mib, limits.max_memory_mib),
        ("cpu_millis", job.resources.cpu_millis, limits.max_cpu_millis),
    ):
        if not 1 <= value <= most:
            found.append(("bad_resources", f"{name} is {value}; this installation takes 1 to {most}"))


def _input_bytes(job: JobQueued) -> int:
    texts = [job.code_ref, job.template, job.hyperparams_json, *job.training_cmd, *job.parent_artifacts]
    texts += [part for ref in job.dataset_refs for part in (ref.id, ref.checksum, ref.version, ref.uri)]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
