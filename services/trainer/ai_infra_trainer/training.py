"""One training from start to end, on this machine: code, datasets, the run itself, the packed artifact.

Used by the runner for jobs, by `train --record` for a person, and by `reproduce`. It talks to nobody about the result,
signs nothing and uploads nothing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.events.canonical import canonical_json_numbers
from ai_infra.events.exceptions import CanonicalError
from ai_infra.objects.store import ObjectStore
from ai_infra_trainer import sandbox
from ai_infra_trainer.archive import METRICS_FILE, Packed, pack
from ai_infra_trainer.checkout import checkout, parse_code_ref
from ai_infra_trainer.datasets import fetch_all
from ai_infra_trainer.environment import captured
from ai_infra_trainer.exceptions import BadOutput, Cancelled
from ai_infra_trainer.sandbox import Ended, Limits
from ai_infra_trainer.state import Order
from ai_infra_trainer.workspaces import Workspace, Workspaces

MAX_DATASET_BYTES: Final = 64 << 30
MAX_METRICS: Final = 64
MAX_METRICS_BYTES: Final = 16 << 10
LOG_FILE: Final = "training.log"


@dataclass(frozen=True, slots=True)
class Run:
    """What a training that was run left: how it ended, and, where it ended well, its artifact and metrics."""

    ended: Ended
    environment: Mapping[str, str]
    packed: Packed | None
    metrics: Mapping[str, Any]
    reason_code: str
    reason: str

    @property
    def completed(self) -> bool:
        return self.packed is not None


def prepare(
    order: Order,
    workspace: Workspace,
    *,
    repositories: tuple[str, ...],
    datasets: tuple[str, ...],
    objects: ObjectStore,
    cancelled: threading.Event,
) -> None:
    """Lay out everything that the training reads, checked. Raises TrainingFailed, RunnerUnavailable or Cancelled."""
    workspace.remove()
    workspace.make()
    scratch = workspace.private / "git"
    scratch.mkdir()
    ref = parse_code_ref(order.code_ref)
    checkout(ref, workspace.code, repositories=repositories, scratch=scratch, cancelled=cancelled)
    fetch_all(
        order.dataset_refs,
        workspace.datasets,
        objects=objects,
        places=datasets,
        max_bytes=MAX_DATASET_BYTES,
        cancelled=cancelled,
    )
    workspace.hyperparams.write_text(order.hyperparams_json, encoding="utf-8")


def train(
    order: Order,
    workspace: Workspace,
    *,
    spaces: Workspaces,
    user: str | None,
    disk_mib: int,
    cancelled: threading.Event,
) -> Run:
    """Run the training in a prepared workspace. What the training does wrong is in the result; Cancelled is raised."""
    limits = Limits(
        time_limit_s=order.time_limit_s,
        memory_mib=order.memory_mib,
        cpu_millis=order.cpu_millis,
        disk_mib=disk_mib,
    )
    env = sandbox.environment(
        home=workspace.home,
        output=workspace.output,
        datasets=workspace.datasets,
        hyperparams=workspace.hyperparams,
        seed=order.seed,
        threads=limits.threads,
    )
    with sandbox.identity(
        user, spaces.locks, cancelled
    ) as who:  # packed under the same lease: nobody else has this user yet
        workspace.hand_over(who)
        ended = sandbox.run(
            order.training_cmd,
            cwd=workspace.code / parse_code_ref(order.code_ref).path,
            workspace=workspace.open,
            env=env,
            limits=limits,
            who=who,
            log=workspace.private / LOG_FILE,
            cancelled=cancelled,
        )
        if ended.stopped == "cancelled":
            raise Cancelled("the job was cancelled while it ran")
        environment = captured(threads=limits.threads, env=env, isolation=ended.isolation)
        code, reason = _verdict(ended, limits)
        if code:
            return Run(ended, environment, None, {}, code, reason)
        try:
            metrics = read_metrics(workspace)
            tar = workspace.private / "artifact.tar"
            packed = pack(workspace.output, tar, max_bytes=disk_mib << 20, owner=who.uid)
        except BadOutput as error:
            return Run(ended, environment, None, {}, error.code, str(error))
    return Run(ended, environment, packed, metrics, "", "")


def _verdict(ended: Ended, limits: Limits) -> tuple[str, str]:
    """(code, reason) of a training that did not end well; two empty texts for one that did."""
    words = f"; its last line was: {ended.last_line}" if ended.last_line else ""
    code = ended.exit_code
    if ended.stopped == "time_limit":
        return "time_limit", f"still running after its {limits.time_limit_s} s{words}"
    if ended.stopped == "memory_limit":
        return "memory_limit", f"used more than its {limits.memory_mib} MiB of memory{words}"
    if ended.stopped == "disk_limit":
        return "disk_limit", f"its files took more than {limits.disk_mib} MiB of the disk{words}"
    if ended.stopped == "not_started":
        return "bad_command", f"the training command could not be started: {ended.error}"
    if code is None or code < 0:
        return "killed", f"ended by signal {-code if code else '(unknown)'}{words}"
    return ("training_failed", f"exited with {code}{words}") if code else ("", "")


def read_metrics(workspace: Workspace) -> dict[str, Any]:
    """The numbers in metrics.json, empty where there is none. Raises BadOutput for anything but a flat object."""
    path = workspace.output / METRICS_FILE
    if not path.exists() and not path.is_symlink():
        return {}
    if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_METRICS_BYTES:
        raise BadOutput(f"{METRICS_FILE} must be a plain file of at most {MAX_METRICS_BYTES} bytes", code="bad_metrics")
    try:
        found = json.loads(path.read_bytes())
        canonical_json_numbers(found)
    except (ValueError, RecursionError, CanonicalError) as error:
        raise BadOutput(f"{METRICS_FILE} is no JSON with plain numbers: {error}", code="bad_metrics") from error
    if not isinstance(found, dict) or len(found) > MAX_METRICS:
        raise BadOutput(f"{METRICS_FILE} must be an object of at most {MAX_METRICS} numbers", code="bad_metrics")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < len(name) <= 64:
            raise BadOutput(f"{METRICS_FILE}: {name[:64]!r} must be a short name with a number", code="bad_metrics")
    return found
