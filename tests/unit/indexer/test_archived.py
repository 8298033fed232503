"""What a lane's archive is taken for by the names that lie in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_infra.objects.reader import FolderReader
from ai_infra.tlog.tiles import entries_path
from ai_infra_indexer.archived import HOLE, ArchivedLane


@pytest.mark.parametrize(
    ("there", "reach"),
    [
        ([], 0),
        ([0, 1, 2], 3),
        ([0, 2, 9], 10),
        ([0, HOLE + 1], HOLE + 2),
        ([0, HOLE + 2], 1),
        ([0, 999_999_999_999], 1),
        ([999_999_999_999], 0),
    ],
)
def test_a_name_far_behind_all_others_makes_nobody_look_for_what_is_between(
    tmp_path: Path, there: list[int], reach: int
) -> None:
    for index in there:
        path = tmp_path / "lanes/0" / entries_path(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert ArchivedLane(FolderReader(tmp_path), "example.org/log", 0).reach() == reach
