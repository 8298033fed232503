"""A service's process says that it is ready when it serves, and not before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from ai_infra.bus import process
from ai_infra.bus.process import ServiceProcess, keep_running
from ai_infra.errors import UnavailableError
from ai_infra.settings import load_settings


class Process:
    """One start, with nothing of what it would read from Kafka."""

    keys_open = False
    serving = ServiceProcess.serving

    def __init__(self, _: str, __: Any, ___: Any, checks: dict[str, Any], *____: Any) -> None:
        self.checks = checks
        checks["delegation"] = lambda: None

    def close(self) -> None:
        return


def test_a_service_that_is_being_built_is_not_ready_and_says_what_it_failed_of_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[Mapping[str, Any]] = []
    seen: list[dict[str, Any]] = []
    stop = threading.Event()

    def health_server(_: Any, __: Any, checks: Mapping[str, Any], ___: Any) -> AbstractContextManager[None]:
        shown.append(checks)
        return nullcontext()

    def look() -> None:
        seen.append({name: check() for name, check in shown[0].items()})

    def serve(started: Any, stop: threading.Event) -> None:
        look()
        if len(seen) == 1:
            raise UnavailableError("the archive is away")
        started.serving({"loop": lambda: None})
        look()
        stop.set()

    monkeypatch.setattr(process, "ServiceProcess", Process)
    monkeypatch.setattr(process, "health_server", health_server)
    assert keep_running("canary", (), load_settings(), stop, serve) == 0
    assert seen == [
        {"starting": "starting: what it needs is being read and opened", "delegation": None},
        {"starting": "starting anew after unavailable: the archive is away", "delegation": None},
        {"delegation": None, "loop": None},
    ]
