"""`ai-infra audit verify` reads lanes in processes of their own, and says the same as one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder, put

from ai_infra.cli import main as program
from ai_infra.trust.keyring_document import roots_text
from ai_infra_indexer.cli import commands


def test_lanes_that_are_audited_side_by_side_have_the_problems_that_they_have_one_after_the_other(
    tmp_path: Path,
    make_world: Callable[[], Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = LogFolder.make(tmp_path / "archive", make_world)
    for path in sorted((log.root / "lanes/1/tile/entries").rglob("*")):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[-5] ^= 1
            put(path, bytes(data))
    put(tmp_path / "roots.json", roots_text(log.worlds[0].roots).encode())
    monkeypatch.setattr(program, "_loaded", {"indexer": commands})
    monkeypatch.setenv("AI_INFRA_LANES", str(LANES))
    monkeypatch.chdir(tmp_path)

    reading = ("--archive", str(log.root), "--origin", ORIGIN, "--roots", "roots.json")

    def verify(processes: int) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            program.main(["audit", "verify", *reading, "--processes", str(processes), "--json"])
        assert ended.value.code == 1
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert found.pop("seconds") > 0
        for lane in found["lanes"]:
            lane.pop("seconds")
        return found

    one_by_one = verify(1)
    assert [lane["problems"] > 0 for lane in one_by_one["lanes"]] == [lane == 1 for lane in range(LANES)]
    assert verify(2) == one_by_one
