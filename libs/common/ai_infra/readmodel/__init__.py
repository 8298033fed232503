"""The projection in Postgres, as others may see it: its schema, and typed queries on it.

Everybody but the indexer and a rebuild only reads here. What a query answers is a projection of the log: where truth is
asked for, the log's entries and proofs answer.
"""

from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.migrations import migrate, status
from ai_infra.readmodel.queries import ReadModel

__all__ = ["ReadModel", "connect", "migrate", "status"]
