"""What can go wrong between us and the projection."""

from __future__ import annotations

from ai_infra.errors import AiInfraError, ConfigurationError, UnavailableError


class DatabaseUnavailable(UnavailableError):
    """Postgres does not answer, or went away in the middle."""

    code = "database_unavailable"


class MigrationError(ConfigurationError):
    """The database's schema is not one that this program can work with."""

    code = "migration"


class NotMigrated(MigrationError):
    """The database lacks a table that this program asks for."""

    def __init__(self) -> None:
        super().__init__("the database lacks tables of this version: run `ai-infra db migrate`")


class NotFound(AiInfraError):
    """The projection has no such row (yet)."""

    code = "not_found"
