"""What `lag` shows: lanes that are behind, and one line for a service that has read everything."""

from __future__ import annotations

from datetime import UTC, datetime

from ai_infra.cli.lag import _lines
from ai_infra.cli.positions import Position


def position(service: str, lane: int, behind: int = 0) -> Position:
    oldest = datetime(2026, 1, 1, tzinfo=UTC) if behind else None
    return Position(service, "job.queued", lane, 0, behind, behind, oldest, 0)


def test_a_service_that_has_read_everything_is_one_line() -> None:
    found = [position("trainer", lane) for lane in range(8)]
    assert list(_lines(["trainer"], found)) == [("trainer", "all", 0, "")]


def test_only_lanes_that_are_behind_are_listed() -> None:
    found = [*(position("trainer", lane) for lane in range(4)), position("trainer", 2, behind=3)]
    (line,) = _lines(["trainer"], found)
    assert line[:3] == ("trainer", 2, 3)


def test_a_service_whose_place_is_unknown_has_no_line() -> None:
    assert list(_lines(["indexer"], [])) == []
