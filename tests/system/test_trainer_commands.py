"""`train --record`, `verify-manifest` and `reproduce`, as a person uses them, without any service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.repositories import make_repository

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A clone of its own with the example in it."""
    shutil.copytree(ROOT / "examples" / "digits", tmp_path / "clone" / "digits")
    make_repository(tmp_path / "clone")
    return tmp_path / "clone" / "digits"


def ai_infra(*arguments: str | Path, cwd: Path, **env: str) -> tuple[int, Any, str]:
    command = [sys.executable, "-m", "ai_infra.cli.main", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_a_training_is_recorded_verified_and_reproduced_bit_by_bit(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "manifest.json"
    code, recorded, errors = ai_infra(
        "train", "--json", "--record", "--job", digits / "job.json", "--manifest-out", out, cwd=tmp_path
    )
    assert code == 0, errors
    assert recorded["metrics"]["accuracy"] > 0.9
    code, verified, _ = ai_infra("verify-manifest", "--json", "--manifest", out, cwd=tmp_path)
    assert (code, verified["verified"]) == (0, True)
    code, again, errors = ai_infra("reproduce", "--json", "--manifest", out, cwd=tmp_path)
    assert code == 0, errors
    assert again["equal"]
    with Path(recorded["artifact"]).open("ab") as artifact:
        artifact.write(b"!")
    code, verified, _ = ai_infra("verify-manifest", "--json", "--manifest", out, cwd=tmp_path)
    assert (code, verified["verified"]) == (1, False)


def test_the_variables_of_the_seeds_are_read(digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "sample.csv"
    data.write_text("1,2\n")
    script = "import os, shutil; d = os.environ; "
    script += "shutil.copytree(d['AI_INFRA_DATASETS_DIR'], d['AI_INFRA_OUTPUT_DIR'] + '/x')"
    digest = "sha256:" + "c" * 64
    command = ["train", "--record", "--json", "--model", "smoke", "--manifest-out", "m.json", "--"]
    code, recorded, errors = ai_infra(
        *command, "python", "-c", script, cwd=digits, TRAIN_DATASET=str(data), CODE_REF="HEAD", CONTAINER_DIGEST=digest
    )
    assert code == 0, errors
    manifest = json.loads((digits / "m.json").read_text())
    assert manifest["containerDigest"] == digest
    assert manifest["datasetRefs"][0]["uri"] == f"file://{data}"
    assert recorded["code_ref"].endswith("#digits")


def test_a_training_that_fails_says_so_in_one_line(digits: Path, tmp_path: Path) -> None:
    job = json.loads((digits / "job.json").read_text())
    (digits / "bad.json").write_text(json.dumps({**job, "hyperparams": {"model": "oracle"}}))
    code, _, errors = ai_infra("train", "--json", "--record", "--job", digits / "bad.json", cwd=tmp_path)
    assert code == 1
    failure = json.loads(errors.strip().splitlines()[-1])["error"]
    assert failure["code"] == "training_failed"
    assert "hyperparameter model is 'oracle'" in failure["message"]
