"""Migrations of a database that is in use."""

from __future__ import annotations

import pytest

from ai_infra.readmodel import connect, migrations
from ai_infra.readmodel.exceptions import DatabaseUnavailable


def test_a_migration_does_not_hold_everybody_up_behind_a_long_reader(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations.migrations()
    monkeypatch.setattr(migrations, "LOCK_MS", 100)
    monkeypatch.setattr(migrations, "migrations", lambda: known[:-1])
    migrations.migrate(database)
    changes = migrations.Migration(len(known), "changes_jobs", "ALTER TABLE jobs ADD COLUMN more text", "0" * 64)
    monkeypatch.setattr(migrations, "migrations", lambda: (*known[:-1], changes))
    with connect(database) as reader:
        reader.execute("SELECT FROM jobs")
        with pytest.raises(DatabaseUnavailable, match="changes_jobs"):
            migrations.migrate(database)
    assert migrations.migrate(database) == (changes,)
