"""What a person writes down becomes what a runner runs: pinned code, pinned data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.repositories import make_repository

from ai_infra.errors import ConfigurationError
from ai_infra_trainer.datasets import dataset_sha256
from ai_infra_trainer.recipe import code_ref_here, pinned, read_job_file, uncommitted

ROOT = Path(__file__).resolve().parents[3]


def test_the_example_s_job_file_pins_the_data_that_is_installed() -> None:
    recipe = read_job_file(ROOT / "examples" / "digits" / "job.json")
    (ref,) = recipe.dataset_refs
    assert ref.checksum == f"sha256:{dataset_sha256(ref.uri)}"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"model": "m"}',
        '{"model": "m", "training_cmd": ["x"], "typo": 1}',
        '{"model": "m", "training_cmd": 1}',
    ],
)
def test_a_job_file_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"job\.json"):
        read_job_file(path)


def test_a_local_dataset_is_pinned_by_its_bytes(tmp_path: Path) -> None:
    file = tmp_path / "data set.csv"
    file.write_bytes(b"1,2\n")
    (ref,) = pinned([str(file)], None)
    assert ref.checksum == "sha256:" + hashlib.sha256(b"1,2\n").hexdigest()
    assert (ref.id, ref.uri) == ("data-set.csv", f"file://{tmp_path}/data%20set.csv")


def test_a_directory_is_a_dataset_too(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(name)
    (before,) = pinned([str(tmp_path)], None)
    assert before.uri.endswith("/")
    (tmp_path / "b.csv").write_text("changed")
    (after,) = pinned([str(tmp_path)], None)
    assert before.checksum != after.checksum


def test_two_datasets_of_one_name_are_refused(tmp_path: Path) -> None:
    places = []
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "d.csv").write_text(directory)
        places.append(str(tmp_path / directory / "d.csv"))
    with pytest.raises(ConfigurationError, match="one name"):
        pinned(places, None)


def test_code_here_is_the_commit_and_its_path(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "train.py").write_text("")
    make_repository(tmp_path)
    ref = code_ref_here(inner, None)
    assert ref.startswith(f"git+file://{tmp_path}@")
    assert ref.endswith("#inner")
    assert not uncommitted(inner)
    (inner / "train.py").write_text("changed")
    assert uncommitted(inner)
    assert code_ref_here(inner, None) == ref


def test_hyperparameters_are_made_canonical(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"model": "m", "training_cmd": ["python", "t.py"], "hyperparams": {"b": 1.0, "a": 2}}))
    order = read_job_file(path).order(
        job_id="j", code_ref="sha256:" + "a" * 64, container_digest=None, requested_by="ann"
    )
    assert order.hyperparams_json == '{"a":2,"b":1}'
