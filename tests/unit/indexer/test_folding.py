"""Row changes folded into few do what they do one by one, and are refused exactly where one of them is."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra_indexer.projection import Mode, RowChange
from ai_infra_indexer.projection.folding import Table, fold
from ai_infra_indexer.projection.rows import Json, as_json

TYPES = {"id": "text", "small": "smallint", "name": "text", "who": "uuid", "said": "jsonb", "note": "text"}
DEFAULTS = {"note": ""}
TABLE = Table(TYPES, frozenset(["id", "small", "note"]), frozenset(["id", "small"]))
UUID = "0190b5a0-0000-7000-8000-000000000000"
Rows = dict[str, dict[str, Any]]


class Refused(Exception):
    pass


def accept(column: str, value: Any) -> None:
    """What the database does with a value. Raises Refused."""
    if value is None:
        if column in TABLE.not_null:
            raise Refused
    elif (
        (column == "small" and not -(2**15) <= value < 2**15)
        or (column == "who" and value != UUID)
        or (column in ("name", "note") and len(value) > 500)
    ):
        raise Refused
    elif column == "said":
        try:
            json.loads(value)
        except ValueError:
            raise Refused from None


def carry_out(changes: Iterable[RowChange]) -> Rows:
    """The changes one by one, as Postgres does them: an insert is judged as a whole, also where a row is there."""
    rows: Rows = {}
    for change in changes:
        row = rows.get(change.key["id"])
        unless, null = change.unless, change.only_where_null
        stays = row is not None and (
            (unless is not None and row.get(unless[0]) in unless[1]) or (null is not None and row.get(null) is not None)
        )
        if change.mode is Mode.SET:
            for column, value in change.values.items():
                if column not in ("name", "note") and value is not None:
                    accept(column, value)  # read before it is known whether there is a row
            if row is not None and not stays:
                for column, value in change.values.items():
                    accept(column, value)
                row.update(change.values)
            continue
        new = {**DEFAULTS, **change.values, **change.on_insert}
        if TABLE.required - new.keys() - change.key.keys():
            raise Refused
        for column, value in new.items():
            accept(column, value)
        if row is None:
            rows[change.key["id"]] = new
        elif change.mode is Mode.PUT and not stays:
            row.update(change.values)
    return rows


def outcome(changes: Iterable[RowChange]) -> Rows | None:
    try:
        return carry_out(changes)
    except Refused:
        return None


values = st.fixed_dictionaries(
    {},
    optional={
        "small": st.sampled_from([1, 2, 40_000, None]),
        "name": st.sampled_from(["a", "b", "x" * 200, "x" * 600, None]),
        "who": st.sampled_from([UUID, "nobody", None]),
        "said": st.sampled_from(['{"a":1}', "{", as_json([1]), None]),
        "note": st.sampled_from(["", "n", None]),
    },
)
whole = st.fixed_dictionaries({"small": st.integers(0, 3)}, optional={"name": st.sampled_from(["a", "b"])})
change = st.builds(
    RowChange,
    st.just("things"),
    st.fixed_dictionaries({"id": st.sampled_from(["1", "2"])}),
    whole | values,
    st.sampled_from(Mode),
    st.just({}) | values,
    st.sampled_from([None, None, ("name", ("a",))]),
    st.sampled_from([None, None, "who"]),
).map(lambda c: replace(c, on_insert={k: v for k, v in c.on_insert.items() if k not in c.values}))


@settings(max_examples=examples(400))
@given(st.lists(change, max_size=8))
def test_folded_changes_end_as_the_changes_one_by_one(changes: list[RowChange]) -> None:
    rounds = fold(changes, {"things": TABLE})
    assert outcome(c for together in rounds for c in together) == outcome(changes)
    for together in rounds:
        assert len({c.key["id"] for c in together}) == len(together)


def test_a_course_of_a_job_becomes_one_change_of_its_row() -> None:
    key = {"id": "1"}
    asked = RowChange("things", key, {"small": 1, "said": '{"lr":1}', "note": "asked"}, Mode.FIRST)
    runs = RowChange("things", key, {"note": "runs", "name": "r"}, on_insert={"small": 2})
    done = RowChange("things", key, {"note": "done", "name": None}, on_insert={"small": 3})
    assert fold([asked, runs, done], {"things": TABLE}) == [
        [RowChange("things", key, {"note": "done", "name": None}, on_insert={"small": 1, "said": '{"lr":1}'})]
    ]


@pytest.mark.parametrize(
    ("column", "value"), [("said", "{"), ("who", "nobody"), ("small", 40_000), ("name", "x" * 600)]
)
def test_what_may_be_refused_is_never_folded_away(column: str, value: Any) -> None:
    first = RowChange("things", {"id": "1"}, {"small": 1, column: value})
    then = RowChange("things", {"id": "1"}, {"small": 1, column: None})
    assert fold([first, then], {"things": TABLE}) == [[first], [then]]


def test_json_that_was_written_here_can_be_folded_away() -> None:
    first = RowChange("things", {"id": "1"}, {"small": 1, "said": as_json({"a": 1})})
    then = RowChange("things", {"id": "1"}, {"small": 2, "said": as_json({"a": 2})})
    assert isinstance(then.values["said"], Json)
    assert fold([first, then], {"things": TABLE}) == [[then]]
