"""`ai-infra audit export`: a folder for an auditor, who needs nothing of ours to check it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from ai_infra.cli.output import Json, note, progress, rows, show
from ai_infra.settings import load_settings
from ai_infra.trust.open import open_audit_signer
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, pinned_roots
from ai_infra_indexer.export import Selection, write_export


def export(
    out: Annotated[Path, typer.Option("--out", help="The folder to write; it must not exist.")],
    model: Annotated[str | None, typer.Option("--model", help="Only what is about this model.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Only what was appended from this time on: 2026-01-31T12:00Z, or 7d.")
    ] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only what was appended before this time.")] = None,
    lane: Lane = None,
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Export the log, or a part of it, with all that is needed to check it, and a verifier in one file.

    Reads the archive only, and verifies all of it on the way; signs the export with the audit key.
    """
    from ai_infra.cli.events import parse_time

    settings = load_settings()
    selection = Selection(
        model=model,
        since_ms=int(parse_time(since).timestamp() * 1000) if since else None,
        until_ms=int(parse_time(until).timestamp() * 1000) if until else None,
        lane=lane,
    )
    with progress("reading the log") as say:
        made = write_export(
            archive_reader(settings, archive),
            out,
            origin=origin or settings.log.origin,
            lanes_of_log=settings.log.lanes,
            roots=pinned_roots(settings, roots),
            signer_of=lambda keyring: open_audit_signer(settings, keyring),
            selection=selection,
            made_at=datetime.now(UTC),
            progress=lambda number, done: say(f"lane {number}: {done} entries verified"),
        )
    data = {
        "folder": made.folder,
        "origin": made.origin,
        "selection": selection.document(),
        "files": made.files,
        "bytes": made.bytes,
        "lanes": [item.document() for item in made.lanes],
    }
    columns = ("lane", "entries of the lane", "exported", "first", "last")
    table = [
        (i.lane, i.size, i.count, i.first.position if i.first else None, i.last.position if i.last else None)
        for i in made.lanes
    ]
    show(data, json=json, table=lambda: rows(columns, table))
    note(f"{made.files} files in {made.folder}. Check it: python {out / 'verify.py'} {out} --roots YOUR-roots.json")
