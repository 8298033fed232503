"""`ai-infra job`: ask for trainings, see what became of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ai_infra.cli.asking import dataset, find_job, json_object, reading, speaking
from ai_infra.cli.output import Json, Reason, fail, note, progress, record, rows, show

app = typer.Typer(help="Submit and follow trainings.", no_args_is_help=True)

_UNDER_WAY = frozenset({"requested", "queued", "running"})

JobId = Annotated[str, typer.Argument(help="The job's id.")]
Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", help="Wait so long for the result; 0: do not wait.")]


@app.command()
def submit(
    code: Annotated[str, typer.Option("--code", help="git+https://host/repo@<commit>#<path>, git+file://…@<commit>#…")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run, after `--`: -- python train.py")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The model's name.")] = None,
    file: Annotated[Path | None, typer.Option("--job", help="JSON file with any of the fields of a job.")] = None,
    datasets: Annotated[
        list[str] | None, typer.Option("--dataset", help="id=…,version=…,checksum=sha256:…,uri=…; may be repeated.")
    ] = None,
    hyperparams: Annotated[str | None, typer.Option("--hyperparams", help="A JSON object.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random generators; 0.")] = None,
    template: Annotated[str | None, typer.Option(help="Kind of build: a URI.")] = None,
    container: Annotated[str | None, typer.Option(help="Image to run in: sha256:<hex>.")] = None,
    cpu: Annotated[float | None, typer.Option(help="Processor share, in cores; 1.")] = None,
    memory: Annotated[int | None, typer.Option(help="Memory limit, MiB; 2048.")] = None,
    time_limit: Annotated[int | None, typer.Option(help="Wall-clock limit, seconds; 3600.")] = None,
    parent: Annotated[list[str] | None, typer.Option(help="Artifact to start from; may be repeated.")] = None,
    job_id: Annotated[str | None, typer.Option(help="An id of your own: asking again is then the same job.")] = None,
    wait: Wait = 0,
    as_json: Json = False,
) -> None:
    """Ask for a training. What is given here counts before what the file says."""
    from ai_infra.cli.job_file import job_fields

    given = {
        "model": model,
        "training_cmd": command or None,
        "dataset_refs": [dataset(text) for text in datasets] if datasets else None,
        "hyperparams": json_object(hyperparams, "--hyperparams") if hyperparams is not None else None,
        "seed": seed,
        "template": template,
        "container_digest": container,
        "cpu_millis": None if cpu is None else round(cpu * 1000),
        "memory_mib": memory,
        "time_limit_s": time_limit,
        "parent_artifacts": parent,
    }
    fields = job_fields(file, given)
    with speaking("job.queued") as client:
        _submitted(client, client.submit_job(code_ref=code, job_id=job_id, **fields), wait, as_json)


@app.command()
def status(
    job_id: JobId,
    wait: Wait = 0,
    model: Annotated[str | None, typer.Option(help="The model; then only Kafka is asked, no database.")] = None,
    as_json: Json = False,
) -> None:
    """What became of a job. With --wait: until it has ended; a job that failed is an error."""
    if wait or model:
        if model is None:
            with reading() as found:
                model = find_job(found, job_id).model
        with speaking("job.queued") as client, progress(f"waiting for job {job_id}"):
            result = client.wait(client.job(job_id, model=model), timeout=wait or 10)
        show(_result(result), json=as_json, table=lambda: record(_result(result)))
        return
    with reading() as found:
        job = find_job(found, job_id)
    fields = {
        "job": job.job_id,
        "model": job.model,
        "status": job.status,
        "reason": f"{job.reason_code}: {job.reason}" if job.reason_code else None,
        "artifact": job.artifact_id,
        "code": job.code_ref,
        "asked by": job.requested_by,
        "queued": job.queued_time or job.created_at,
        "started": job.started_time,
        "ended": job.ended_time,
        "attempt": job.attempt,
        "runner": job.runner,
        "log": job.log_uri,
    }
    show(job, json=as_json, table=lambda: record({k: v for k, v in fields.items() if v not in (None, "")}))


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    status: Annotated[str | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """Jobs, newest first."""
    with reading() as found:
        jobs = found.jobs(model=model, status=status, limit=limit)
    columns = ("job", "model", "status", "asked by", "created", "ended", "reason")
    cells = ((j.job_id, j.model, j.status, j.requested_by, j.created_at, j.ended_time, j.reason_code) for j in jobs)
    show(jobs, json=as_json, table=lambda: rows(columns, cells) if jobs else "No jobs.")


@app.command()
def cancel(job_id: JobId, reason: Reason, wait: Wait = 0, as_json: Json = False) -> None:
    """Ask that a job should end."""
    from ai_infra.client import Job

    with reading() as found:
        job = find_job(found, job_id)
    with speaking("job.cancel_requested") as client:
        published = client.cancel_job(Job(job_id, job.model), reason=reason)
        ended = None
        if wait:
            with progress(f"waiting for job {job_id} to end"):
                ended = client.wait_for(published, lambda e: _ended(e, job_id), timeout=wait)
    data = {"job_id": job_id, "event_id": published.id, "status": ended}
    show(data, json=as_json, table=f"job {job_id} is {ended}" if ended else f"asked that job {job_id} should end")


@app.command()
def requeue(job_id: JobId, wait: Wait = 0, as_json: Json = False) -> None:
    """Ask for the same training again, as a new job: same code, data, hyperparameters and seed.

    For a job that has ended, or that was refused. One that is under way has one result, and is tried again by itself.
    """
    from dataclasses import replace

    from ai_infra.client import Job
    from ai_infra.events.compose import uuid7
    from ai_infra.events.event import Cause
    from ai_infra.events.generated import EventRefused, JobQueued

    with reading() as found:
        job = find_job(found, job_id)
    model = job.model
    with speaking("job.queued") as client:
        told = client.history([JobQueued, EventRefused], model=model)
        asked = [e for e in told if isinstance(e.body, JobQueued) and e.body.job_id == job_id]
        if not asked:
            fail(f"Kafka no longer holds the request of job {job_id}; submit it anew", code="request_gone")
        refused = any(isinstance(e.body, EventRefused) and e.body.event_id == asked[0].id for e in told)
        if job.status in _UNDER_WAY and not refused:
            fail(
                f"job {job_id} is {job.status}, and two of it would run; wait for it (`ai-infra job status {job_id} "
                f"--wait 600`), or end it first: ai-infra job cancel {job_id} --reason TEXT --wait 60",
                code="job_under_way",
            )
        body = replace(asked[0].body, job_id=uuid7(), requested_by=client.principal)
        cause = Cause(asked[0].id, asked[0].lane)
        published = client.publish(body, subject=body.job_id, causes=(cause,))
        _submitted(client, Job(body.job_id, model, published), wait, as_json)


@app.command()
def logs(job_id: JobId, as_json: Json = False) -> None:
    """Print what a training wrote, verified by its checksum."""
    import hashlib

    from ai_infra.objects.store import ObjectStore
    from ai_infra.settings import load_settings

    with reading() as found:
        job = find_job(found, job_id)
    if not job.log_uri:
        fail(f"job {job_id} is {job.status} and has no log (yet)", code="no_log")
    with progress("fetching the log"), ObjectStore(load_settings()) as store:
        text = store.get(job.log_uri)
    if job.log_sha256 and hashlib.sha256(text).hexdigest() != job.log_sha256:
        fail(f"{job.log_uri} is not the log that the trainer put there: its SHA-256 is another", code="hash_mismatch")
    said = text.decode(errors="replace")
    show({"job_id": job_id, "log": said, "uri": job.log_uri, "sha256": job.log_sha256}, json=as_json, table=said)


def _submitted(client: Any, job: Any, wait: float, as_json: bool) -> None:
    """Shows the job, or waits for its result."""
    data = {"job_id": job.job_id, "model": job.model, "event_id": job.published.id, "lane": job.published.lane}
    if not wait:
        show(data, json=as_json, table=f"job {job.job_id} is asked for")
        if not as_json:
            note(f"follow it: ai-infra job status {job.job_id} --model {job.model} --wait 600")
        return
    with progress(f"waiting for job {job.job_id}"):
        result = client.wait(job, timeout=wait)
    show(_result(result), json=as_json, table=lambda: record(_result(result)))


def _result(result: Any) -> dict[str, Any]:
    body = result.registered.body
    return {
        "job_id": result.job_id,
        "status": result.status.body.status.value,
        "artifact_id": result.artifact_id,
        "model": body.model,
        "version": result.version,
        "new_version": result.new_version,
        "artifact_uri": body.artifact_uri,
        "artifact_sha256": body.artifact_sha256,
        "manifest_signature_id": body.manifest_signature_id,
    }


def _ended(event: Any, job_id: str) -> str | None:
    """The final status, where the event says one of that job."""
    from ai_infra.events.generated import JobStatus

    body = event.body
    if not isinstance(body, JobStatus) or body.job_id != job_id:
        return None
    return body.status.value if body.status.value not in {"queued", "running"} else None
