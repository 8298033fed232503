"""Trainings leave nothing behind, not even those of a trainer that was killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ai_infra_trainer.exceptions import RunnerUnfit
from ai_infra_trainer.workspaces import Workspaces


def test_the_same_key_has_the_same_place_and_another_has_another(tmp_path: Path) -> None:
    spaces = Workspaces(tmp_path / "runner")
    assert spaces.of("a").root == spaces.of("a").root
    assert spaces.of("a").root != spaces.of("b").root


def test_what_a_dead_process_left_is_removed_and_what_lives_is_not(tmp_path: Path) -> None:
    base = tmp_path / "runner"
    alive = Workspaces(base)
    alive.of("a").make()
    dead = base / "999999-dead"
    (dead / "old").mkdir(parents=True)
    long_ago = time.time() - 3600
    for path in (dead, alive.of("a").root.parent):
        os.utime(path, (long_ago, long_ago))
    Workspaces(base)
    assert not dead.exists()
    assert alive.of("a").root.exists()


def test_closing_removes_everything(tmp_path: Path) -> None:
    spaces = Workspaces(tmp_path / "runner")
    spaces.of("a").make()
    root = spaces.of("a").root
    spaces.close()
    assert not root.exists()


def test_directories_nested_without_end_are_removed(tmp_path: Path) -> None:
    """More deeply than Python recurses, than a path may be long, and closed by the training's own user."""
    workspace = Workspaces(tmp_path / "runner").of("a")
    workspace.make()
    here = os.open(workspace.output, os.O_RDONLY)
    for _ in range(2200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.fchmod(here, 0)
        os.close(here)
        here = below
    os.close(here)
    workspace.remove()
    assert not workspace.root.exists()


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "runner"
    base.mkdir()
    base.chmod(0o777)
    with pytest.raises(RunnerUnfit):
        Workspaces(base)
