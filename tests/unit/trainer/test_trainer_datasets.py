"""Other bytes than the pinned ones never reach a training."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from ai_infra.events.generated import DatasetRef
from ai_infra_trainer.archive import tree_sha256
from ai_infra_trainer.datasets import allowed, fetch_all, package_file, steady
from ai_infra_trainer.exceptions import Cancelled, DatasetMismatch, RunnerUnavailable

NO_STORE = cast(Any, None)  # these datasets are on this machine


def fetch(
    tmp_path: Path,
    *refs: DatasetRef,
    max_bytes: int = 1 << 20,
    cancelled: bool = False,
    places: tuple[str, ...] = ("https://", "file:///tmp"),
) -> Path:
    into = tmp_path / "datasets"
    into.mkdir()
    stop = threading.Event()
    if cancelled:
        stop.set()
    fetch_all(refs, into, objects=NO_STORE, places=places, max_bytes=max_bytes, cancelled=stop)
    return into


def ref(uri: str, content: bytes = b"", identifier: str = "d", sha256: str | None = None) -> DatasetRef:
    return DatasetRef(
        id=identifier, checksum=f"sha256:{sha256 or hashlib.sha256(content).hexdigest()}", version="1", uri=uri
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a b.csv"
    path.write_bytes(b"1,2\n")
    return path


def test_each_dataset_is_where_the_index_says(tmp_path: Path, file: Path) -> None:
    into = fetch(tmp_path, ref(f"file://{tmp_path}/a%20b.csv", b"1,2\n"))
    index = json.loads((into / "datasets.json").read_text())
    assert (into / index["d"]["path"]).read_bytes() == b"1,2\n"
    assert index["d"]["path"] == "d/a_b.csv"


def test_other_bytes_are_refused(tmp_path: Path, file: Path) -> None:
    with pytest.raises(DatasetMismatch, match="but the job pins"):
        fetch(tmp_path, ref(f"file://{tmp_path}/a%20b.csv", b"other"))


def test_all_datasets_together_have_a_bound(tmp_path: Path, file: Path) -> None:
    one = ref(f"file://{tmp_path}/a%20b.csv", b"1,2\n", "one")
    two = ref(f"file://{tmp_path}/a%20b.csv", b"1,2\n", "two")
    with pytest.raises(DatasetMismatch) as refused:
        fetch(tmp_path, one, two, max_bytes=6)
    assert refused.value.code == "dataset_too_large"


def test_a_directory_is_pinned_as_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "x").write_text("x")
    into = fetch(tmp_path, ref(f"file://{tree}/", sha256=tree_sha256(tree)))
    assert (into / "d" / "tree" / "x").read_text() == "x"


def test_a_file_of_the_runner_s_machine_is_read_below_an_allowed_directory_only(tmp_path: Path) -> None:
    """The runner reads as root: what it hands to a training, whoever sent the job can read."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "service.key")
    (tmp_path / "service.key").write_text("secret")
    places = (f"file://{tmp_path}/data",)
    for number, name in enumerate(("service.key", "data/link", "data/%2e%2e/service.key", "data/../service.key")):
        with pytest.raises(DatasetMismatch) as refused:
            fetch_all(
                [ref(f"file://{tmp_path}/{name}", b"secret", f"d{number}")],
                tmp_path,
                objects=NO_STORE,
                places=places,
                max_bytes=1 << 20,
                cancelled=threading.Event(),
            )
        assert refused.value.code == "dataset_not_allowed"
        assert hashlib.sha256(b"secret").hexdigest() not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "place", "expected"),
    [
        ("s3://bucket/a/b", "s3://", True),
        ("s3://bucket/a/b", "s3://bucket", True),
        ("s3://bucket/a/b", "s3://bucket/a/*", True),
        ("s3://bucket/a%2Fb/c", "s3://bucket/a", False),
        ("s3://bucket-2/a", "s3://bucket", False),
        ("file:///srv/data/x", "s3://", False),
        ("file:///srv/data/", "file:///srv/data", True),
        ("file:///srv/data%2Fx", "file:///srv/data", True),
        ("file:///srv/database", "file:///srv/data", False),
        ("file:///srv/data/../x", "file:///srv", False),
        ("file:///srv", "", False),
    ],
)
def test_a_place_ends_where_a_path_segment_ends(uri: str, place: str, expected: bool) -> None:
    assert allowed(uri, (place,)) is expected


def test_a_directory_without_code_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m` puts the working directory on the path, and what lies there is not what is installed."""
    (tmp_path / "keys_here").mkdir()
    (tmp_path / "keys_here" / "service.key").write_text("secret")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DatasetMismatch, match="no package keys_here"):
        package_file("python-package://keys_here/service.key")


def test_a_cancelled_fetch_ends(tmp_path: Path, file: Path) -> None:
    with pytest.raises(Cancelled):
        fetch(tmp_path, ref(f"file://{tmp_path}/a%20b.csv", b"1,2\n"), cancelled=True)


def test_a_host_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    with pytest.raises(RunnerUnavailable):
        fetch(tmp_path, ref("https://127.0.0.1:9/d.csv"))


def test_a_host_that_sends_a_byte_now_and_then_is_given_up_and_a_quick_one_is_not(tmp_path: Path) -> None:
    def read(size: int, seconds: float) -> int:
        clock = itertools.count(0.0, seconds)
        return sum(len(chunk) for chunk in steady(iter([bytes(size)] * 100), "d", clock=lambda: next(clock)))

    assert read(100_000, 20.0) == 100 * 100_000
    with pytest.raises(RunnerUnavailable, match="sends 2 bytes in 40 s"):
        read(1, 20.0)


@pytest.mark.parametrize(
    "uri", ["python-package://no_such_package/d", "python-package://sklearn/", "python-package://a.b/c"]
)
def test_a_package_that_is_not_there_is_named(uri: str) -> None:
    with pytest.raises(DatasetMismatch):
        package_file(uri)


def test_a_package_s_path_does_not_lead_out_of_it() -> None:
    with pytest.raises(DatasetMismatch):
        package_file("python-package://sklearn/../numpy/__init__.py")
