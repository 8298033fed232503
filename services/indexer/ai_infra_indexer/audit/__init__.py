"""Looking at a log without trusting who wrote it: every problem is found, named, and placed.

It needs the pinned root keys, the log's origin, and read access to the archive or Postgres. It never repairs anything.
"""

from ai_infra_indexer.audit.archive import audit_archive
from ai_infra_indexer.audit.artifacts import audit_artifacts
from ai_infra_indexer.audit.postgres import audit_postgres
from ai_infra_indexer.audit.report import LaneReport, Problem, RegisteredBytes
from ai_infra_indexer.audit.versions import audit_versions, shared_history

__all__ = [
    "LaneReport",
    "Problem",
    "RegisteredBytes",
    "audit_archive",
    "audit_artifacts",
    "audit_postgres",
    "audit_versions",
    "shared_history",
]
