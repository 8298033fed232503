"""Programs that outlive the command that started them, and are found again by what was recorded of them.

A pid alone names nobody: it may have been given to another program since. So the start time (and the boot) is recorded
with it, and no signal goes to a process whose start time differs. Nothing here ever looks for a process by its name.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ai_infra.devstack.waiting import wait_until

LOG_KEPT_BYTES: Final = 32 * 1024 * 1024  # a log larger than this at a start is set aside once as <name>.1


@dataclass(frozen=True, slots=True)
class Account:
    """The user that a program runs as, where that is not the user who starts it."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Launch:
    """How a program is started. `env` is its whole environment."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class Process:
    """A started program, as it is recorded: `identity` is its start time in a form that only this boot gives out."""

    pid: int
    identity: str
    program: str
    port: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return identity_of(self.pid) == self.identity


def identity_of(pid: int) -> str | None:
    """What tells this process from a later one with the same pid; None when no such process runs."""
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # our own child that has ended would stay a zombie
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            # The name in parentheses may hold anything, spaces included: the fields after it are counted from its end.
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        boot = Path("/proc/sys/kernel/random/boot_id")
        return None if fields[0] in "ZX" else f"{boot.read_text().strip() if boot.exists() else ''}:{fields[19]}"
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def start(launch: Launch, log: Path, *, port: int | None = None, facts: Mapping[str, str] | None = None) -> Process:
    """Start a program in a session of its own, so that neither Ctrl-C nor our end reaches it; output goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > LOG_KEPT_BYTES:
        log.replace(log.with_name(log.name + ".1"))
    account = launch.account
    with log.open("ab") as output:
        child = subprocess.Popen(
            list(launch.argv),
            cwd=launch.cwd,
            env=dict(launch.env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    identity = identity_of(child.pid)
    child.returncode = 0  # it is meant to outlive this object: so Python neither warns about it nor waits for it
    return Process(child.pid, identity or "ended", Path(launch.argv[0]).name, port, dict(facts or {}))


def send(process: Process, signum: int) -> bool:
    """Send a signal to this very process; False when it is gone."""
    if not process.alive():
        return False
    try:
        os.kill(process.pid, signum)
    except ProcessLookupError:
        return False
    return True


def stop(process: Process, *, grace: float, signum: int = signal.SIGTERM) -> bool:
    """End a process: ask it, wait `grace` seconds, then kill it. False when it had to be killed."""
    if not send(process, signum):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGCONT)  # one that was halted by SIGSTOP could not hear
    if wait_until(lambda: not process.alive(), grace):
        return True
    kill(process)
    return False


def kill(process: Process) -> None:
    """End a process at once, and what is left of the session that it led."""
    if process.alive():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        wait_until(lambda: not process.alive(), 10)


def halted(process: Process) -> bool:
    """Whether a live process was halted by SIGSTOP."""
    answer = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(process.pid)], capture_output=True, text=True, check=False
    ).stdout
    return answer.strip().startswith("T")
