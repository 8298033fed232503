"""docs/names.md keeps its word: each name that it documents exists, and nothing that exists is marked (later)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from prometheus_client import REGISTRY
from psycopg import sql

from ai_infra.cli.main import program
from ai_infra.settings import known_names
from ai_infra.settings.document import configuration_page
from ai_infra.settings.layers import ENVIRONMENT_NAMES, RESERVED
from ai_infra.telemetry import metrics
from ai_infra.telemetry.health import HealthServer
from ai_infra_indexer import migrations

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "names.md").read_text()
CODE = re.compile(r"`([^`]+)`")


def rows(section: str) -> list[tuple[list[str], bool]]:
    """Of each row of a section's tables: its cells, and whether it is marked (later)."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    found = [([cell.strip() for cell in line.strip("|").split(" | ")], "(later)" in line) for line in lines]
    return [row for row in found if CODE.search(row[0][0]) or CODE.search(row[0][-1])]


def names(section: str, column: int = 0) -> list[Any]:
    return [
        pytest.param(name, later, id=name)
        for cells, later in rows(section)
        for name in CODE.findall(cells[min(column, len(cells) - 1)])
    ]


@pytest.mark.parametrize(("name", "later"), names("Environment"))
def test_each_variable_is_read(name: str, later: bool) -> None:
    if name == "KAFKA_<LIBRDKAFKA_NAME>":
        return  # tests/unit/settings shows what becomes of them
    known = known_names() | set(ENVIRONMENT_NAMES) | RESERVED
    assert name in known
    assert (name in RESERVED) <= later


@pytest.mark.parametrize(("name", "later"), names("Metrics"))
def test_each_metric_is_exported(name: str, later: bool) -> None:
    assert metrics.__doc__
    if name.startswith("ai_infra_<"):
        return
    exported = set(REGISTRY._names_to_collectors)
    assert (name in exported) != later


def test_each_view_has_its_columns(database: str) -> None:
    migrations.migrate(database)
    with psycopg.connect(database) as connection:
        for name, columns in ((CODE.findall(cells[0])[0], CODE.findall(cells[1])) for cells, _ in rows("Views")):
            query = sql.SQL("SELECT {} FROM {} LIMIT 0").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(name)
            )
            assert connection.execute(query).fetchall() == [], name


@pytest.mark.parametrize(("route", "later"), names("Routes"))
def test_each_route_of_a_service_is_served(route: str, later: bool) -> None:
    if later:
        return
    method, path = route.split()
    with HealthServer(0, {}) as server:
        assert httpx.request(method, f"{server.url}{path}").status_code == 200


COMMANDS = [*names("Commands"), *names("Commands", column=1)]


@pytest.mark.parametrize(("name", "later"), [c for c in COMMANDS if str(c.values[0]).startswith("ai-infra ")])
def test_each_command_is_there(name: str, later: bool) -> None:
    assert _command_exists(name) != later


def _command_exists(line: str) -> bool:
    words = [word for word in line.split()[1:] if not word.startswith("-")]
    options = [word for word in line.split()[1:] if word.startswith("-")]
    command: Any = program()
    for word in words:
        if not hasattr(command, "get_command"):
            return False
        command = command.get_command(command.make_context("ai-infra", [], resilient_parsing=True), word)
        if command is None:
            return False
    offered = {option for parameter in command.params for option in parameter.opts}
    return all(option in offered for option in options)


def test_the_page_about_configuration_is_current() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == configuration_page(), (
        "run python -m ai_infra.settings.document"
    )
