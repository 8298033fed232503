"""The policy as operators set it with the command line, and as every process then knows it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai_infra.cli.main import main
from ai_infra.client.gate import Gate
from ai_infra.devstack import Stack
from ai_infra.settings import Settings

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    for name, value in stack.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        streams = capsys.readouterr()
        return int(ended.value.code or 0), streams.out + streams.err

    return run


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_a_policy_that_was_set_is_known_to_every_process_that_starts(
    run: Run, settings: Settings, tmp_path: Path
) -> None:
    # Nothing in it changes a decision of other tests.
    document = {"promotion": {"wait_for_facts_s": 30}, "note": secrets.token_hex(4)}
    file = write(tmp_path / "policy.json", document)
    assert run("policy", "check", file)[0] == 0
    status, out = run("policy", "set", file, "--reason", "a test", "--json")
    assert status == 0
    version = json.loads(out.partition("}")[0] + "}")["version"]
    for _ in range(5):  # the topics of keyrings and policies come in no order
        gate = Gate(settings)
        assert (gate.policy.version, dict(gate.policy.document)) == (version, document)
        gate.close()
    status, out = run("policy", "show", "--json")
    assert status == 0
    assert json.loads(out)["version"] == version


@pytest.mark.parametrize(
    "document",
    [
        {"promotion": {"min_scor": {}}},
        {"promotion": {"min_score_e6": {"production": 1}}},
        {"promotion": {"min_score_e6": {"prod": 1_000_001}}},
        {"promotion": {"min_score_e6": {"prod": 0.9}}},
        {"promotion": {"min_score_e6": {"prod": True}}},
        {"promotion": {"wait_for_facts_s": -1}},
        {"promotion": []},
    ],
)
def test_a_policy_that_means_nothing_is_not_set(run: Run, tmp_path: Path, document: Any) -> None:
    file = write(tmp_path / "policy.json", document)
    status, out = run("policy", "set", file, "--reason", "a typo")
    assert status == 1
    assert out.startswith("error: the policy is not set: promotion")
    assert run("policy", "check", file)[0] == 1


def test_what_would_change_is_shown_before_it_is_set(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "policy.json", {"promotion": {"min_score_e6": {"prod": 900_000}}})
    status, out = run("policy", "diff", file, "--json")
    assert status == 0
    assert {"setting": "promotion.min_score_e6.prod", "now": None, "then": 900_000} in json.loads(out)
