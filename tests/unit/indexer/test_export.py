"""An export holds what was asked for, verified on the way; `verify.py` checks it without any code of ours."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.unit.indexer.log_folder import LANES, LONG, ORIGIN, LogFolder, model_in, put

from ai_infra.errors import ConfigurationError
from ai_infra.objects.reader import FolderReader
from ai_infra.trust.keyring_document import roots_text
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import audit_archive
from ai_infra_indexer.entry import decode
from ai_infra_indexer.export import ExportFailed, Selection, write_export
from ai_infra_indexer.export import verify as verifier

MADE_AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("archive"), make_world)


def export(log: LogFolder, out: Path, selection: Selection | None = None, signer: str = "audit-1") -> Path:
    world = log.worlds[0]
    write_export(
        FolderReader(log.root),
        out,
        origin=ORIGIN,
        lanes_of_log=LANES,
        roots=world.roots,
        signer_of=lambda _: world.signers[signer],
        selection=selection or Selection(),
        made_at=MADE_AT,
    )
    return out


@pytest.fixture(scope="module")
def whole(log: LogFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of everything, to be read only."""
    return export(log, tmp_path_factory.mktemp("whole") / "out")


def verified(log: LogFolder, folder: Path, origin: str | None = ORIGIN, lanes: int | None = LANES) -> dict[str, Any]:
    roots = verifier.Roots(dict(log.worlds[0].roots.keys), log.worlds[0].roots.threshold)
    return verifier.verify(str(folder), roots, origin, lanes, 1)


def alone(log: LogFolder, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The exported verifier as an auditor runs it: nothing of ours on the path, an empty environment."""
    roots = folder.parent / "roots-of-the-auditor.json"
    roots.write_text(roots_text(log.worlds[0].roots))
    command = [sys.executable, "-I", str(folder / "verify.py"), "--roots", str(roots), *options]
    return subprocess.run(command, capture_output=True, text=True, env={}, timeout=120, check=False)


def test_an_export_of_everything_verifies_by_itself(log: LogFolder, whole: Path) -> None:
    done = alone(log, whole, "--origin", ORIGIN)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Everything verifies."), done.stdout + done.stderr
    done = alone(log, whole, "--json")
    said = json.loads(done.stdout)
    assert (said["ok"], said["entries"]) == (True, LONG + 9 * (LANES - 1))
    assert any("--origin" in text for text in said["unsure"])


def test_a_plain_copy_of_the_archive_verifies_too(log: LogFolder) -> None:
    said = verified(log, log.root)
    assert said["problems"] == []
    assert (said["entries"], said["export"], said["heads"]) == (LONG + 9 * (LANES - 1), False, True)


def test_an_export_has_what_an_auditor_needs_and_the_index_names_every_file(log: LogFolder, whole: Path) -> None:
    index = json.loads((whole / "index.json").read_text())
    there = {path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file()}
    assert there == set(index["files"]) | {"index.json", "statement.json"}
    assert there >= {"README.txt", "verify.py", "roots.json", "signers.json", "heads", "trust/chain-1.certificate.json"}
    assert "lanes/0/checkpoints/00000000000000000256" in there
    first, last = decode(log.raws[0][0]), decode(log.raws[0][-1])
    assert index["lanes"][0] == {
        "lane": 0,
        "size": LONG,
        "root": index["lanes"][0]["root"],
        "shows": "all",
        "count": LONG,
        "first": {"position": 0, "event_id": first.event_id},
        "last": {"position": LONG - 1, "event_id": last.event_id},
        "head_hash": last.link.hash,
    }
    rows = [json.loads(line) for line in (whole / "lanes/0/audit-events.jsonl").read_text().splitlines()]
    assert [row["hash"] for row in rows] == [decode(raw).link.hash for raw in log.raws[0]]


def test_a_complete_export_is_an_archive_again(log: LogFolder, whole: Path) -> None:
    for lane in range(LANES):
        report = audit_archive(ArchivedLane(FolderReader(whole), ORIGIN, lane), log.worlds[0].roots, LANES)
        assert (report.problems, report.entries) == ([], len(log.raws[lane]))


def test_a_file_of_the_readers_own_in_the_folder_is_told_and_spoils_nothing(
    log: LogFolder, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "copy")
    put(folder / "YOUR-roots.json", b"{}")
    put(folder / "notes/mine.txt", b"")
    said = verified(log, folder)
    assert (said["problems"], [text for text in said["unsure"] if "none of the export's" in text]) == (
        [],
        [f"a file that is none of the export's: {name!r}" for name in ("YOUR-roots.json", "notes/mine.txt")],
    )
    put(folder / "trust/roots.json", b"{}")
    assert {p["code"] for p in verified(log, folder)["problems"]} == {"unlisted_file"}


def test_a_copy_without_heads_is_told_apart(log: LogFolder, tmp_path: Path) -> None:
    folder = shutil.copytree(log.root, tmp_path / "copy")
    assert verified(log, folder)["unsure"] == []
    (folder / "heads").unlink()
    said = verified(log, folder)
    assert (said["problems"], len(said["unsure"])) == ([], 1)
    assert "there is no file heads" in said["unsure"][0]


def positions(folder: Path, lane: int) -> list[int]:
    return sorted(int(path.name) for path in (folder / f"lanes/{lane}/entries").iterdir())


def test_an_export_of_one_model_has_its_lane_and_the_broadcasts(log: LogFolder, tmp_path: Path) -> None:
    folder = export(log, tmp_path / "out", Selection(model=model_in(2)))
    assert [path.name for path in (folder / "lanes").iterdir()] == ["2"]
    assert positions(folder, 2) == list(range(9))
    said = verified(log, folder)
    assert (said["problems"], said["entries"], said["selection"]) == ([], 9, {"model": model_in(2)})
    nothing = export(log, tmp_path / "none", Selection(model="nobody-speaks-of-it"))
    assert verified(log, nothing)["problems"] == []
    assert verified(log, nothing)["entries"] == 1, "the keyring is always there"


def test_an_export_of_a_time_range_has_what_was_appended_in_it(log: LogFolder, tmp_path: Path) -> None:
    times = [decode(raw).append_time_ms for raw in log.raws[0]]
    folder = export(log, tmp_path / "out", Selection(since_ms=times[100], until_ms=times[110]))
    assert positions(folder, 0) == [0, *range(100, 110)]
    said = verified(log, folder)
    assert (said["problems"], said["lanes"][0]["count"]) == ([], 11)
    done = alone(log, folder)
    assert done.returncode == 0, done.stdout
    assert "what the selection leaves out" in done.stdout


def test_an_export_of_one_lane_is_that_lane_whole(log: LogFolder, tmp_path: Path) -> None:
    folder = export(log, tmp_path / "out", Selection(lane=3))
    said = verified(log, folder)
    assert (said["problems"], [lane["lane"] for lane in said["lanes"]]) == ([], [3])


@pytest.mark.parametrize(
    ("selection", "why"),
    [
        (Selection(lane=LANES), "there are lanes 0 to 3"),
        (Selection(model=model_in(1), lane=2), "in lane 1, not in lane 2"),
        (Selection(since_ms=5, until_ms=5), "--from must be before --to"),
    ],
)
def test_a_selection_that_contradicts_itself_is_refused(
    log: LogFolder, tmp_path: Path, selection: Selection, why: str
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        export(log, tmp_path / "out", selection)
    assert list(tmp_path.iterdir()) == []


def test_an_export_never_writes_over_anything(log: LogFolder, tmp_path: Path) -> None:
    put(tmp_path / "out/mine", b"mine")
    with pytest.raises(ConfigurationError, match="is there already"):
        export(log, tmp_path / "out")
    put(tmp_path / "other.partial/half", b"half")
    with pytest.raises(ConfigurationError, match="one was interrupted"):
        export(log, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["half", "mine", "other.partial", "out"]


def test_an_interrupted_export_leaves_nothing_that_looks_like_one(log: LogFolder, tmp_path: Path) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    world = log.worlds[0]
    with pytest.raises(KeyboardInterrupt):
        write_export(
            FolderReader(log.root),
            tmp_path / "out",
            origin=ORIGIN,
            lanes_of_log=LANES,
            roots=world.roots,
            signer_of=lambda _: world.signers["audit-1"],
            selection=Selection(),
            made_at=MADE_AT,
            progress=interrupt,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_verify_is_not_exported(log: LogFolder, tmp_path: Path, make_world: Callable[[], Any]) -> None:
    broken = LogFolder.make(tmp_path / "archive", make_world)
    path = broken.root / "lanes/1/tile/entries/000.p/9"
    path.write_bytes(path.read_bytes().replace(b"orchestrator", b"orchestratos", 1))
    with pytest.raises(ExportFailed, match="lane 1"):
        export(broken, tmp_path / "out")
    with pytest.raises(ConfigurationError, match="no audit key"):
        export(log, tmp_path / "out", signer="manifest-1")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_the_verifier_is_for_python_3_9_and_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(verifier.__file__).read_text(), feature_version=(3, 9))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - sys.stdlib_module_names == {"nacl"}


def test_the_verifier_says_what_it_needs(whole: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(whole / "verify.py"), "--roots", str(whole / "index.json")],
        capture_output=True,
        text=True,
        env={},
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "holds no root keys" in done.stderr
    inside = subprocess.run(
        [sys.executable, "-I", str(whole / "verify.py"), str(whole), "--roots", str(whole / "roots.json")],
        capture_output=True,
        text=True,
        env={},
        timeout=60,
        check=False,
    )
    assert inside.returncode == 0
    assert "which so only agrees with itself" in inside.stdout
