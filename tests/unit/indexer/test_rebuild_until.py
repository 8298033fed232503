"""How much of a lane there was at a time, found without reading all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.log_folder import ORIGIN, LogFolder

from ai_infra.objects.reader import open_store
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.rebuild import size_at


@pytest.fixture(scope="module")
def log(make_world: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("until"), make_world)


@pytest.mark.parametrize("lane", [0, 1])
def test_a_time_is_the_size_that_the_lane_had_then(log: LogFolder, lane: int) -> None:
    archived = ArchivedLane(open_store(str(Path(log.root))), ORIGIN, lane)
    times = [decode(raw).link.ts_us for raw in log.raws[lane]]
    for at in {times[0] - 1_000_000, *times, times[-1] + 1_000_000}:
        time_ms = at // 1_000
        assert size_at(archived, time_ms) == sum(t <= time_ms * 1_000 for t in times)
