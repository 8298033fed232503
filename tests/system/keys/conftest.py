"""Settings and keys for tests of signers and of the keys commands."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_infra.settings import Settings, load_settings


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a process with just these variables."""

    def load(**variables: object) -> Settings:
        return load_settings(environ={name: str(value) for name, value in variables.items()}, directory=tmp_path)

    return load


@pytest.fixture
def stopwatch() -> Callable[[], float]:
    started = time.monotonic()
    return lambda: time.monotonic() - started
