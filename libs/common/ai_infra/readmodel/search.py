"""Finding artifacts by any text in their facts. Reads only."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.exceptions import NotMigrated
from ai_infra.readmodel.rows import ArtifactRow

_SEARCHED: Final = (
    "artifact_id",
    "model",
    "artifact_sha256",
    "artifact_uri",
    "code_ref",
    "container_digest",
    "input_checksum",
    "manifest_signature_id",
    "job_id",
    "created_by",
    "builder_id",
    "dataset_refs",
    "parent_artifacts",
    "metadata",
)


def search_artifacts(url: str, text: str, *, model: str | None = None, limit: int = 100) -> list[ArtifactRow]:
    """Artifacts in one of whose facts `text` occurs, whatever its case; newest first."""
    pattern = "%" + text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_") + "%"
    query = sql.SQL(
        "SELECT {names} FROM artifact_details WHERE ({found}) AND (%(model)s::text IS NULL OR model = %(model)s) "
        "ORDER BY created_at DESC, artifact_id LIMIT %(limit)s"
    ).format(
        names=sql.SQL(", ").join(sql.Identifier(f.name) for f in fields(ArtifactRow)),
        found=sql.SQL(" OR ").join(sql.SQL("{}::text ILIKE %(pattern)s").format(sql.Identifier(n)) for n in _SEARCHED),
    )
    with connect(url, application="ai-infra search", read_only=True) as connection:
        try:
            with connection.cursor(row_factory=dict_row) as cursor:
                cursor.execute(query, {"pattern": pattern, "model": model, "limit": limit})
                return [ArtifactRow(**row) for row in cursor.fetchall()]
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
            raise NotMigrated() from None
