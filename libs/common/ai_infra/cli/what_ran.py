"""`ai-infra what-ran`: what served in an environment at a time, since when, where it came from, who asked for it."""

from __future__ import annotations

from typing import Annotated

import typer

from ai_infra.cli.asking import BEHIND, reading, score
from ai_infra.cli.output import Json, fail, record, show

app = typer.Typer(help="What served in an environment at a time.")


@app.command()
def what_ran(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    env: Annotated[str, typer.Option("--env", "-e", help="dev, staging or prod.")] = "prod",
    at: Annotated[str | None, typer.Option("--at", help="2026-01-31T12:00Z, or an age such as 2h; else now.")] = None,
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
    deployment, artifact, promotion = running.deployment, running.artifact, running.promotion
    fields = {
        "model": model,
        "environment": name,
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
    show(running, json=as_json, table=lambda: record({k: v for k, v in fields.items() if v not in (None, "", [])}))
