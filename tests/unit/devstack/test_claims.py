"""Stacks of test runs side by side."""

from __future__ import annotations

from pathlib import Path

from ai_infra.devstack.claims import claimed_name, is_claimed


def test_two_test_runs_get_two_stacks_and_a_name_is_free_again_afterwards(tmp_path: Path) -> None:
    with claimed_name(tmp_path, "test") as first:
        with claimed_name(tmp_path, "test") as second:
            assert [first, second] == ["test", "test-2"]
            assert is_claimed(tmp_path, "test")
            assert is_claimed(tmp_path, "test-2")
        assert not is_claimed(tmp_path, "test-2")
    with claimed_name(tmp_path, "test") as again:
        assert again == "test"


def test_a_stack_that_nobody_ever_claimed_is_free(tmp_path: Path) -> None:
    assert not is_claimed(tmp_path, "dev")
