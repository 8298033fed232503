"""What the tests on a stack share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.system.bus_bench import Bench
from tests.system.town import Town

from ai_infra.cli import main as program
from ai_infra.devstack import Stack
from ai_infra.settings import Settings


@pytest.fixture
def bench(stack: Stack, settings: Settings, tmp_path: Path) -> Iterator[Bench]:
    """An empty workbench; everything that it started is gone afterwards."""
    bench = Bench(stack, settings, tmp_path)
    yield bench
    bench.close()


@pytest.fixture(scope="module")
def town(stack: Stack, settings: Settings) -> Iterator[Town]:
    """With a running indexer; a test may start a second replica."""
    town = Town(stack, settings)
    town.start()
    yield town
    town.stop()
    stack.stop_service("indexer", replica=1)


@pytest.fixture
def ai_infra(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """Runs a command in this process, in a folder of the test; returns its JSON where it's asked for, else its text,
    and fails the test for another exit code."""
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            program.main(list(arguments))
        out, err = capsys.readouterr()
        assert (ended.value.code or 0) == code, out + err
        if "--json" not in arguments:
            return out + err
        return json.loads(out if out.strip() else err.strip().splitlines()[-1])

    return call
