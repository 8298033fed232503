"""Brings a database to the schema of `sql/`: numbered files, forward only, behind a lock.

Two processes that start together migrate once. A file that was applied is never applied again, and one that was changed
after it was applied is an error: a shipped migration is history. Each file runs in a transaction of its own.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import psycopg

import ai_infra
from ai_infra.readmodel.connection import connect, where
from ai_infra.readmodel.exceptions import DatabaseUnavailable, MigrationError

# Any number that nobody else locks: the first eight bytes of SHA-256("ai-infra migrations"), signed.
LOCK: Final = int.from_bytes(hashlib.sha256(b"ai-infra migrations").digest()[:8], "big", signed=True)
LOCK_MS: Final = 5_000
_NAME: Final = re.compile(r"(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `sql/`."""

    version: int
    name: str
    sql: str
    sha256: str


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """A migration and when it was applied to a database (None: not yet)."""

    version: int
    name: str
    applied_at: datetime | None


def sql_directory() -> Path:
    """Where the numbered files are: inside the installed package, or in the source tree of an editable install."""
    package = Path(ai_infra.__file__).resolve().parent
    shipped = package / "_shipped" / "sql"
    if shipped.is_dir():
        return shipped
    for parent in package.parents:
        if (parent / "pyproject.toml").is_file() and (parent / "sql").is_dir():
            return parent / "sql"
    raise MigrationError(f"expected the migrations in {shipped}; the package is incomplete: install it again")


def migrations() -> tuple[Migration, ...]:
    """All migrations that this program knows, in order. Numbers without a gap, from 1."""
    found: list[Migration] = []
    for path in sorted(sql_directory().glob("*.sql")):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"expected NNNN_name.sql; got {path.name}")
        sql = path.read_text(encoding="utf-8")
        found.append(Migration(int(match["version"]), match["name"], sql, hashlib.sha256(sql.encode()).hexdigest()))
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"expected migrations 1..{len(found)}; got {[m.version for m in found]}")
    return tuple(found)


def migrate(url: str) -> tuple[Migration, ...]:
    """Apply what is missing; returns what was applied. Waits for another process that is migrating."""
    known = migrations()
    applied: list[Migration] = []
    with connect(url, application="ai-infra migrate", autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        try:
            _create_history(connection)
            done = _history(connection)
            _check(done, known, url)
            for migration in known:
                if migration.version in done:
                    continue
                with connection.transaction():
                    # Behind one that waits for a long reader every other one would wait too.
                    connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}".encode())
                    connection.execute(migration.sql.encode())
                    connection.execute(
                        "INSERT INTO schema_migrations (version, name, sha256) VALUES (%s, %s, %s)",
                        (migration.version, migration.name, migration.sha256),
                    )
                applied.append(migration)
        except psycopg.errors.LockNotAvailable as error:
            raise DatabaseUnavailable(
                f"migration {migration.version} ({migration.name}) waited {LOCK_MS} ms for what somebody else holds of "
                f"{where(url)}; nothing of it was done. It is tried again with the next start, or by "
                "`ai-infra db migrate` once long queries and dumps have ended"
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise MigrationError(
                f"the user of AI_INFRA_DATABASE_URL may not change the schema of {where(url)} "
                f"({error.diag.message_primary}); run `ai-infra db migrate` as the owner"
            ) from None
        finally:
            if not connection.closed:
                connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
    return tuple(applied)


def status(url: str) -> tuple[MigrationStatus, ...]:
    """Each known migration, and when it was applied."""
    known = migrations()
    with connect(url, application="ai-infra migrate", autocommit=True) as connection:
        row = connection.execute("SELECT to_regclass('schema_migrations')").fetchone()
        done = _history(connection) if row is not None and row[0] is not None else {}
    return tuple(MigrationStatus(m.version, m.name, done[m.version][1] if m.version in done else None) for m in known)


def require_current(url: str) -> None:
    """Raises MigrationError where the database is behind this program."""
    behind = [f"{m.version:04d}_{m.name}" for m in status(url) if m.applied_at is None]
    if behind:
        raise MigrationError(f"the database {where(url)} lacks {', '.join(behind)}: run `ai-infra db migrate`")


def _create_history(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL, "
        "sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )


def _history(connection: psycopg.Connection[Any]) -> dict[int, tuple[str, datetime]]:
    rows = connection.execute("SELECT version, sha256, applied_at FROM schema_migrations").fetchall()
    return {version: (sha256, at) for version, sha256, at in rows}


def _check(done: dict[int, tuple[str, datetime]], known: tuple[Migration, ...], url: str) -> None:
    by_version = {m.version: m for m in known}
    for version, (sha256, _) in sorted(done.items()):
        migration = by_version.get(version)
        if migration is None:
            raise MigrationError(
                f"the database {where(url)} has migration {version}, which this program does not know: "
                "it was migrated by a newer one; upgrade this program"
            )
        if migration.sha256 != sha256:
            raise MigrationError(
                f"migration {version} ({migration.name}) differs from the one that {where(url)} was migrated with: "
                "an applied migration is never edited; put the change into a new file"
            )
