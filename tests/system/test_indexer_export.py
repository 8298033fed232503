"""An export of the real log, from a real archive by the command, checked as an auditor does it: by its own verifier."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.system.town import Town

from ai_infra.events.lanes import lane_of
from ai_infra.readmodel import ReadModel


def export(town: Town, out: Path, *options: str) -> dict[str, Any]:
    code, told = town.cli("audit", "export", "--out", str(out), *options)
    assert code == 0, told
    said: dict[str, Any] = told
    return said


def verify(town: Town, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """With the auditor's own root keys, without our code on the path, in an empty environment."""
    directory = town.settings.keys.dir
    assert directory is not None
    command = [sys.executable, "-I", str(folder / "verify.py"), str(folder), "--roots", str(directory / "roots.json")]
    done = subprocess.run(
        [*command, "--origin", town.settings.log.origin, "--json", *options],
        capture_output=True,
        text=True,
        env={},
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, said


def test_an_export_of_the_real_log_verifies_without_us(town: Town, tmp_path: Path) -> None:
    before = town.story("exported-before")
    town.await_final(*before)
    between = datetime.now(UTC)
    after = [*town.story("exported-after"), *town.story("exported-before")]
    town.await_final(*after)

    made = export(town, tmp_path / "all")
    code, said = verify(town, tmp_path / "all")
    assert (code, said["problems"]) == (0, [])
    assert said["entries"] == sum(lane["count"] for lane in made["lanes"]) >= len(before) + len(after)
    assert [lane["size"] for lane in said["lanes"]] == [lane["count"] for lane in said["lanes"]]

    export(town, tmp_path / "model", "--model", "exported-after")
    code, said = verify(town, tmp_path / "model")
    assert (code, said["problems"], said["selection"]) == (0, [], {"model": "exported-after"})
    assert [lane["lane"] for lane in said["lanes"]] == [lane_of("exported-after", town.lanes)]
    rows = (tmp_path / f"model/lanes/{lane_of('exported-after', town.lanes)}/audit-events.jsonl").read_text()
    shown = [json.loads(line)["payload"] for line in rows.splitlines()]
    assert {row["model"] for row in shown} == {"_broadcast", "exported-after"}
    ids = {dict(record.headers)["ce_id"].decode() for record in after if record.key == b"exported-after"}
    assert ids <= {row["event_id"] for row in shown}

    export(town, tmp_path / "range", "--from", between.isoformat())
    code, said = verify(town, tmp_path / "range")
    assert (code, said["problems"]) == (0, [])
    assert said["entries"] >= len(after)
    with ReadModel(town.settings.database.url) as model:
        early = {e.event_id for e in model.events(limit=10_000) if e.append_time < between and e.model != "_broadcast"}
    found = {
        json.loads(line)["id"]
        for path in (tmp_path / "range/lanes").rglob("audit-events.jsonl")
        for line in path.read_text().splitlines()
    }
    assert not found & early


def test_an_export_that_was_touched_does_not_verify(town: Town, tmp_path: Path) -> None:
    town.await_final(*town.story("touched"))
    export(town, tmp_path / "out", "--model", "touched")
    row = max((tmp_path / "out").rglob("lanes/*/entries/*"), key=lambda path: int(path.name))
    row.write_bytes(row.read_bytes()[:-1] + b"?")
    code, said = verify(town, tmp_path / "out")
    assert code == 1
    assert {"changed_entry", "changed_file"} <= {problem["code"] for problem in said["problems"]}
