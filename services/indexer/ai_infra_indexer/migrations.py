"""The migrations, by the indexer's name: who owns the tables brings them about. The mechanism is the read model's."""

from __future__ import annotations

from ai_infra.readmodel.migrations import MigrationStatus, migrate, migrations, status

__all__ = ["MigrationStatus", "migrate", "migrations", "status"]
