"""What comes back from work: never what no event could carry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.bus.lane_bench import Bench, make_event, make_service

from ai_infra.bus.records import PendingWork
from ai_infra.bus.workers import MESSAGE_BYTES, Workers
from ai_infra.errors import AiInfraError


def failing(error: Exception) -> Callable[[Any], Any]:
    def run(item: Any) -> Any:
        raise error

    return run


@pytest.mark.parametrize("kind", [AiInfraError, RuntimeError])
def test_an_error_that_quotes_foreign_bytes_can_be_said(kind: type[Exception]) -> None:
    """As that of a training whose repository has a file name that is not UTF-8: it must not halt a lane."""
    service = make_service(failing(kind("no file \udcff\0" + "x" * 10 * MESSAGE_BYTES)))
    bench, workers = Bench(service), Workers(service)
    bench.lane.event(make_event("work"), bench.batch)
    [(_, work)] = bench.lane.state.all(PendingWork)
    workers.start(0, work)
    finished = workers.get(timeout=30)
    assert finished is not None
    assert finished.error is not None
    message = finished.error.message
    assert "no file" in message
    assert len(message.encode()) <= MESSAGE_BYTES
    assert "\0" not in message
