"""An event in a few words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ai_infra.cli.event_text import _FIELD, _TELLING, summary
from ai_infra.events import generated


def judged(topic: str, **body: Any) -> Any:
    return SimpleNamespace(record=SimpleNamespace(topic=topic), event=SimpleNamespace(body=SimpleNamespace(**body)))


def test_a_number_says_what_it_counts() -> None:
    assert summary(judged("artifact.registered", version=3, artifact_id="a")) == "version 3, artifact a"
    said = summary(judged("evaluation.recorded", score_e6=948_889, artifact_id="a", evaluator="eve"))
    assert said == "score 0.948889, artifact a, by eve"


def test_what_is_empty_is_left_out_with_its_words() -> None:
    assert summary(judged("job.status", status="running", job_id="j", reason="")) == "running, job j"


@pytest.mark.parametrize("topic", sorted(_TELLING))
def test_every_field_that_is_told_is_in_the_schema(topic: str) -> None:
    (body,) = [c for c in vars(generated).values() if getattr(c, "TOPIC", None) == topic]
    named = {name for phrase in _TELLING[topic] for name in _FIELD.findall(phrase)}
    assert named <= set(body.__dataclass_fields__)
