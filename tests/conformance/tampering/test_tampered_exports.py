"""An export holds together: every file, every claim of its statement, and nothing that it does not name."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.conformance.tampering.forging import Forger, flip
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder, model_in, put

from ai_infra.events.canonical import sha256_hex
from ai_infra.objects.reader import FolderReader
from ai_infra.trust.dsse import sign_document
from ai_infra.trust.keyring import Revocation
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.export import ExportFailed, Selection, write_export
from ai_infra_indexer.export import verify as verifier
from ai_infra_indexer.export.index import STATEMENT_TYPE, statement_json

MADE_AT = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("archive"), make_world)


def export(log: LogFolder, out: Path, selection: Selection, archive: Path | None = None) -> Path:
    write_export(
        FolderReader(archive or log.root),
        out,
        origin=ORIGIN,
        lanes_of_log=LANES,
        roots=log.worlds[0].roots,
        signer_of=lambda _: log.worlds[0].signers["audit-1"],
        selection=selection,
        made_at=MADE_AT,
    )
    return out


@pytest.fixture(scope="module")
def exports(log: LogFolder, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    chosen = {"all": Selection(), "model": Selection(model=model_in(2))}
    return {name: export(log, root / name, selection) for name, selection in chosen.items()}


def problems(log: LogFolder, folder: Path, origin: str | None = ORIGIN) -> set[str]:
    roots = verifier.Roots(dict(log.worlds[0].roots.keys), log.worlds[0].roots.threshold)
    return {p["code"] for p in verifier.verify(str(folder), roots, origin, LANES, 1)["problems"]}


class Copy:
    """An export to be changed, and signed again where that is what somebody would do."""

    def __init__(self, folder: Path, log: LogFolder) -> None:
        self.folder, self.log = folder, log

    def index(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "index.json").read_text())
        return found

    def state(self, change: Callable[[dict[str, Any]], Any], signer: LocalSigner | None = None) -> None:
        """Change the index, and sign a statement of it."""
        index = self.index()
        change(index)
        data = orjson.dumps(index)
        put(self.folder / "index.json", data)
        payload = {name: index[name] for name in ("format", "made_at", "origin", "selection")}
        key = signer or self.log.worlds[0].signers["audit-1"]
        text = sign_document(STATEMENT_TYPE, payload | {"index_sha256": sha256_hex(data)}, [key])
        put(self.folder / "statement.json", text.encode())

    def name_anew(self, *, drop: str = "") -> None:
        """State all files as they are now."""
        there = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*") if p.is_file()}
        files = {
            path: {"bytes": len(data := place.read_bytes()), "sha256": sha256_hex(data)}
            for path, place in there.items()
            if path not in ("index.json", "statement.json", drop)
        }
        self.state(lambda index: index.update(files=files))


def edit(copy: Copy, path: str, change: Callable[[bytes], bytes]) -> None:
    place = copy.folder / path
    place.write_bytes(change(place.read_bytes()))


def add_entry(copy: Copy) -> None:
    """An entry of another model, in a selection of one."""
    position = 5
    model = model_in(2)
    put(copy.folder / f"lanes/2/entries/{position}", copy.log.raws[2][position])
    copy.state(lambda index: index["selection"].update(model=f"{model}-x"))


def remove_keyring(copy: Copy) -> None:
    (copy.folder / "lanes/2/entries/0").unlink()
    copy.name_anew()


def other_signers(copy: Copy) -> None:
    document = json.loads((copy.folder / "signers.json").read_text())
    document["signers"][0]["publicKey"] = base64.b64encode(bytes(32)).decode()
    put(copy.folder / "signers.json", json.dumps(document).encode())
    copy.name_anew()


def changed_row(copy: Copy) -> None:
    edit(copy, "lanes/1/audit-events.jsonl", lambda data: data.replace(b"orchestrator", b"orchestratos", 1))
    copy.name_anew()


def more_rows(copy: Copy) -> None:
    edit(copy, "lanes/1/audit-events.jsonl", lambda data: data + b"{}\n")
    copy.name_anew()


def without_statement(copy: Copy) -> None:
    (copy.folder / "statement.json").unlink()


def deep(copy: Copy) -> None:
    put(copy.folder / "index.json", b"[" * 900_000)


def claim(**changes: Any) -> Callable[[Copy], None]:
    return lambda copy: copy.state(lambda index: index["lanes"][0].update(changes))


def linked(copy: Copy) -> None:
    place = copy.folder / "README.txt"
    place.rename(copy.folder.parent / "elsewhere.txt")
    place.symlink_to(copy.folder.parent / "elsewhere.txt")


def outside(path: str) -> Callable[[Copy], None]:
    said = {"bytes": 1 << 20, "sha256": "0" * 64}
    return lambda copy: copy.state(lambda index: index["files"].update({path: said}))


TAMPERED: dict[str, tuple[str, str, Callable[[Copy], Any]]] = {
    "a statement by a stranger": (
        "all",
        "bad_statement",
        lambda c: c.state(lambda _: None, LocalSigner.fresh("audit-1")),
    ),
    "a statement by a key of another use": (
        "all",
        "bad_statement",
        lambda c: c.state(lambda _: None, c.log.worlds[0].signers["manifest-1"]),
    ),
    "an index that was not signed": ("all", "bad_statement", lambda c: edit(c, "index.json", lambda d: d + b" ")),
    "an index of many brackets": ("all", "bad_statement", deep),
    "an index that is far too long": (
        "all",
        "too_large",
        lambda c: c.state(lambda index: index.update(more=" " * (2 << 20))),
    ),
    "a statement that is no JSON": ("all", "bad_statement", lambda c: edit(c, "statement.json", flip(0))),
    "a file changed": ("all", "changed_file", lambda c: edit(c, "README.txt", flip(3))),
    "a file gone": ("all", "missing_file", lambda c: (c.folder / "README.txt").unlink()),
    "a file more": ("all", "unlisted_file", lambda c: put(c.folder / "lanes/0/more", b"")),
    "a file that is a link": ("all", "bad_path", linked),
    "a path out of the folder": ("all", "bad_path", outside("../../etc/hostname")),
    "an absolute path": ("all", "bad_path", outside("/etc/hostname")),
    "a lane gone": ("all", "missing_lane", lambda c: shutil.rmtree(c.folder / "lanes/3")),
    "a lane more": ("model", "unlisted_lane", lambda c: shutil.copytree(c.folder / "lanes/2", c.folder / "lanes/1")),
    "a lane that the log does not have": (
        "all",
        "unlisted_lane",
        lambda c: shutil.copytree(c.folder / "lanes/2", c.folder / "lanes/9"),
    ),
    "another count claimed": ("all", "wrong_claim", claim(count=7)),
    "another root claimed": ("all", "wrong_claim", claim(root=base64.b64encode(bytes(32)).decode())),
    "another last entry claimed": ("all", "wrong_claim", claim(last={"position": 1, "event_id": "x"})),
    "another head claimed": ("all", "wrong_claim", claim(head_hash="0" * 64)),
    "a selection that is said to be all": (
        "model",
        "missing_bundle",
        lambda c: c.state(lambda index: index.update(selection={})),
    ),
    "a selection without its statement": ("model", "missing_bundle", without_statement),
    "an entry that was not selected": ("model", "not_selected", add_entry),
    "a selection without its keyring": ("model", "bad_checkpoint", remove_keyring),
    "an entry of a selection changed": ("model", "changed_entry", lambda c: edit(c, "lanes/2/entries/5", flip(900))),
    "an entry of a selection under another position": (
        "model",
        "wrong_position",
        lambda c: (c.folder / "lanes/2/entries/5").rename(c.folder / "lanes/2/entries/7"),
    ),
    "another key in the signers file": ("all", "bad_signers", other_signers),
    "a row of the Kernel's changed": ("all", "changed_row", changed_row),
    "a row of the Kernel's more": ("all", "changed_row", more_rows),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_changed_export_is_found(log: LogFolder, exports: dict[str, Path], tmp_path: Path, what: str) -> None:
    which, code, do = TAMPERED[what]
    copy = Copy(shutil.copytree(exports[which], tmp_path / "copy", symlinks=True), log)
    do(copy)
    assert code in problems(log, copy.folder)


@pytest.mark.parametrize("which", ["all", "model"])
def test_every_file_counts(log: LogFolder, exports: dict[str, Path], tmp_path: Path, which: str) -> None:
    """One bit of each kind of file, at another place each time."""
    kinds: dict[str, Path] = {}
    for path in sorted(p for p in exports[which].rglob("*") if p.is_file()):
        kinds.setdefault("/".join(path.relative_to(exports[which]).parts[2:3]) or path.name, path)
    for number, path in enumerate(kinds.values()):
        copy = Copy(shutil.copytree(exports[which], tmp_path / str(number)), log)
        data = path.read_bytes()
        edit(copy, path.relative_to(exports[which]).as_posix(), flip((number * 977 + 13) % len(data)))
        assert problems(log, copy.folder), f"nobody saw {path} change"


def test_lanes_that_do_not_verify_together_are_not_exported(log: LogFolder, tmp_path: Path) -> None:
    forger = Forger.of(log, tmp_path / "archive")
    forger.next_keyring(0, lambda ring: replace(ring, revocations={"audit-1": Revocation("audit-1", 1, "stolen")}))
    with pytest.raises(ExportFailed, match="bad_checkpoint"):
        export(log, tmp_path / "out", Selection(), forger.root)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    forger = Forger.of(log, tmp_path / "other")
    forger.next_keyring(0, lambda ring: replace(ring, revocations={"trainer-1": Revocation("trainer-1", 1, "stolen")}))
    forger.world(1).clock += timedelta(hours=1)
    forger.append(1, forger.world(1).say("orchestrator", forger.world(1).queued("job-late")))
    with pytest.raises(ExportFailed, match="lane 1: withheld_keyring"):
        export(log, tmp_path / "out", Selection(), forger.root)
    one = export(log, tmp_path / "one", Selection(lane=1), forger.root)
    assert problems(log, one) == set(), "an export of one lane has nothing to be compared with"


@pytest.mark.parametrize("signer", [None, LocalSigner.fresh("audit-1")])
def test_an_index_that_the_log_has_not_signed_is_never_parsed(
    log: LogFolder,
    exports: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    signer: LocalSigner | None,
) -> None:
    """Parsed, it would take twenty-five times as much memory."""
    parsed, parse = list[int](), verifier.parse_json
    monkeypatch.setattr(verifier, "parse_json", lambda data, *args: (parsed.append(len(data)), parse(data, *args))[1])
    copy = Copy(shutil.copytree(exports["all"], tmp_path / "copy"), log)
    if signer is not None:
        copy.state(lambda index: index.update(more=[[]] * 250_000), signer)
    else:
        put(copy.folder / "index.json", b"[" + b"[]," * 250_000 + b"[]]")
    assert "bad_statement" in problems(log, copy.folder)
    assert max(parsed) < 100_000


def test_another_logs_name_is_not_taken(log: LogFolder, exports: dict[str, Path]) -> None:
    assert {"wrong_origin", "bad_checkpoint"} <= problems(log, exports["all"], origin="example.org/other")


def test_the_statement_is_made_as_the_verifier_reads_it(log: LogFolder) -> None:
    signer = log.worlds[0].signers["audit-1"]
    said = json.loads(statement_json(b"{}", signer, origin=ORIGIN, made_at=MADE_AT, selection=Selection()))
    assert (said["payloadType"], STATEMENT_TYPE) == (verifier.EXPORT_TYPE, verifier.EXPORT_TYPE)
    assert len(base64.b64decode(said["payload"])) < 4_000, "a KMS signs 4,096 bytes"


def test_nothing_in_a_folder_speaks_to_the_terminal(log: LogFolder, exports: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(exports["all"], tmp_path / "copy")
    put(folder / "lanes/0/checkpoints/\x1b[2Jall is well\n", b"\x1b[31m")
    note = (folder / "lanes/1/checkpoint").read_bytes()
    put(folder / "lanes/1/checkpoint", note.replace(b"example.org", "\x9b2Jexample\u202e.org".encode()))
    roots = verifier.Roots(dict(log.worlds[0].roots.keys), log.worlds[0].roots.threshold)
    said = verifier.summary(verifier.verify(str(folder), roots, ORIGIN, LANES, 1), roots, inside=False)
    assert "does NOT verify" in said
    assert all(char.isprintable() for line in said.split("\n") for char in line)
