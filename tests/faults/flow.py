"""The main job under load, while parts of it are killed: what is asked for, and how it is told afterwards what became
of it. Everything here talks to the stack as an orchestrator, an operator or an auditor would.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from tests.commands import run_command
from tests.repositories import make_repository

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.topics import LANE_TOPICS, UNSEQUENCED
from ai_infra.client import Client, DatasetRef, Job, Promotion, Resources
from ai_infra.client.exceptions import NotAcknowledged
from ai_infra.devstack import Stack
from ai_infra.errors import UnavailableError
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactRegistered, JobStatus, JobStatusKind, PromotionDecided, PromotionStatus
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings

T = TypeVar("T")

SERVICES = ("trainer", "registry", "promoter", "canary", "indexer")
SOAK = os.environ.get("SOAK") == "1"
SECONDS = 120.0  # how long anything may take before a test gives up
DATASET = DatasetRef(id="held-out", checksum="sha256:" + "0" * 64, version="1", uri="s3://b/held-out")
SMALL = Resources(cpu_millis=1000, memory_mib=512)

# A training that takes as long as it is told to and leaves what it is told to.
TRAINING = """
import json, os, pathlib, time
wish = json.loads(pathlib.Path(os.environ["AI_INFRA_HYPERPARAMS"]).read_text())
time.sleep(wish["wait"])
out = pathlib.Path(os.environ["AI_INFRA_OUTPUT_DIR"])
(out / "weights.bin").write_bytes(wish["content"].encode())
"""


def until(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = SECONDS) -> Any:
    """Waits until `condition` holds; fails with `what`, as it is then, when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := condition()):
        late = time.monotonic() > deadline
        assert not late, f"not within {seconds:.0f} s: {what() if callable(what) else what}"
        pause.wait(0.1)  # between two looks
    return found


@dataclass
class Flow:
    """Jobs, evaluations and promotions of a few models, one a lane, and what was asked for so far."""

    stack: Stack
    settings: Settings
    client: Client
    code: str
    """`git+file://…@commit` of the training above."""
    models: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    promotions: list[Promotion] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Ids of all events that were said from outside."""
    artifacts: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lanes = self.settings.log.lanes
        self.admin = KafkaAdmin(self.settings)
        self.began = self._ends()
        while len(self.models) < lanes:
            name = f"flow-{secrets.token_hex(4)}"
            if lane_of(name, lanes) == len(self.models):
                self.models.append(name)

    # -- services ------------------------------------------------------------------------------------------------------

    def start(self, *replicas: tuple[str, int]) -> None:
        """Starts replicas side by side; returns once all of them answer."""
        repository = self.code.partition("@")[0]
        env = {"AI_INFRA_RUNNER": "true", "AI_INFRA_ALLOWED_REPOSITORIES": repository}
        with ThreadPoolExecutor(len(replicas)) as pool:
            for started in [pool.submit(self.stack.start_service, s, r, env) for s, r in replicas]:
                started.result()

    def stop(self) -> None:
        names = [name.rpartition("-") for name in self.stack.services()]
        with ThreadPoolExecutor(max(1, len(names))) as pool:
            for stopped in [pool.submit(self.stack.stop_service, service, int(r)) for service, _, r in names]:
                stopped.result()

    def replica_that_runs(self, job: Job) -> int:
        """Waits until a job's training runs; returns which replica of the trainer runs it."""
        until(lambda: [s for s in self.statuses(job) if s.status is JobStatusKind.RUNNING], "the training runs")
        pid = int(self.statuses(job)[-1].runner.rpartition("/")[2])
        return next(int(p.name.rpartition("-")[2]) for p in self.stack.status() if p.pid == pid)

    def statuses(self, job: Job) -> list[JobStatus]:
        """What was said of a job, in order."""
        told = self.client.history([JobStatus], model=job.model)
        return [event.body for event in told if event.body.job_id == job.job_id]

    def ended(self) -> list[str]:
        """Replicas that were started and do not run."""
        known = set(self.stack.services())
        return [part.name for part in self.stack.status() if part.name in known and part.state == "stopped"]

    # -- asking --------------------------------------------------------------------------------------------------------

    def train(self, model: str, wait: float = 0.0) -> Job:
        job = self._insist(
            lambda: self.client.submit_job(
                model=model,
                code_ref=self.code,
                training_cmd=["python", "train.py"],
                hyperparams={"wait": wait, "content": secrets.token_hex(8)},
                resources=SMALL,
                time_limit_s=60,
            )
        )
        self.jobs.append(job)
        return job

    def ask(self, evaluations: int, promotions: int) -> None:
        """Evaluates and promotes what is registered, model by model."""
        for number in range(max(evaluations, promotions)):
            model = self.models[number % len(self.models)]
            artifact = self.artifacts[model][number % len(self.artifacts[model])]
            if number < evaluations:
                self._insist(
                    lambda m=model, a=artifact: self.client.record_evaluation(
                        model=m, artifact_id=a, dataset_ref=DATASET, score=0.97
                    )
                )
            if number < promotions:
                env = ("dev", "staging", "prod")[number % 3]
                promotion = self._insist(
                    lambda m=model, a=artifact, e=env: self.client.request_promotion(
                        model=m, artifact_id=a, env=e, reason="the flow goes on"
                    )
                )
                self.promotions.append(promotion)

    def registered(self, job: Job) -> None:
        """Waits for a job; what it made may be promoted from now on."""
        result = self.client.wait(job, timeout=SECONDS)
        self.artifacts.setdefault(job.model, []).append(result.artifact_id)

    def _insist(self, say: Callable[[], T]) -> T:
        """Says it until it is said: the broker may be away for a while."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                said = say()
            except NotAcknowledged as error:
                raise AssertionError("an outage of seconds outlasted the client's patience") from error
            except UnavailableError as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"not said within {SECONDS:.0f} s") from error
                continue
            self.asked.append(getattr(said, "published", said).id)  # type: ignore[union-attr]  # a Published, or with one
            return said

    # -- what became of it ---------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Waits until everything that was asked for is answered, and the log holds all of it."""
        for job in self.jobs:
            self.client.wait(job, timeout=SECONDS)
        asked = {promotion.promotion_id for promotion in self.promotions}
        until(lambda: asked <= self._decided(), "every promotion is applied, or rejected")
        said = {event.id for model in self.models for event in self.history(model)}
        until(lambda: said <= {e["id"] for e in self.entries()}, "the log holds all that was said")

    def _decided(self) -> set[str]:
        """Promotions with a result. All are read at once: to wait for each would read each lane as often as asked."""
        told = [e.body for model in self.models for e in self.client.history([PromotionDecided], model=model)]
        return {d.promotion_id for d in told if d.status not in (PromotionStatus.PENDING, PromotionStatus.APPROVED)}

    def history(self, model: str) -> list[Event[Any]]:
        """All that Kafka has about a model."""
        types = [t for t in LANE_TOPICS if t not in UNSEQUENCED]
        return list(self.client.history(types, model=model))

    def entries(self) -> list[dict[str, Any]]:
        """Entries of the log about the models, in their order."""
        query = (
            "SELECT lane, position, event_id::text, type, producer, epoch, seq, event_hash FROM entries "
            "WHERE model = ANY(%s) ORDER BY lane, position"
        )
        with psycopg.connect(self.settings.database.url) as connection:
            rows = connection.execute(query, (self.models,)).fetchall()
        return [dict(zip(("lane", "position", "id", "type", "producer", "epoch", "seq", "hash"), r)) for r in rows]  # noqa: B905

    def check_answers(self) -> None:
        """Every job and every promotion has exactly one result, and deployments follow each other without a gap."""
        for model in self.models:
            told = self.history(model)
            first = list({event.id: event for event in told}.values())  # a client may have sent its own twice
            by_type: dict[str, list[Any]] = {}
            for event in first:
                by_type.setdefault(event.type, []).append(event.body)
            assert not by_type.get("event.refused"), by_type["event.refused"]
            results = Counter(s.job_id for s in by_type.get("job.status", ()) if s.ended_time is not None)
            produced = Counter(p.job_id for p in by_type.get("artifact.produced", ()))
            registered = Counter(r.job_id for r in by_type.get(ArtifactRegistered.TOPIC, ()))
            wanted = Counter(job.job_id for job in self.jobs if job.model == model)
            assert results == produced == registered == wanted
            steps = Counter((d.promotion_id, d.status.value) for d in by_type.get("promotion.decided", ()))
            asked = [p.promotion_id for p in self.promotions if p.model == model]
            assert steps == Counter({(p, s): 1 for p in asked for s in ("pending", "approved", "applied")})
            changes = by_type.get("deployment.changed", [])
            assert Counter(c.promotion_id for c in changes) == Counter(asked)
            for env in {c.env for c in changes}:
                revisions = [c.revision for c in changes if c.env == env]
                assert revisions == list(range(1, len(revisions) + 1))

    def check_log(self) -> None:
        """Nothing is lost or doubled: the log holds what Kafka holds, each event once, and no number is missing."""
        entries = self.entries()
        ids = [entry["id"] for entry in entries]
        assert len(ids) == len(set(ids))
        assert set(ids) == {event.id for model in self.models for event in self.history(model)}
        assert set(self.asked) <= set(ids)
        numbers: dict[tuple[str, int], list[int]] = {}
        for record in self._records_since():
            numbers.setdefault(record[:2], []).append(record[2])
        assert {producer.partition("/")[0] for producer, _ in numbers} >= set(SERVICES) - {"indexer"}
        before = self._last_numbers_before()
        for producer, said in numbers.items():
            said.sort()
            first = before.get(producer, 0) + 1
            assert said == list(range(first, first + len(said))), producer

    def check_by_command(self) -> None:
        """Chains, signatures and trees verify, and the rebuilt registry is the live one."""
        for arguments in (["audit", "verify", "--json"], ["rebuild", "--parity", "--json"]):
            done = self.cli(*arguments)
            assert done.returncode == 0, f"{arguments}: {done.stdout[-3000:]}{done.stderr[-3000:]}"

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command(self.stack, *arguments)

    def checkpoints(self) -> dict[int, int]:
        """Size of the newest archived checkpoint of each lane."""
        found = json.loads(self.cli("audit", "checkpoint", "--json").stdout)
        return {c["lane"]: int(c["checkpoint"].splitlines()[1]) if c["checkpoint"] else 0 for c in found}

    def _records_since(self) -> Iterable[tuple[str, int, int]]:
        """(producer, epoch, seq) of all that services have said since the flow began, of any model."""
        query = "SELECT producer, epoch, seq FROM entries WHERE producer IS NOT NULL AND lane = %s AND position >= %s"
        with psycopg.connect(self.settings.database.url) as connection:
            for lane, size in self.began.items():
                yield from connection.execute(query, (lane, size)).fetchall()

    def _last_numbers_before(self) -> dict[tuple[str, int], int]:
        """The last number that each (producer, epoch) had said when the flow began."""
        query = "SELECT producer, epoch, max(seq) FROM entries WHERE producer IS NOT NULL AND lane = %s"
        query += " AND position < %s GROUP BY producer, epoch"
        with psycopg.connect(self.settings.database.url) as connection:
            rows = [row for place in self.began.items() for row in connection.execute(query, place).fetchall()]
        return {(producer, epoch): last for producer, epoch, last in rows}

    def _ends(self) -> dict[int, int]:
        with psycopg.connect(self.settings.database.url) as connection:
            sizes = dict(connection.execute("SELECT lane, size FROM lanes").fetchall())
        return {lane: sizes.get(lane, 0) for lane in range(self.settings.log.lanes)}


def make_code(directory: Path) -> str:
    """A git repository with the training; returns its code_ref."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    (directory / "train.py").write_text(TRAINING)
    return f"git+file://{directory}@{make_repository(directory)}"
