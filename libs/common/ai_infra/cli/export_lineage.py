"""`ai-infra export-lineage`: where an artifact came from and where it went, as one JSON document for an auditor."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ai_infra.cli.asking import find_artifact, reading
from ai_infra.cli.output import Json, note, plain, progress

if TYPE_CHECKING:
    from ai_infra.readmodel import ReadModel
    from ai_infra.readmodel.rows import ArtifactRow

app = typer.Typer(help="Write down where an artifact came from.")

FORMAT: Final = "ai-infra/lineage/v1"
_MOST: Final = 10_000


@app.command()
def export_lineage(
    artifact: Annotated[str, typer.Argument(help="Artifact: its id, MODEL@VERSION or MODEL@latest.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; else standard output.")] = None,
    as_json: Json = False,
) -> None:
    """Artifact, its ancestors, datasets, code, job, evaluations, promotions and deployments, with the events behind
    them. Always JSON."""
    import json

    with progress("collecting the lineage"), reading() as found:
        document = lineage_of(found, find_artifact(found, artifact))
    text = json.dumps(plain(document), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text)
    note(f"{out}: artifact {document['artifact']['artifact_id']} with {len(document['edges'])} relations")


def lineage_of(found: ReadModel, artifact: ArtifactRow) -> dict[str, Any]:
    """The document. Every statement in it is a row of the projection; `lane` and `event_id` lead to the log's entry."""
    up = found.lineage("artifact", artifact.artifact_id, limit=_MOST)
    down = found.lineage("artifact", artifact.artifact_id, down=True, limit=_MOST)
    ancestors = dict.fromkeys(e.parent_id for e in up if e.parent_kind == "artifact")
    jobs = dict.fromkeys(e.parent_id for e in up if e.parent_kind == "job")
    promotions = dict.fromkeys(e.child_id for e in down if e.child_kind == "promotion")
    return {
        "format": FORMAT,
        "exported_at": datetime.now(UTC),
        "artifact": plain(artifact),
        "ancestors": [a for a in map(found.artifact, ancestors) if a is not None],
        "jobs": [j for j in map(found.job, jobs) if j is not None],
        "evaluations": found.evaluations(artifact.artifact_id, limit=_MOST),
        "promotions": [
            {"promotion": found.promotion(p), "steps": found.promotion_steps(p), "approvals": found.approvals(p)}
            for p in promotions
        ],
        "deployments": [
            d
            for d in found.deployments(model=artifact.model, limit=_MOST)
            if artifact.artifact_id in (d.stable_artifact_id, d.candidate_artifact_id)
        ],
        "edges": [*up, *(e for e in down if e not in up)],
    }
