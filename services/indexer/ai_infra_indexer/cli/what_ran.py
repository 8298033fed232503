"""`ai-infra what-ran`: what served in an environment at a time, since when, where it came from, who asked for it; and
with --proof a file that shows it to whoever has the root keys."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ai_infra.cli.asking import BEHIND, reading, score
from ai_infra.cli.output import Json, fail, note, progress, record, show, stack
from ai_infra.readmodel.rows import DeploymentRow, Running
from ai_infra.settings import load_settings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.lane_keyrings import lane_keyring
from ai_infra_indexer.cli.options import archive_reader, pinned_roots
from ai_infra_indexer.cli.proof import shown_lines
from ai_infra_indexer.proofs.checking import ProvenEvent, check_event_proof
from ai_infra_indexer.proofs.making import prove_event
from ai_infra_indexer.proofs.ran import ProvenRan


def what_ran(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    env: Annotated[str, typer.Option("--env", "-e", help="dev, staging or prod.")] = "prod",
    at: Annotated[str | None, typer.Option("--at", help="2026-01-31T12:00Z, or an age such as 2h; else now.")] = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="Write a file that proves it; `audit verify --proof` checks it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What served a model's requests in an environment at a time (now, where no time is given)."""
    from ai_infra.cli.events import parse_time
    from ai_infra.client.wishes import environment

    name, when = environment(env).value, parse_time(at) if at else None
    with reading() as found:
        running = found.what_ran(model, name, when)
    if running is None:
        fail(
            f"nothing served {model} in {name}" + (f" at {when.isoformat()}" if when else "") + f"; {BEHIND}",
            code="nothing_ran",
        )
    proven = None
    if proof is not None:
        with progress("reading the archive"):
            data, proven = _prove(running, when or datetime.now(UTC))
        if differences := _against(running.deployment, proven.ran):
            fail(
                f"Postgres and the log differ about revision {running.deployment.revision}: {'; '.join(differences)}. "
                "Nothing was written. `ai-infra rebuild --parity` names all such rows; `ai-infra db reproject` makes "
                "them anew from the log",
                code="differs_from_log",
            )
        proof.write_bytes(data)
    show(
        {**_data(running), **({"proof": proof, "ran": proven.ran} if proven is not None else {})},
        json=as_json,
        table=lambda: stack(
            record({k: v for k, v in _fields(running).items() if v not in (None, "", [])}),
            *(shown_lines(proven) if proven is not None else ()),
        ),
    )
    if proof is not None:
        note(f"Anybody checks it with `ai-infra audit verify --proof {proof} --roots roots.json`.")


def _prove(running: Running, at: datetime) -> tuple[bytes, ProvenEvent]:
    """The proof file, and what its reader will find in it."""
    settings = load_settings()
    deployment, following, pinned = running.deployment, running.following, pinned_roots(settings, None)
    archived = ArchivedLane(archive_reader(settings, None), settings.log.origin, deployment.lane)
    size, keyring, positions = lane_keyring(settings, archived, pinned, database=True)
    opened = archived.checkpoint(archived.note() or b"", keyring)
    data = prove_event(
        archived,
        opened,
        deployment.position,
        positions,
        lanes=settings.log.lanes,
        size=max(size, opened.checkpoint.size),
        ran=at,
        following=following.position if following is not None else None,
    )
    return data, check_event_proof(data, pinned, log_origin=settings.log.origin)


def _against(row: DeploymentRow, proven: ProvenRan | None) -> list[str]:
    """What the row says otherwise than the entry that proves it."""
    if proven is None:
        return []
    names = ("model", "env", "revision", "stable_artifact_id", "candidate_artifact_id", "candidate_percent")
    return [
        f"{name} is {getattr(row, name)} in Postgres, {getattr(proven, name)} in the log"
        for name in names
        if getattr(row, name) != getattr(proven, name)
    ]


def _data(running: Running) -> dict[str, object]:
    return {name: getattr(running, name) for name in Running.__dataclass_fields__}


def _fields(running: Running) -> dict[str, object]:
    deployment, artifact, promotion = running.deployment, running.artifact, running.promotion
    return {
        "model": running.model,
        "environment": running.env,
        "artifact": deployment.stable_artifact_id or "none",
        "version": artifact.version if artifact else None,
        "status": artifact.status if artifact else None,
        "revision": deployment.revision,
        "since": deployment.changed_at,
        "until": running.until or "now",
        "because": deployment.cause,
        "promotion": deployment.promotion_id,
        "asked by": promotion.requested_by if promotion else None,
        "reason": promotion.request_reason if promotion else None,
        "score": score(promotion.score_e6) if promotion else None,
        "trained by job": artifact.job_id if artifact else None,
        "code": artifact.code_ref if artifact else None,
        "data": [f"{d['id']}@{d['version']}" for d in artifact.dataset_refs or ()] if artifact else None,
        "SHA-256": artifact.artifact_sha256 if artifact else None,
        "log entry": f"lane {deployment.lane}, position {deployment.position}",
    }
