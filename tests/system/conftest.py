"""What the tests of the runtime share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.bus_bench import Bench

from ai_infra.devstack import Stack
from ai_infra.settings import Settings


@pytest.fixture
def bench(stack: Stack, settings: Settings, tmp_path: Path) -> Iterator[Bench]:
    """An empty workbench; everything that it started is gone afterwards."""
    bench = Bench(stack, settings, tmp_path)
    yield bench
    bench.close()
