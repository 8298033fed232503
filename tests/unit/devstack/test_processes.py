"""Programs that are found again by what was recorded of them."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ai_infra.devstack import StackError, processes
from ai_infra.devstack.processes import Launch, Process
from ai_infra.devstack.state import StackState, StateFile
from ai_infra.devstack.waiting import wait_until


def begin(code: str, tmp_path: Path) -> Process:
    """A Python program that says `ready` once its first statements are done."""
    process = processes.start(
        Launch([sys.executable, "-c", code], dict(os.environ), tmp_path), tmp_path / "log", facts={"a": "b"}
    )
    assert wait_until(lambda: "ready" in (tmp_path / "log").read_text(), 20)
    return process


WAITS = "import signal; print('ready', flush=True); signal.pause()"
IGNORES = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"


def test_a_program_is_asked_to_end_before_it_is_killed(tmp_path: Path) -> None:
    polite = begin(WAITS, tmp_path)
    assert processes.stop(polite, grace=20)
    assert not polite.alive()


def test_a_program_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    deaf = begin(IGNORES, tmp_path)
    assert not processes.stop(deaf, grace=0.2)
    assert not deaf.alive()


def test_a_halted_program_can_still_be_stopped(tmp_path: Path) -> None:
    halted = begin(WAITS, tmp_path)
    processes.send(halted, signal.SIGSTOP)
    assert wait_until(lambda: processes.halted(halted), 20)
    assert processes.stop(halted, grace=20)


def test_a_pid_with_another_start_time_is_not_ours(tmp_path: Path) -> None:
    ours = begin(WAITS, tmp_path)
    reused = replace(ours, identity="another boot:1")
    assert not reused.alive()
    assert not processes.send(reused, signal.SIGKILL)
    assert ours.alive()
    processes.kill(ours)


def test_a_program_that_has_ended_is_not_alive_even_while_nobody_has_fetched_its_exit_code(tmp_path: Path) -> None:
    short = begin("print('ready')", tmp_path)
    assert wait_until(lambda: not short.alive(), 20)


def test_what_was_recorded_is_read_again_by_another_command(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    process = Process(1, "boot:2", "java", 9092, {"service": "trainer"})
    file.record("trainer-0", process)
    assert StateFile(tmp_path / "state.json").read() == StackState(processes={"trainer-0": process})
    file.record("trainer-0", None)
    assert file.read().processes == {}


def test_what_is_recorded_is_for_its_owner_alone(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json")
    file.change(lambda state: state.credentials.update(password="x"))  # pragma: allowlist secret
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_state_that_cannot_be_read_names_the_command_that_helps(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(StackError, match="ai-infra dev reset"):
        StateFile(tmp_path / "state.json").read()
