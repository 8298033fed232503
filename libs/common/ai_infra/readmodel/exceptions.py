"""What can go wrong between us and the projection."""

from __future__ import annotations

from ai_infra.errors import AiInfraError, ConfigurationError, UnavailableError


class DatabaseUnavailable(UnavailableError):
    """Postgres does not answer, or went away in the middle."""

    code = "database_unavailable"


class MigrationError(ConfigurationError):
    """The database's schema is not one that this program can work with."""

    code = "migration"


class NotFound(AiInfraError):
    """The projection has no such row (yet)."""

    code = "not_found"
