"""`ai-infra promote`: ask that an artifact should serve, say yes or no to that, follow it, take it back."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.asking import find_artifact, find_promotion, named, reading, score, sentences, speaking
from ai_infra.cli.output import Json, Reason, note, progress, record, rows, show, stack

app = typer.Typer(help="Ask for a promotion, follow it, take it back.", no_args_is_help=True)

Artifact = Annotated[str, typer.Argument(help="Artifact: its id, MODEL@VERSION or MODEL@latest.")]
PromotionId = Annotated[str, typer.Argument(help="The promotion's id.")]
Env = Annotated[str, typer.Option("--env", "-e", help="dev, staging or prod.")]
Wait = Annotated[float, typer.Option("--wait", metavar="SECONDS", help="Wait so long for the result; 0: do not wait.")]
Expect = Annotated[
    str | None,
    typer.Option("--expect", help="Apply only while this artifact serves; '' while nothing does."),
]
_REFUSAL_SECONDS: Final = 10.0
As = Annotated[str | None, typer.Option("--as", metavar="KEY", help="Which key of the keys directory to sign with.")]


@app.command()
def request(
    artifact: Artifact,
    env: Env,
    reason: Reason,
    expect: Expect = None,
    evaluation: Annotated[str | None, typer.Option(help="Evaluation to judge; else the newest.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Asking again with it is the same promotion.")] = None,
    wait: Wait = 0,
    as_: As = None,
    as_json: Json = False,
) -> None:
    """Ask that an artifact should serve in an environment."""
    with reading() as found:
        row = find_artifact(found, artifact)
    with speaking("promotion.requested", as_) as client:
        promotion = client.request_promotion(
            model=row.model,
            artifact_id=row.artifact_id,
            env=env,
            reason=reason,
            evaluation_id=evaluation,
            expected_current_artifact_id=expect,
            idempotency_key=idempotency_key,
        )
        _asked(client, promotion, wait, as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    env: Env,
    reason: Reason,
    to: Annotated[str | None, typer.Option(help="Artifact to go back to; else the one before.")] = None,
    expect: Expect = None,
    wait: Wait = 0,
    as_: As = None,
    as_json: Json = False,
) -> None:
    """Ask to go back to what served before."""
    to_id = None
    if to is not None:
        with reading() as found:
            to_id = find_artifact(found, to).artifact_id
    with speaking("rollback.requested", as_) as client:
        promotion = client.request_rollback(
            model=model, env=env, reason=reason, to_artifact_id=to_id, expected_current_artifact_id=expect
        )
        _asked(client, promotion, wait, as_json)


@app.command()
def approve(promotion_id: PromotionId, reason: Reason, as_: As = None, as_json: Json = False) -> None:
    """Say yes to a promotion, with your own key."""
    _answer(promotion_id, "approve", reason, as_, as_json)


@app.command()
def reject(promotion_id: PromotionId, reason: Reason, as_: As = None, as_json: Json = False) -> None:
    """Say no to a promotion, with your own key."""
    _answer(promotion_id, "reject", reason, as_, as_json)


@app.command()
def status(promotion_id: PromotionId, wait: Wait = 0, as_json: Json = False) -> None:
    """A promotion and each of its steps. With --wait: until it is applied; a rejected one is an error."""
    with reading() as found:
        row = find_promotion(found, promotion_id)
        if wait:
            with speaking("promotion.requested") as client, progress(f"waiting for promotion {promotion_id}"):
                result = client.wait(client.promotion(promotion_id, model=row.model, env=row.target_env), timeout=wait)
            show(_result(result), json=as_json, table=lambda: record(_result(result)))
            return
        steps, approvals = found.promotion_steps(promotion_id), found.approvals(promotion_id)
        version = found.versions([row.artifact_id]).get(row.artifact_id or "")
    fields = {
        "promotion": row.promotion_id,
        "kind": row.kind,
        "artifact": named(row.model, row.artifact_id, version),
        "artifact id": row.artifact_id,
        "environment": row.target_env,
        "status": row.status,
        "reasons": sentences(row.reasons),
        "asked by": row.requested_by,
        "because": row.request_reason,
        "score": score(row.score_e6),
        "threshold": score(row.threshold_e6),
        "judged by": row.verifier_id,
        "policy": f"version {row.policy_version}" if row.policy_version is not None else None,
        "asked": row.requested_at,
        "applied": row.applied_at,
    }
    table = rows(
        ("status", "at", "said by", "reasons"), ((s.status, s.at, s.said_by, sentences(s.reasons)) for s in steps)
    )
    show(
        {"promotion": row, "steps": steps, "approvals": approvals},
        json=as_json,
        table=lambda: stack(record({k: v for k, v in fields.items() if v not in (None, "")}), table),
    )


@app.command()
def history(
    model: Annotated[str | None, typer.Argument(help="Only of this model.")] = None,
    env: Annotated[str | None, typer.Option("--env", "-e", help="Only in this environment.")] = None,
    artifact: Annotated[str | None, typer.Option(help="Only of this artifact.")] = None,
    status: Annotated[str | None, typer.Option(help="Only with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """Promotions and rollbacks, newest first."""
    with reading() as found:
        artifact_id = find_artifact(found, artifact).artifact_id if artifact else None
        promotions = found.promotions(model=model, env=env, status=status, artifact_id=artifact_id, limit=limit)
        versions = found.versions(p.artifact_id for p in promotions)
    columns = ("promotion", "kind", "artifact", "environment", "status", "asked by", "at", "reasons")
    cells = (
        (
            p.promotion_id,
            p.kind,
            named(p.model, p.artifact_id, versions.get(p.artifact_id or "")),
            p.target_env,
            p.status,
            p.requested_by,
            p.created_at,
            ", ".join(r["code"] for r in p.reasons or ()),
        )
        for p in promotions
    )
    show(promotions, json=as_json, table=lambda: rows(columns, cells) if promotions else "No promotions.")


def _answer(promotion_id: str, decision: str, reason: str, key_id: str | None, as_json: bool) -> None:
    """Says yes or no, and looks for a moment whether that is refused."""
    from ai_infra.client import AnswerTimeout
    from ai_infra.events.generated import ApprovalDecision, PromotionDecided

    with reading() as found:
        model = find_promotion(found, promotion_id).model
    with speaking("promotion.approval", key_id) as client:
        published = client.approve(promotion_id, model=model, decision=ApprovalDecision(decision), reason=reason)
        approver, status = client.principal, None
        with contextlib.suppress(AnswerTimeout), progress("waiting for the promoter"):
            step = client.wait_for(
                published,
                lambda e: (
                    e if isinstance(e.body, PromotionDecided) and published.id in {c.id for c in e.causes} else None
                ),
                timeout=_REFUSAL_SECONDS,
            )
            status = step.body.status.value
    data = {
        "promotion_id": promotion_id,
        "decision": decision,
        "approver": approver,
        "event_id": published.id,
        "status": status,
    }
    text = f"{approver} says {decision} to promotion {promotion_id}" + (f", which is {status}" if status else "")
    show(data, json=as_json, table=text)


def _asked(client: Any, promotion: Any, wait: float, as_json: bool) -> None:
    data = {
        "promotion_id": promotion.promotion_id,
        "model": promotion.model,
        "env": promotion.env.value,
        "event_id": promotion.published.id,
    }
    if not wait:
        show(data, json=as_json, table=f"promotion {promotion.promotion_id} is asked for")
        if not as_json:
            note(f"follow it: ai-infra promote status {promotion.promotion_id}")
        return
    with progress(f"waiting for promotion {promotion.promotion_id}"):
        result = client.wait(promotion, timeout=wait)
    show(_result(result), json=as_json, table=lambda: record(_result(result)))


def _result(result: Any) -> dict[str, Any]:
    return {
        "promotion_id": result.promotion_id,
        "status": result.decision.body.status.value,
        "model": result.deployment.model,
        "env": result.env.value,
        "artifact_id": result.artifact_id,
        "revision": result.revision,
        "applied_at": result.deployment.time,
    }
