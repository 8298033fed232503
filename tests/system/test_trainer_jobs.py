"""Real jobs through the real trainer and registry: what is asked for is run, once, and answered."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.commands import run_command
from tests.repositories import make_repository

from ai_infra.client import (
    Client,
    DatasetRef,
    EventRefusedError,
    Job,
    JobFailedError,
    JobResult,
    Resources,
)
from ai_infra.devstack import Stack
from ai_infra.events.generated import EventRefused, JobStatus, JobStatusKind
from ai_infra.manifest.training import TrainingManifest
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DIGITS = "python-package://sklearn/datasets/data/digits.csv.gz"
SMALL = Resources(cpu_millis=1000, memory_mib=1024)

# Writes what the hyperparameters say, or waits, or fails: a training that can be steered.
STEERED = """
import json, os, pathlib, sys, time
wish = json.loads(pathlib.Path(os.environ["AI_INFRA_HYPERPARAMS"]).read_text())
print("hello from the training", flush=True)
out = pathlib.Path(os.environ["AI_INFRA_OUTPUT_DIR"])
if "wait" in wish:
    time.sleep(wish["wait"])
if "exit" in wish:
    sys.exit(wish["exit"])
(out / "weights.bin").write_bytes(str(wish.get("content", 0)).encode())
(out / "metrics.json").write_text(json.dumps({"accuracy": 0.5, "pid": os.getpid()}))
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(ROOT / "examples" / "digits", root / "digits")
    (root / "steered").mkdir()
    (root / "steered" / "train.py").write_text(STEERED)
    return root, make_repository(root)


@pytest.fixture(scope="module")
def services(stack: Stack, repository: tuple[Path, str]) -> Iterator[Callable[[], None]]:
    env = {"AI_INFRA_RUNNER": "true", "AI_INFRA_ALLOWED_REPOSITORIES": f"git+file://{repository[0]}"}

    def start() -> None:
        stack.start_service("trainer", env=env)
        stack.start_service("registry")

    start()
    yield start
    stack.stop_service("trainer")
    stack.stop_service("registry")


@pytest.fixture(scope="module")
def client(settings: Settings, services: Callable[[], None]) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def submit(client: Client, repository: tuple[Path, str]) -> Callable[..., Job]:
    model = f"steered-{secrets.token_hex(4)}"

    def submit(
        wish: dict[str, Any] | None = None,
        *,
        path: str = "steered",
        cmd: Sequence[str] = ("python", "train.py"),
        **changes: Any,
    ) -> Job:
        root, commit = repository
        wanted: dict[str, Any] = {
            "model": model,
            "code_ref": f"git+file://{root}@{commit}#{path}",
            "training_cmd": cmd,
            "hyperparams": wish or {},
            "resources": SMALL,
            "time_limit_s": 60,
            **changes,
        }
        return client.submit_job(**wanted)

    return submit


def statuses(client: Client, job: Job, until: JobStatusKind) -> list[JobStatus]:
    """What was said of a job up to and with that status."""
    found: list[JobStatus] = []
    with client.subscribe([JobStatus], model=job.model, from_="earliest") as events:
        deadline = time.monotonic() + 60
        for event in events:
            assert time.monotonic() < deadline
            if isinstance(event.body, JobStatus) and event.body.job_id == job.job_id:
                found.append(event.body)
                if event.body.status is until:
                    return found
    raise AssertionError("the subscription ended")


def test_digits_are_trained_registered_and_repeated_bit_by_bit(
    client: Client, submit: Callable[..., Job], settings: Settings
) -> None:
    import sklearn

    file = Path(sklearn.__file__).parent / "datasets" / "data" / "digits.csv.gz"
    checksum = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    ref = DatasetRef(id="digits", checksum=checksum, version=sklearn.__version__, uri=DIGITS)
    first = client.wait(submit({"c": 0.1}, path="digits", dataset_refs=[ref], seed=7), timeout=90)
    again = client.wait(submit({"c": 0.1}, path="digits", dataset_refs=[ref], seed=7), timeout=90)
    other = client.wait(submit({"c": 0.5}, path="digits", dataset_refs=[ref], seed=7), timeout=90)
    assert isinstance(first, JobResult)
    assert (first.version, first.new_version) == (1, True)
    assert (again.version, again.new_version, again.artifact_id) == (1, False, first.artifact_id)
    assert (other.version, other.new_version) == (2, True)

    said = first.registered.body
    with ObjectStore(settings) as objects:
        tar = objects.get(said.artifact_uri)
        manifest = TrainingManifest.from_bytes(objects.get(said.manifest_uri))
    assert hashlib.sha256(tar).hexdigest() == said.artifact_sha256
    with tarfile.open(fileobj=BytesIO(tar)) as files:
        assert files.getnames() == ["model.onnx"]
    assert manifest.metrics["accuracy"] > 0.9
    assert manifest.dataset_refs == (ref,)
    assert manifest.environment["threads"] == "1"
    assert manifest.training_job_id == first.job_id
    assert said.created_by == client.principal
    assert said.builder_id == "urn:ai-infra:builder:trainer"
    assert json.loads(said.metadata_json)["metrics"]["accuracy_e6"] > 900_000


def test_an_artifact_is_verified_by_a_command_and_a_changed_byte_is_found(
    client: Client, submit: Callable[..., Job], stack: Stack
) -> None:
    result = client.wait(submit({"content": secrets.token_hex(8)}), timeout=60)
    said = result.registered.body

    def verify() -> tuple[int, dict[str, Any]]:
        done = run_command(stack, "artifact", "verify", result.artifact_id, "--model", said.model, "--json")
        return done.returncode, json.loads(done.stdout)

    code, found = verify()
    assert code == 0, found
    assert [check["name"] for check in found["checks"]] == ["registration", "artifact", "manifest", "provenance"]
    bucket, _, key = said.artifact_uri.removeprefix("s3://").partition("/")
    with ObjectStore(client.settings) as objects:
        data = bytearray(objects.get(said.artifact_uri))
        data[600] ^= 1
        objects.client.put_object(Bucket=bucket, Key=key, Body=bytes(data))
    code, found = verify()
    assert code == 1
    wrong = {check["name"]: [r["code"] for r in check["reasons"]] for check in found["checks"] if not check["holds"]}
    assert wrong == {"artifact": ["artifact_sha256"]}


def test_a_job_is_queued_then_running_then_completed(client: Client, submit: Callable[..., Job]) -> None:
    job = submit()
    said = statuses(client, job, JobStatusKind.COMPLETED)
    assert [s.status.value for s in said] == ["queued", "running", "completed"]
    assert said[1].runner
    assert said[2].started_time is not None
    assert said[2].ended_time is not None
    assert said[2].started_time <= said[2].ended_time


def test_a_training_that_fails_says_why_and_leaves_its_log(
    client: Client, submit: Callable[..., Job], settings: Settings
) -> None:
    with pytest.raises(JobFailedError):
        client.wait(job := submit({"exit": 3}), timeout=60)
    final = statuses(client, job, JobStatusKind.FAILED)[-1]
    assert (final.reason_code, final.exit_code) == ("training_failed", 3)
    assert final.reason == "exited with 3; its last line was: hello from the training"
    assert final.log_uri is not None
    with ObjectStore(settings) as objects:
        log = objects.get(final.log_uri)
    assert log == b"hello from the training\n"
    assert hashlib.sha256(log).hexdigest() == final.log_sha256


def test_a_dataset_with_other_bytes_never_reaches_the_training(client: Client, submit: Callable[..., Job]) -> None:
    ref = DatasetRef(id="digits", checksum="sha256:" + "0" * 64, version="1", uri=DIGITS)
    with pytest.raises(JobFailedError, match="but the job pins sha256:0000"):
        client.wait(submit(dataset_refs=[ref]), timeout=60)


def test_a_repository_that_is_not_allowed_is_refused(client: Client, submit: Callable[..., Job]) -> None:
    with pytest.raises(EventRefusedError, match="repository_not_allowed"):
        client.wait(submit(code_ref="git+https://host.invalid/repo@" + "a" * 40), timeout=60)


def test_the_same_job_id_again_is_refused_and_changes_nothing(client: Client, submit: Callable[..., Job]) -> None:
    job_id = str(uuid.uuid4())
    client.wait(submit(job_id=job_id), timeout=60)
    again = submit(job_id=job_id)
    assert again.published is not None
    with client.subscribe([EventRefused], model=again.model, from_="earliest") as events:
        refusal = next(e.body for e in events if e.body.event_id == again.published.id)
    assert [reason.code for reason in refusal.reasons] == ["duplicate_job"]
    said = statuses(client, again, JobStatusKind.COMPLETED)
    assert [s.status.value for s in said] == ["queued", "running", "completed"]


def test_a_running_job_is_cancelled_and_its_process_ends(client: Client, submit: Callable[..., Job]) -> None:
    job = submit({"wait": 300})
    statuses(client, job, JobStatusKind.RUNNING)
    client.cancel_job(job, reason="changed my mind")
    final = statuses(client, job, JobStatusKind.CANCELLED)[-1]
    assert final.reason.endswith("changed my mind")


def test_a_job_that_is_cancelled_at_once_is_cancelled(client: Client, submit: Callable[..., Job]) -> None:
    job = submit({"wait": 300})
    client.cancel_job(job, reason="too quick")
    statuses(client, job, JobStatusKind.CANCELLED)


def test_a_job_over_its_time_is_timed_out(client: Client, submit: Callable[..., Job]) -> None:
    job = submit({"wait": 300}, time_limit_s=1)
    final = statuses(client, job, JobStatusKind.TIMED_OUT)[-1]
    assert final.reason_code == "time_limit"


def test_a_trainer_that_is_killed_leaves_no_training_and_the_next_one_finishes_the_job(
    client: Client, submit: Callable[..., Job], stack: Stack, services: Callable[[], None]
) -> None:
    job = submit({"wait": 3, "content": "after a crash"})
    statuses(client, job, JobStatusKind.RUNNING)
    stack.kill_service("trainer")
    services()
    result = client.wait(job, timeout=90)
    assert result.new_version
    said = statuses(client, job, JobStatusKind.COMPLETED)
    assert [s.status.value for s in said] == ["queued", "running", "completed"]
    assert said[-1].attempt == 2


def test_a_trainer_that_was_not_told_to_run_trainings_stands_by_and_says_so(stack: Stack) -> None:
    stack.start_service("trainer", replica=9, env={"AI_INFRA_RUNNER": "false"})
    try:
        answer = httpx.get(stack.service_url("trainer", 9) + "/readyz", trust_env=False)
        assert answer.status_code == 503
        assert "AI_INFRA_RUNNER=true" in answer.text
    finally:
        stack.stop_service("trainer", 9)
