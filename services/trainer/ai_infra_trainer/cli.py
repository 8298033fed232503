"""The trainer's commands: train here and record it; train an artifact again and compare."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, fail, note, progress, record, rows, show, stack

Publish = Annotated[bool, typer.Option("--publish", help="Upload it, and have it registered.")]
Key = Annotated[
    str | None, typer.Option("--key", help="Id of the key in the keys directory that signs as the builder.")
]
TimeLimit = Annotated[int, typer.Option("--time-limit", help="Longest time of the training, seconds.", min=1)]
Memory = Annotated[int, typer.Option("--memory", help="Memory of the training, MiB.", min=1)]


def train(
    command: Annotated[
        list[str] | None, typer.Argument(help="The training command, after `--`; else that of the job file.")
    ] = None,
    record_it: Annotated[
        bool, typer.Option("--record", help="Record what went into it (always done; for scripts that say it).")
    ] = True,
    job: Annotated[Path | None, typer.Option("--job", help="A job file (see examples/digits/job.json).")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name of the model.")] = None,
    hyperparams: Annotated[
        str | None, typer.Option("--hyperparams", help="JSON object; added to the job file's.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Seed; that of the job file where not said.", min=0)
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option("--dataset", envvar="TRAIN_DATASET", help="Path or URI of a dataset; pinned by its SHA-256."),
    ] = None,
    code_ref: Annotated[
        str | None, typer.Option("--code-ref", envvar="CODE_REF", help="Commit here, or git+https://…@<commit>#<path>.")
    ] = None,
    container_digest: Annotated[
        str | None, typer.Option("--container-digest", envvar="CONTAINER_DIGEST", help="Image that this runs in.")
    ] = None,
    manifest_out: Annotated[Path, typer.Option("--manifest-out", help="Where the manifest goes.")] = Path(
        "manifest.json"
    ),
    artifact_out: Annotated[
        Path | None, typer.Option("--artifact-out", help="Where the artifact goes; artifact.tar beside the manifest.")
    ] = None,
    publish: Publish = False,
    key: Key = None,
    json: Json = False,
) -> None:
    """Train here, exactly as a runner would, and write down what went into it and what came out."""
    from ai_infra.settings import load_settings
    from ai_infra_trainer.recipe import code_ref_here, uncommitted
    from ai_infra_trainer.recording import keep, train_here

    settings = load_settings()
    directory = job.resolve().parent if job is not None else Path.cwd()
    with progress("reading what is to be trained") as say:
        recipe = _recipe(settings, job, command, model, hyperparams, seed, dataset)
        reference = code_ref_here(directory, code_ref)
        if not (code_ref or "").startswith(("git+", "sha256:")) and uncommitted(directory):
            note(f"note: {directory} has changes that are not committed; what is trained is the commit {reference}")
        order = recipe.order(
            job_id=str(uuid.uuid4()), code_ref=reference, container_digest=container_digest, requested_by="local"
        )
        if publish:
            _publish(order, settings, key, container_digest, json, say)
            return
        artifact = artifact_out or manifest_out.parent / "artifact.tar"
        log = artifact.with_suffix(".log")
        recorded = train_here(
            order,
            settings,
            lambda trained: keep(trained, artifact=artifact, log=log, container_digest=container_digest),
            say,
        )
        manifest_out.parent.mkdir(parents=True, exist_ok=True)
        manifest_out.write_bytes(recorded.manifest.to_bytes())
        signed = _sign_beside(recorded, manifest_out, settings, key)
    manifest = recorded.manifest
    found = {
        "manifest": manifest_out,
        "manifest_sha256": manifest.sha256,
        "artifact": artifact,
        "artifact_id": manifest.artifact_id,
        "artifact_sha256": manifest.artifact_sha256,
        "artifact_bytes": manifest.artifact_bytes,
        "input_checksum": manifest.input_checksum,
        "code_ref": manifest.code_ref,
        "provenance": signed,
        "log": log,
    }
    metrics = rows(("metric", "value"), sorted(manifest.metrics.items()))
    show({**found, "metrics": manifest.metrics}, json=json, table=lambda: stack(record(found), metrics))


def reproduce(
    artifact: Annotated[str | None, typer.Argument(metavar="[ARTIFACT]", help="Artifact id, or MODEL@VERSION.")] = None,
    manifest: Annotated[Path | None, typer.Option("--manifest", help="A manifest file instead.", exists=True)] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="Other bytes are well where each metric differs by no more than this.", min=0),
    ] = None,
    time_limit: TimeLimit = 3600,
    memory: Memory = 4096,
    json: Json = False,
) -> None:
    """Train an artifact again from its manifest alone, and compare. Exits 1 where it is another one."""
    from ai_infra.settings import load_settings
    from ai_infra_trainer.reproduction import manifest_from, manifest_in, repeat

    if (artifact is None) == (manifest is None):
        fail("say either ARTIFACT or --manifest FILE", code="usage")
    settings = load_settings()
    with progress("reading the manifest") as say:
        wanted = manifest_in(manifest) if manifest is not None else manifest_from(settings, artifact or "")
        found = repeat(wanted, settings, say, memory_mib=memory, time_limit_s=time_limit)
    well = found.equal or (tolerance is not None and found.largest_difference <= tolerance)
    verdict = "bit-equal" if found.equal else "other bytes, metrics within tolerance" if well else "other bytes"
    head = {
        "verdict": verdict,
        "model": wanted.model,
        "artifact_id": wanted.artifact_id,
        "recorded sha256": wanted.artifact_sha256,
        "reproduced sha256": found.sha256,
    }
    metrics = rows(("metric", "recorded", "reproduced"), found.metrics)
    differs = rows(("environment", "recorded", "here"), found.environment, title="What is different here")
    show(
        {
            "equal": found.equal,
            "verdict": verdict,
            "artifact_id": wanted.artifact_id,
            "recorded_sha256": wanted.artifact_sha256,
            "reproduced_sha256": found.sha256,
            "metrics": [{"name": n, "recorded": a, "reproduced": b} for n, a, b in found.metrics],
            "environment_differs": [{"name": n, "recorded": a, "here": b} for n, a, b in found.environment],
        },
        json=json,
        table=lambda: stack(record(head), metrics, *([differs] if found.environment else [])),
    )
    if not well:
        raise typer.Exit(1)


def _recipe(
    settings: Any,
    job: Path | None,
    command: list[str] | None,
    model: str | None,
    hyperparams: str | None,
    seed: int | None,
    dataset: list[str] | None,
) -> Any:
    import json as jsonlib
    from dataclasses import replace

    from ai_infra.objects.store import ObjectStore
    from ai_infra_trainer.recipe import Recipe, pinned, read_job_file

    if job is not None:
        recipe = read_job_file(job)
    elif model and command:
        recipe = Recipe(model=model, training_cmd=tuple(command))
    else:
        fail("say what to train: --job FILE, or --model NAME and a command after `--`", code="usage")
    more: dict[str, Any] = {}
    if hyperparams is not None:
        try:
            more = dict(jsonlib.loads(hyperparams))
        except (ValueError, TypeError):
            fail("--hyperparams takes a JSON object, e.g. '{\"c\": 0.1}'", code="usage")
    places = [place.strip() for text in dataset or [] for place in text.split(",") if place.strip()]
    refs = recipe.dataset_refs
    if places:
        with ObjectStore(settings) as objects:
            refs = pinned(places, objects)
    return replace(
        recipe,
        model=model or recipe.model,
        training_cmd=tuple(command) if command else recipe.training_cmd,
        hyperparams={**recipe.hyperparams, **more},
        seed=recipe.seed if seed is None else seed,
        dataset_refs=refs,
    )


def _sign_beside(recorded: Any, manifest: Path, settings: Any, key: str | None) -> Path | None:
    """Write the provenance beside the manifest, where there is a key that may sign it."""
    from ai_infra.errors import AiInfraError
    from ai_infra.trust.keyring_files import latest_keyring
    from ai_infra_trainer.recording import builder_session, sign_here

    keyring = latest_keyring(settings.keys.dir) if settings.keys.dir is not None else None
    if keyring is None:
        return None
    try:
        session = builder_session(settings, keyring, key, recorded.manifest.model)
    except AiInfraError as error:
        if key is not None:
            raise
        note(f"note: no provenance was signed: {error}")
        return None
    path = manifest.with_name(manifest.name + ".provenance")
    path.write_text(sign_here(recorded, manifest, session), encoding="utf-8")
    return path


def _publish(order: Any, settings: Any, key: str | None, container_digest: str | None, json: bool, say: Any) -> None:
    from ai_infra.client.client import Client
    from ai_infra.client.gate import Gate
    from ai_infra.events.generated import ArtifactRefused
    from ai_infra_trainer.recording import builder_session, publish, train_here

    gate = Gate(settings)
    try:
        session = builder_session(settings, gate.keyring, key, order.model)  # before the training, not after it
    finally:
        gate.close()
    with Client(settings, key_id=key) as client:
        answer = train_here(
            order,
            settings,
            lambda trained: publish(
                trained,
                settings=settings,
                client=client,
                session=session,
                container_digest=container_digest,
                timeout=120,
            ),
            say,
        )
    if isinstance(answer, ArtifactRefused):
        fail("; ".join(f"{r.code}: {r.detail}" for r in answer.reasons), code="artifact_refused")
    found = {
        "model": answer.model,
        "version": answer.version,
        "new_version": answer.new_version,
        "attestation": answer.attestation,
        "artifact_id": answer.artifact_id,
        "artifact_uri": answer.artifact_uri,
        "manifest_uri": answer.manifest_uri,
        "manifest_signature_id": answer.manifest_signature_id,
    }
    show(found, json=json, table=lambda: record(found))


commands: dict[str, Any] = {"train": train, "reproduce": reproduce}
