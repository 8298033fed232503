"""Unit tests need no stack and print no logs: a test that wants to see a log line captures it."""

from __future__ import annotations

import gc

import pytest
import structlog


def pytest_collection_finish() -> None:
    """What the modules brought lives as long as the process: no search for garbage need go through it again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def quiet_logs() -> None:
    structlog.reset_defaults()  # a command in an earlier test has set a level of its own
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)


def _drop(_: object, __: str, ___: object) -> structlog.typing.EventDict:
    raise structlog.DropEvent
