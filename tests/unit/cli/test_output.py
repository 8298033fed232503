"""How results are shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from ai_infra.cli.output import duration, plain, progress, rows, show, show_line, stack


@pytest.fixture(autouse=True)
def no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said how wide the output is; the workers of pytest-xdist would."""
    monkeypatch.delenv("COLUMNS", raising=False)


class Kind(StrEnum):
    GOOD = "good"


@dataclass(frozen=True)
class Thing:
    when: datetime
    kind: Kind
    raw: bytes
    path: Path
    nested: tuple[Any, ...]


THING = Thing(
    datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC), Kind.GOOD, b"\x00\xff", Path("/x"), (1, None, {"a": 2.5})
)


def test_json_has_every_type_that_results_are_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    show(THING, json=True)
    assert json.loads(capsys.readouterr().out) == {
        "when": "2026-01-02T03:04:05.006Z",
        "kind": "good",
        "raw": "AP8=",
        "path": "/x",
        "nested": [1, None, {"a": 2.5}],
    }
    assert plain(timedelta(seconds=90)) == 90.0


def test_a_line_of_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    show_line({"text": "a\nb"}, json=True, text="")
    assert capsys.readouterr().out == '{"text":"a\\nb"}\n'


def test_a_table_shows_what_it_is_given_and_takes_no_markup_from_it(capsys: pytest.CaptureFixture[str]) -> None:
    show([], json=False, table=rows(("name", "well"), [("[red]x[/red]", True), (None, False)]))
    out = capsys.readouterr().out
    assert "[red]x[/red]  yes" in out
    assert out.splitlines()[-1].split() == ["no"]


def test_a_table_in_a_pipe_is_not_cut_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    show([], json=False, table=rows(("a", "b"), [("x" * 90, "y" * 90)]))
    assert f"{'x' * 90}  {'y' * 90}" in capsys.readouterr().out


ID = "01a1fe9a-ee20-7232-9144-e79b7e55ee1a"


def test_text_between_tables_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    show([], json=False, table=stack("pip install 'ai-infra[cli]'", rows(("a",), [("b",)])))
    assert capsys.readouterr().out == "pip install 'ai-infra[cli]'\n\na\nb\n"


def test_a_row_in_a_pipe_is_one_line_without_padding(capsys: pytest.CaptureFixture[str]) -> None:
    show([], json=False, table=rows(("id", "what", "when"), [(ID, "word " * 100, THING.when), ("x", "", None)]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].endswith("2026-01-02T03:04:05Z")
    assert lines[2] == "x"


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_width_breaks_an_id_or_the_name_of_a_column(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show([], json=False, table=rows(("promotion", "artifact", "asked by"), [(ID, ID, "orchestrator"), (ID, ID, "x")]))
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.count(ID) for line in lines) == 4
    assert any("asked by" in line for line in lines)
    assert max(map(len, lines)) <= columns


def test_a_long_text_wraps_and_leaves_its_neighbours_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    show([], json=False, table=rows(("where", "what"), [("trainer at 2 o'clock", "one two " * 20)]))
    first, second, *_ = capsys.readouterr().out.splitlines()[1:]
    assert first.startswith("trainer at 2 o'clock  one two")
    assert second.startswith(" " * 22 + "one two")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.42, "0.4 s"), (12, "12 s"), (300, "5 min"), (9000, "2 h"), (200_000, "2 d")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_of_something_quick_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("working") as say:
        say("still working")
    assert capsys.readouterr() == ("", "")
