"""`ai-infra artifact`: what there is, where it came from, what differs, and that it must no longer be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ai_infra.cli.asking import facts, find_artifact, named, reading, score, sentences, speaking
from ai_infra.cli.output import Json, Reason, fail, progress, record, rows, show, stack

if TYPE_CHECKING:
    from ai_infra.readmodel.rows import ArtifactRow, EdgeRow

app = typer.Typer(help="Artifacts: where they came from and whether they are what they claim.", no_args_is_help=True)

Artifact = Annotated[str, typer.Argument(help="Artifact: its id, MODEL@VERSION or MODEL@latest.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")]
_COLUMNS: Final = ("artifact", "model", "version", "status", "bytes", "job", "created by", "at")
_COMPARED: Final = (
    "model",
    "version",
    "status",
    "code_ref",
    "container_digest",
    "dataset_refs",
    "input_checksum",
    "artifact_sha256",
    "artifact_bytes",
    "builder_id",
    "parent_artifacts",
    "created_by",
)


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    status: Annotated[str | None, typer.Option(help="produced, registered, refused or revoked.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Artifacts, newest first."""
    with reading() as found:
        artifacts = found.artifacts(model=model, status=status, limit=limit)
    _list(artifacts, as_json, "No artifacts.")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Part of an id, SHA-256, code reference, dataset, person, metadata.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="Only of this model.")] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Artifacts in whose facts a text occurs, newest first."""
    from ai_infra.readmodel.search import search_artifacts
    from ai_infra.settings import load_settings

    artifacts = search_artifacts(load_settings().database.url, text, model=model, limit=limit)
    _list(artifacts, as_json, f"No artifact mentions {text!r}.")


@app.command("show")
def show_(artifact: Artifact, as_json: Json = False) -> None:
    """All that is known about an artifact."""
    with reading() as found:
        row = find_artifact(found, artifact)
        evaluations = found.evaluations(row.artifact_id, limit=20)
        promotions = found.promotions(artifact_id=row.artifact_id, limit=20)
        serving = [d for d in found.current_deployments(model=row.model) if d.stable_artifact_id == row.artifact_id]
    fields = {
        "artifact": row.artifact_id,
        "model": row.model,
        "version": row.version,
        "status": row.status,
        "reasons": sentences(row.reasons),
        "revoked": f"{row.revoked_reason} (by {row.revoked_by})" if row.revoked_by else None,
        "serves in": [d.env for d in serving],
        "URI": row.artifact_uri,
        "SHA-256": row.artifact_sha256,
        "bytes": row.artifact_bytes,
        "attestations": row.attestations,
        "job": row.job_id,
        "code": row.code_ref,
        "container": row.container_digest,
        "data": [f"{d['id']}@{d['version']} {d['checksum']}" for d in row.dataset_refs or ()],
        "parents": row.parent_artifacts,
        "built by": row.builder_id,
        "created by": row.created_by,
        "manifest": row.manifest_uri,
        "manifest signature": row.manifest_signature_id,
        "signed by": row.manifest_signer_id,
        "registered": row.registered_at,
        **facts(row.metadata),
    }
    parts = [record({k: v for k, v in fields.items() if v not in (None, "", [])})]
    if evaluations:
        cells = [
            (e.evaluation_id, score(e.score_e6), e.dataset_ref["id"], e.evaluator, e.recorded_at) for e in evaluations
        ]
        parts.append(rows(("evaluation", "score", "data", "evaluator", "at"), cells))
    if promotions:
        steps = [(p.promotion_id, p.kind, p.target_env, p.status, p.requested_by, p.created_at) for p in promotions]
        parts.append(rows(("promotion", "kind", "environment", "status", "asked by", "at"), steps))
    data = {"artifact": row, "evaluations": evaluations, "promotions": promotions, "serving": serving}
    show(data, json=as_json, table=lambda: stack(*parts))


@app.command()
def diff(first: Artifact, second: Artifact, as_json: Json = False) -> None:
    """What differs between two artifacts: code, data, hyperparameters, metrics, result."""
    with reading() as found:
        one, two = find_artifact(found, first), find_artifact(found, second)
        jobs = [found.job(a.job_id) if a.job_id else None for a in (one, two)]
        scores = [
            {e.dataset_ref["id"]: score(e.score_e6) for e in found.evaluations(a.artifact_id)} for a in (one, two)
        ]
    sides = [
        {
            **{name: getattr(a, name) for name in _COMPARED},
            **facts(a.metadata),
            **({f"hyperparams.{k}": v for k, v in (job.hyperparams or {}).items()} | {"seed": job.seed} if job else {}),
            **{f"score on {k}": v for k, v in scored.items()},
        }
        for a, job, scored in zip((one, two), jobs, scores, strict=True)
    ]
    names = list(dict.fromkeys([*sides[0], *sides[1]]))
    found_ = [
        {"what": n, "first": sides[0].get(n), "second": sides[1].get(n)}
        for n in names
        if sides[0].get(n) != sides[1].get(n)
    ]
    cells = [(d["what"], d["first"], d["second"]) for d in found_]
    data = {"first": one.artifact_id, "second": two.artifact_id, "differences": found_}
    headings = ("what", _name(one), _name(two))
    show(data, json=as_json, table=lambda: rows(headings, cells) if cells else "They differ in nothing recorded.")


@app.command()
def lineage(
    artifact: Artifact,
    down: Annotated[bool, typer.Option("--down", help="What came from it, instead of what it came from.")] = False,
    as_json: Json = False,
) -> None:
    """Where an artifact came from (job, code, data, parents), or with --down what came from it."""
    with reading() as found:
        row = find_artifact(found, artifact)
        edges = found.lineage("artifact", row.artifact_id, down=down)
    data = {"artifact_id": row.artifact_id, "direction": "down" if down else "up", "edges": edges}
    show(data, json=as_json, table=lambda: _tree(row, edges, down=down))


@app.command()
def revoke(artifact: Artifact, reason: Reason, as_json: Json = False) -> None:
    """Say that an artifact must no longer be used. What serves it is held and alarmed, not changed."""
    with reading() as found:
        row = find_artifact(found, artifact)
    with speaking("artifact.revoked") as client:
        published = client.revoke_artifact(model=row.model, artifact_id=row.artifact_id, reason=reason)
        by = client.principal
    data = {"artifact_id": row.artifact_id, "model": row.model, "revoked_by": by, "event_id": published.id}
    show(
        data,
        json=as_json,
        table=f"artifact {row.artifact_id} ({_name(row)}) is revoked by {by}",
    )


@app.command()
def download(
    artifact: Artifact,
    to: Annotated[Path, typer.Option("--to", help="File or directory.")] = Path(),
    as_json: Json = False,
) -> None:
    """Fetch an artifact; what does not have the registered SHA-256 is not kept."""
    from ai_infra.objects.store import ObjectStore
    from ai_infra.settings import load_settings

    with reading() as found:
        row = find_artifact(found, artifact)
    if row.status != "registered":
        fail(
            f"artifact {row.artifact_id} is {row.status}: {row.revoked_reason or sentences(row.reasons)}",
            code=row.status,
        )
    path = to / row.artifact_uri.rpartition("/")[2] if to.is_dir() else to
    if path.exists():
        fail(f"{path} is there already; name another file with --to", code="file_exists")
    with progress(f"fetching {row.artifact_uri}"), ObjectStore(load_settings()) as store:
        found_ = store.download(row.artifact_uri, path, row.artifact_sha256)
    data = {"artifact_id": row.artifact_id, "path": path, "sha256": found_.sha256, "bytes": found_.bytes}
    show(data, json=as_json, table=f"{path}: {found_.bytes} bytes, SHA-256 {found_.sha256} as registered")


def _list(artifacts: list[ArtifactRow], as_json: bool, nothing: str) -> None:
    cells = (
        (a.artifact_id, a.model, a.version, a.status, a.artifact_bytes, a.job_id, a.created_by, a.created_at)
        for a in artifacts
    )
    show(artifacts, json=as_json, table=lambda: rows(_COLUMNS, cells) if artifacts else nothing)


def _name(row: ArtifactRow) -> str:
    return named(row.model, row.artifact_id, row.version)


def _tree(row: ArtifactRow, edges: list[EdgeRow], *, down: bool) -> Any:
    from rich.text import Text
    from rich.tree import Tree

    near, far = ("parent", "child") if down else ("child", "parent")
    children: dict[tuple[str, str], list[EdgeRow]] = {}
    for edge in edges:
        children.setdefault((getattr(edge, f"{near}_kind"), getattr(edge, f"{near}_id")), []).append(edge)
    seen: set[tuple[str, str]] = set()

    def grow(tree: Tree, node: tuple[str, str]) -> None:
        if node in seen:  # drawn once; what is reached twice is named twice
            return
        seen.add(node)
        for edge in children.get(node, ()):
            other = getattr(edge, f"{far}_kind"), getattr(edge, f"{far}_id")
            extra = ", ".join(str(edge.detail[k]) for k in ("id", "version", "uri") if edge.detail.get(k))
            label = f"{edge.relation} {other[0]} {other[1]}" + (f" ({extra})" if extra else "")
            grow(tree.add(Text(label)), other)

    root = Tree(f"artifact {row.artifact_id} ({_name(row)})")
    grow(root, ("artifact", row.artifact_id))
    return root
