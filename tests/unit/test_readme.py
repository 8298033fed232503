"""What README names is there: each path, and each test that is to show a guarantee."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`(tests/[^`]+)`", README)))
LINKS = sorted(set(re.findall(r"\]\(([^)#:]+)\)", README)))


@pytest.mark.parametrize("named", TESTS)
def test_a_test_that_shows_a_guarantee_exists(named: str) -> None:
    path, _, test = named.partition("::")
    assert (ROOT / path).exists()
    if test:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.mark.parametrize("link", LINKS)
def test_a_page_that_is_linked_exists(link: str) -> None:
    assert (ROOT / link).is_file()


def test_every_guarantee_has_a_limit_and_a_test() -> None:
    table = README.partition("| guarantee | limit | shown by |")[2].partition("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()[2:]]
    assert len(rows) > 5
    for guarantee, limit, shown in rows:
        assert limit, guarantee
        assert "`tests/" in shown, guarantee
