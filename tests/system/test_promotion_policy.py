"""The policy as operators set it with the command line, and as every process then knows it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ai_infra.client.gate import Gate
from ai_infra.settings import Settings

Run = Callable[..., Any]


def write(path: Path, document: Any) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_a_policy_that_was_set_is_known_to_every_process_that_starts(
    ai_infra: Run, settings: Settings, tmp_path: Path
) -> None:
    # Nothing in it changes a decision of other tests.
    document = {"promotion": {"wait_for_facts_s": 30}, "note": secrets.token_hex(4)}
    file = write(tmp_path / "policy.json", document)
    ai_infra("policy", "check", file)
    version = ai_infra("policy", "set", file, "--reason", "a test", "--json")["version"]
    for _ in range(5):  # the topics of keyrings and policies come in no order
        gate = Gate(settings)
        assert (gate.policy.version, dict(gate.policy.document)) == (version, document)
        gate.close()
    assert ai_infra("policy", "show", "--json")["version"] == version


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
def test_a_policy_that_means_nothing_is_not_set(ai_infra: Run, tmp_path: Path, document: Any) -> None:
    file = write(tmp_path / "policy.json", document)
    said = ai_infra("policy", "set", file, "--reason", "a typo", code=1)
    assert said.startswith("error: the policy is not set: promotion")
    ai_infra("policy", "check", file, code=1)


def test_what_would_change_is_shown_before_it_is_set(ai_infra: Run, tmp_path: Path) -> None:
    file = write(tmp_path / "policy.json", {"promotion": {"min_score_e6": {"prod": 900_000}}})
    change = {"setting": "promotion.min_score_e6.prod", "now": None, "then": 900_000}
    assert change in ai_infra("policy", "diff", file, "--json")
