"""The one base of every error this project raises on purpose.

An error tells its reader three things: what was expected, what came, and what to do. The command line prints that
sentence and no stack trace. An error never carries a key, a password or a token.
"""

from __future__ import annotations


class AiInfraError(Exception):
    """Base class of all deliberate errors.

    `code` is a stable machine-readable word (`snake_case`): it goes into dead letters, `event.refused` and `--json`
    output, so other programs may rely on it. Subclasses override it.
    """

    code: str = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return self.message


class ConfigurationError(AiInfraError):
    """A setting is missing, unknown, or forbidden where this process runs."""

    code = "configuration"


class UnavailableError(AiInfraError):
    """Something outside this process (broker, database, object store, signing service) does not answer."""

    code = "unavailable"
