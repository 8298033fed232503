"""The trainer's two kinds of work: `prepare` a job (a place, code, datasets) and `train` it (run, pack, upload, sign).

Both may be done again by whoever takes the lane over; a training that was prepared elsewhere is prepared here anew.
It never decides what a result means, and never holds a key that the training could see.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Final

import structlog

from ai_infra.bus.decision import WorkItem
from ai_infra.objects.store import ObjectStore
from ai_infra.telemetry import metrics
from ai_infra.trust.session import Session
from ai_infra_trainer import sandbox
from ai_infra_trainer.exceptions import Cancelled, RunnerUnfit, TrainingFailed
from ai_infra_trainer.publication import Publisher, runner_name
from ai_infra_trainer.sandbox import Limits
from ai_infra_trainer.slots import Slots
from ai_infra_trainer.state import Order, Prepared, Task, Trained
from ai_infra_trainer.training import Run, prepare, train
from ai_infra_trainer.workspaces import Workspace, Workspaces

log = structlog.get_logger(__name__)

_PR_SET_DUMPABLE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how this process runs trainings."""

    repositories: tuple[str, ...]
    datasets: tuple[str, ...]
    bucket: str
    slots: int
    disk_mib: int
    user: str | None = None
    directory: Path | None = None
    container_digest: str | None = None


class Runner:
    """Runs trainings in this process. `session` gives the builder's session key; it is asked for when needed."""

    def __init__(self, place: Place, *, objects: Callable[[], ObjectStore], session: Callable[[], Session]) -> None:
        self._place = place
        self._objects = objects
        self._session = session
        self._spaces = Workspaces(place.directory)
        self._slots = Slots(place.slots, on_expire=lambda key: self._spaces.of(key).remove())
        self._ready: set[str] = set()
        self._lock = threading.Lock()

    def prepare(self, item: WorkItem) -> Prepared:
        """Wait for a place, lay out what the training reads. Raises TrainingFailed, RunnerUnavailable or Cancelled."""
        key = _key(item)
        if not self._slots.acquire(key, item.cancelled):
            raise Cancelled("the job was cancelled while it waited for a place")
        try:
            self._prepare(item.args.order, self._spaces.of(key), item.cancelled)
        except BaseException:
            self._free(key)
            raise
        with self._lock:
            self._ready.add(key)
        self._slots.reserve(key)
        return Prepared(runner=runner_name())

    def train(self, item: WorkItem) -> Trained:
        """Run the training and publish what it made. Raises RunnerUnavailable, ObjectsUnavailable or Cancelled."""
        key = _key(item)
        if not self._slots.acquire(key, item.cancelled):
            raise Cancelled("the job was cancelled while it waited for a place")
        try:
            return self._train(item, self._spaces.of(key), key)
        finally:
            self._free(key)

    def _train(self, item: WorkItem, workspace: Workspace, key: str) -> Trained:
        task: Task = item.args
        with self._lock:
            ready = key in self._ready and workspace.root.is_dir()
            self._ready.discard(key)
        try:
            if not ready:
                self._prepare(task.order, workspace, item.cancelled)
            run = train(
                task.order,
                workspace,
                spaces=self._spaces,
                user=self._place.user,
                disk_mib=self._place.disk_mib,
                cancelled=item.cancelled,
            )
            return self._publish(task, run, workspace, item.cancelled)
        except TrainingFailed as error:
            return _failed(error)

    def _prepare(self, order: Order, workspace: Workspace, cancelled: threading.Event) -> None:
        prepare(
            order,
            workspace,
            repositories=self._place.repositories,
            datasets=self._place.datasets,
            objects=self._objects(),
            cancelled=cancelled,
        )

    def _publish(self, task: Task, run: Run, workspace: Workspace, cancelled: threading.Event) -> Trained:
        publisher = Publisher(self._objects(), self._place.bucket, cancelled)
        output = publisher.log(run, workspace)
        product = None
        if run.completed:
            product = publisher.product(
                task.order,
                run,
                output,
                session=self._session(),
                container_digest=self._place.container_digest,
                job_id=task.order.job_id,
            )
        status = "completed" if product else "timed_out" if run.reason_code == "time_limit" else "failed"
        _measure(task, run, status)
        return Trained(
            status=status,  # type: ignore[arg-type]  # one of the literal's three words
            runner=runner_name(),
            started=run.ended.started,
            ended=run.ended.ended,
            exit_code=run.ended.exit_code,
            reason_code=run.reason_code,
            reason=run.reason,
            log_uri=output.uri,
            log_sha256=output.sha256,
            product=product,
        )

    def _free(self, key: str) -> None:
        with self._lock:
            self._ready.discard(key)
        try:
            self._spaces.of(key).remove()
        finally:
            self._slots.release(key)

    def check(self) -> str | None:
        """Why this process cannot run trainings, for readiness; None when it can."""
        if not self._place.repositories:
            return "no repository is allowed, so every job is refused; set AI_INFRA_ALLOWED_REPOSITORIES"
        return None

    def try_out(self) -> None:
        """Run a program that does nothing, as a training would run. Raises RunnerUnfit, saying what is in the way."""
        workspace = self._spaces.of("try-out")
        workspace.remove()
        workspace.make()
        workspace.code.mkdir()
        workspace.hyperparams.write_text("{}", encoding="utf-8")
        limits = Limits(time_limit_s=60, memory_mib=512, cpu_millis=1000, disk_mib=1024)
        env = sandbox.environment(
            home=workspace.home,
            output=workspace.output,
            datasets=workspace.datasets,
            hyperparams=workspace.hyperparams,
            seed=0,
            threads=1,
        )
        never = threading.Event()
        try:
            with sandbox.identity(self._place.user, self._spaces.locks, never) as who:
                workspace.hand_over(who)
                ended = sandbox.run(
                    ["python", "-c", "open(__import__('os').environ['AI_INFRA_OUTPUT_DIR'] + '/x', 'w')"],
                    cwd=workspace.code,
                    workspace=workspace.open,
                    env=env,
                    limits=limits,
                    who=who,
                    log=workspace.private / "try-out.log",
                    cancelled=never,
                )
        finally:
            workspace.remove()
        if ended.exit_code != 0:
            raise RunnerUnfit(
                f"a training cannot run here: {ended.error or ended.last_line or ended.stopped}. Its user must reach "
                f"the interpreter {sys.executable} and the directory {self._spaces.base}: install where all users can "
                "read, set AI_INFRA_RUNNER_USER and AI_INFRA_RUNNER_DIR, or permit mount namespaces"
            )
        log.info("runner tried out", isolation=list(ended.isolation), slots=self._place.slots)

    def close(self) -> None:
        """Remove every workspace of this process."""
        self._spaces.close()


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory and environment (they hold its key).

    Matters where the trainer is not root, so that trainings run as the same user; root's are out of reach anyway.
    """
    if os.geteuid() == 0:
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise RunnerUnfit(f"this process cannot be hidden from its trainings: {os.strerror(ctypes.get_errno())}")


def _key(item: WorkItem) -> str:
    return f"{item.lane}/{item.args.order.job_id}"


def _failed(error: TrainingFailed) -> Trained:
    return Trained(
        status="failed",
        runner=runner_name(),
        started=None,
        ended=None,
        exit_code=None,
        reason_code=error.code,
        reason=str(error),
        log_uri=None,
        log_sha256=None,
        product=None,
    )


def _measure(task: Task, run: Run, status: str) -> None:
    ended = run.ended
    metrics.TRAINING_JOB_DURATION.labels(status).observe((ended.ended - ended.started).total_seconds())
    metrics.TRAINING_JOB_STARTUP.labels("trainer").observe(
        max(0.0, (ended.started.astimezone(UTC) - task.queued).total_seconds())
    )
    log.info(
        "training ended",
        job_id=task.order.job_id,
        status=status,
        exit_code=ended.exit_code,
        reason=run.reason,
        cpu_seconds=ended.cpu_seconds,
        peak_mib=ended.peak_bytes >> 20,
        isolation=list(ended.isolation),
    )
