"""One way to open a connection, so that every reader has the same time zone, time-outs and error.

A password in the URL must never reach an error message: only host, port and database are named.
"""

from __future__ import annotations

import json
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.types.json import set_json_loads

from ai_infra.errors import ConfigurationError
from ai_infra.readmodel.exceptions import DatabaseUnavailable

CONNECT_TIMEOUT_S: Final = 5  # one that is up answers in milliseconds; nobody should wait long for a dead one


def connect(
    url: str, *, application: str = "ai-infra", read_only: bool = False, **options: Any
) -> psycopg.Connection[TupleRow]:
    """Open a connection in UTC. Raises DatabaseUnavailable, or ConfigurationError for a URL that is none."""
    try:
        parts = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise ConfigurationError(
            "expected a Postgres URL (postgresql://user@host:port/database) in AI_INFRA_DATABASE_URL; "
            "what is there can't be read as one"
        ) from None
    settings = f"{parts.pop('options', '')} -c TimeZone=UTC".strip()
    if read_only:
        settings += " -c default_transaction_read_only=on"
    parts.setdefault("connect_timeout", CONNECT_TIMEOUT_S)
    try:
        connection = psycopg.connect(**{**parts, "options": settings, "application_name": application, **options})
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(
            f"Postgres at {where(url)} does not answer ({_first_line(error)}); start it (`ai-infra dev up`) "
            "or set AI_INFRA_DATABASE_URL"
        ) from None
    set_json_loads(_json, connection)
    return connection


def where(url: str) -> str:
    """host:port/database of a URL, without user and password: fit for messages."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _json(text: str | bytes) -> Any:
    """JSON of a row. Anybody may have said it: what Python does not take (too deep, a number too long) is none, and
    keeps no other row from whoever reads."""
    try:
        return json.loads(text)
    except (RecursionError, ValueError):
        return None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__
