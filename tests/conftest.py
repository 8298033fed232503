"""What all tests share: one real stack a session, started by the first test that asks for it.

Tests keep apart by what they name (models, databases, replicas), not by stacks of their own. The unit tests ask for
nothing here.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ai_infra.devstack import Stack
    from ai_infra.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
LANES = 4  # enough for models to land in different lanes, few enough to be quick on two cores
SESSION_MS = 6_000  # how long the lanes of a killed replica stay with it: tests wait for that

# With Docker the same stack comes from compose.yaml, through testcontainers. Taken out of the environment at once,
# because an AI_INFRA_* name that no setting knows is an error for the processes that the tests start.
IN_DOCKER = os.environ.pop("AI_INFRA_TEST_DOCKER", "") == "1"

# What several tests share asserts too, and says what it found as they do.
pytest.register_assert_rewrite("tests.faults", "tests.system", "tests.unit")

# What was compiled is kept, whatever the shell says: else each worker, and each process that a test starts, compiles
# tests and services anew, and that takes longer than most tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_configure(config: pytest.Config) -> None:
    """What people have set for their own work must not reach the tests."""
    if config.getoption("dist", "no") == "no" or hasattr(config, "workerinput"):  # who only hands out tests has none
        from tests import properties

        properties.register()
    for name in list(os.environ):
        if name.startswith(("AI_INFRA_", "KAFKA_", "AWS_")):
            del os.environ[name]


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A running stack, furnished as `ai-infra dev up` does it; emptied before, stopped after."""
    from ai_infra.devstack import Stack, claimed_name

    terminal = request.config.pluginmanager.get_plugin("terminalreporter")

    def say(line: str) -> None:
        if terminal is not None:
            terminal.ensure_newline()
            terminal.write_line(f"  [stack] {line}")

    with claimed_name(ROOT, "test") as name:
        stack = Stack(
            name, ROOT, lanes=LANES, fsync=False, session_ms=SESSION_MS, backend="containers" if IN_DOCKER else "auto"
        )
        stack.reset()
        with _containers(stack) if IN_DOCKER else _nothing():
            try:
                stack.up(say)
                yield stack
            finally:
                stack.down()


@pytest.fixture(scope="session")
def settings(stack: Stack) -> Settings:
    """Settings of a program beside the stack, with the orchestrator's key."""
    return stack.settings()


@pytest.fixture
def database(stack: Stack) -> Iterator[str]:
    """The URL of an empty database that is this test's own."""
    name = f"test_{secrets.token_hex(6)}"
    yield stack.create_database(name)
    stack.drop_database(name)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _containers(stack: Stack) -> Iterator[None]:
    """The containers of the stack, by testcontainers: it removes them even when this run is killed."""
    from testcontainers.compose import DockerCompose

    os.environ.update(stack.compose_variables())
    with DockerCompose(ROOT, compose_file_name="compose.yaml", services=["kafka", "postgres", "s3"], wait=False):
        yield
