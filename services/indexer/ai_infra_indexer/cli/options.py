"""Options that the commands over the log share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ai_infra.objects.reader import ObjectReader, open_store
from ai_infra.settings import Settings
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyring_document import read_roots

Lane = Annotated[int | None, typer.Option("--lane", min=0, help="One lane; all where not given.")]
Archive = Annotated[
    str | None,
    typer.Option(
        "--archive", help="s3://bucket or s3://bucket/prefix, or a folder; the archive of the settings where not given."
    ),
]
Origin = Annotated[str | None, typer.Option("--origin", help="Name of the log; that of the settings where not given.")]
RootKeys = Annotated[
    Path | None, typer.Option("--roots", help="Pinned root keys (roots.json); those of the settings where not given.")
]


def archive_reader(settings: Settings, archive: str | None) -> ObjectReader:
    """Where the archive is read from: the one that was named, or that of the settings."""
    return open_store(archive or f"s3://{settings.objects.archive_bucket}", settings)


def pinned_roots(settings: Settings, roots: Path | None) -> Roots:
    """The root keys to believe."""
    return read_roots(roots or settings.keys.roots)
