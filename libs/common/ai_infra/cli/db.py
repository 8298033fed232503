"""`ai-infra db`: the projection's database. Brings it to the schema of this program, or says how far it is.

What is in the tables is the indexer's business, and so are `db reproject` and `db prune`, which it brings."""

from __future__ import annotations

from typing import Annotated

import typer

from ai_infra.cli.output import Json, progress, rows, show
from ai_infra.readmodel import migrations
from ai_infra.readmodel.connection import where
from ai_infra.settings import load_settings

app = typer.Typer(help="The projection's database: migrate, status, reproject, prune.", no_args_is_help=True)

Url = Annotated[str | None, typer.Option("--url", help="Postgres URL; that of the settings where not given.")]


@app.command()
def migrate(url: Url = None, json: Json = False) -> None:
    """Apply the migrations that are missing. Waits for another process that is migrating."""
    target = url or load_settings().database.url
    with progress(f"migrating {where(target)}"):
        applied = migrations.migrate(target)
    data = {"database": where(target), "applied": [f"{m.version:04d}_{m.name}" for m in applied]}
    show(
        data,
        json=json,
        table=lambda: "\n".join([f"applied {name}" for name in data["applied"]] or ["The schema is up to date."]),
    )


@app.command()
def status(url: Url = None, json: Json = False) -> None:
    """Each migration and when it was applied; exits 1 where one is missing."""
    target = url or load_settings().database.url
    found = migrations.status(target)
    show(
        {"database": where(target), "migrations": found},
        json=json,
        table=lambda: rows(
            ("migration", "applied at"), [(f"{m.version:04d}_{m.name}", m.applied_at or "missing") for m in found]
        ),
    )
    if any(m.applied_at is None for m in found):
        raise typer.Exit(1)
