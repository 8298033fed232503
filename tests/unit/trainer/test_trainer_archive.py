"""The artifact's bytes follow from the output's names and contents alone."""

from __future__ import annotations

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra_trainer.archive import METRICS_FILE, pack, tree_sha256
from ai_infra_trainer.exceptions import BadOutput

LARGE = 1 << 30


def write(root: Path, files: dict[str, bytes], *, reverse: bool = False) -> Path:
    for name in sorted(files, reverse=reverse):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
    return root


def test_same_files_give_the_same_bytes_whatever_their_times_modes_and_order(tmp_path: Path) -> None:
    files = {"model.onnx": b"weights", "vocab/words.txt": "ä b".encode(), "vocab/ü.txt": b"", "a" * 120 + "/x": b"long"}
    one = write(tmp_path / "one", files)
    two = write(tmp_path / "two", files, reverse=True)
    os.utime(two / "model.onnx", (1, 1))
    (two / "model.onnx").chmod(0o600)
    first = pack(one, tmp_path / "1.tar", max_bytes=LARGE)
    second = pack(two, tmp_path / "2.tar", max_bytes=LARGE)
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "1.tar").read_bytes()).hexdigest()
    assert first.size == (tmp_path / "1.tar").stat().st_size
    with tarfile.open(tmp_path / "1.tar") as tar:
        assert tar.getnames() == sorted(files, key=str.encode)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar.getmembers()} == {(0, 0, 0, "", 0o644)}


@settings(max_examples=examples(40))  # five names
@given(st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e", "metrics.json"]), st.binary(max_size=50), min_size=1))
def test_other_content_gives_other_bytes(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    root = tmp_path_factory.mktemp("tree")
    before = tree_sha256(write(root, files))
    name = sorted(files)[0]
    (root / name).write_bytes(files[name] + b"!")
    assert (tree_sha256(root) == before) == (name == METRICS_FILE)


def test_metrics_are_about_the_artifact_and_not_in_it(tmp_path: Path) -> None:
    root = write(tmp_path / "out", {"model.onnx": b"w"})
    before = pack(root, tmp_path / "1.tar", max_bytes=LARGE)
    (root / METRICS_FILE).write_text('{"seconds": 1.5}')
    assert pack(root, tmp_path / "2.tar", max_bytes=LARGE).sha256 == before.sha256


def test_metrics_alone_are_no_model(tmp_path: Path) -> None:
    root = write(tmp_path / "out", {METRICS_FILE: b"{}"})
    with pytest.raises(BadOutput) as refused:
        pack(root, tmp_path / "1.tar", max_bytes=LARGE)
    assert refused.value.code == "no_output"


def test_a_link_out_of_the_output_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "out", {"model.onnx": b"w"})
    (root / "secret").symlink_to("/etc/passwd")
    with pytest.raises(BadOutput, match="no regular file"):
        pack(root, tmp_path / "1.tar", max_bytes=LARGE)


def test_directories_nested_without_end_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "out", {"model.onnx": b"w"})
    path = root
    for _ in range(600):
        path /= "d"
        path.mkdir()
    with pytest.raises(BadOutput, match="nest less deeply"):
        pack(root, tmp_path / "1.tar", max_bytes=LARGE)


def test_a_file_of_another_owner_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "out", {"model.onnx": b"w"})
    with pytest.raises(BadOutput, match="belongs to user"):
        pack(root, tmp_path / "1.tar", max_bytes=LARGE, owner=os.getuid() + 1)


def test_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "out", {"model.onnx": bytes(100)})
    with pytest.raises(BadOutput, match="more than the 99"):
        pack(root, tmp_path / "1.tar", max_bytes=99)
