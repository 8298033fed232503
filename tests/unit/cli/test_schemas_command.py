"""`ai-infra schemas` tells a developer whether what is in schemas/ may ship."""

from __future__ import annotations

import json

import pytest

from ai_infra.cli.main import main
from ai_infra.events.generated import BODIES


def test_check_lists_every_topic_and_finds_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["schemas", "check", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["problems"] == []
    assert set(result["topics"]) == set(BODIES)
    assert exit_.value.code == 0


def test_generate_writes_nothing_where_all_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["schemas", "generate"])
    assert "up to date" in capsys.readouterr().out
    assert exit_.value.code == 0
