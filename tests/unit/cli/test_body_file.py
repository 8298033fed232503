"""A body from a file: typed, and no typo passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ai_infra.cli.body_file import BodyFileError, read_body
from ai_infra.errors import ConfigurationError
from ai_infra.events.generated import Environment, PromotionRequested

BODY: dict[str, Any] = {
    "promotion_id": "p",
    "artifact_id": "a",
    "model": "digits",
    "target_env": "prod",
    "reason": "r",
    "evidence": ["x"],
    "emergency": False,
    "not_after": "2026-01-01T00:00:00Z",
}


def written(directory: Path, data: object) -> Path:
    path = directory / "body.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_body_is_typed_and_who_speaks_is_filled_in(tmp_path: Path) -> None:
    body = read_body("promotion.requested", written(tmp_path, BODY), principal="me")
    assert isinstance(body, PromotionRequested)
    assert body.requested_by == "me"
    assert body.target_env is Environment.PROD
    assert body.not_after is not None
    assert body.not_after.year == 2026


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({**BODY, "evidnce": []}, "no field evidnce"),
        ({k: v for k, v in BODY.items() if k != "model"}, "model"),
        ({**BODY, "target_env": "production!"}, "target_env"),
        ({**BODY, "emergency": "no"}, "emergency"),
        ([], "JSON object"),
        ("{", "isn't JSON"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(tmp_path: Path, data: object, says: str) -> None:
    with pytest.raises(BodyFileError, match=says):
        read_body("promotion.requested", written(tmp_path, data), principal="me")


def test_a_topic_that_does_not_exist_is_named_with_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"job\.queued"):
        read_body("job.queue", written(tmp_path, {}), principal="me")
