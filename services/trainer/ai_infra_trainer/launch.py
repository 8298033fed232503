"""The small program between the trainer and a training: it starts the training, holds it to its limits, and leaves
nothing of it behind.

A process of its own, so that limits, user and namespaces are set up in a single thread; it reads one JSON line (`Spec`)
on standard input, whose end is its lifeline: when the trainer dies or lets go, everything that the training started is
killed. The outcome goes to the file descriptor named on the command line, as one JSON line. Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ai_infra_trainer.view import isolate

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
WATCH_SECONDS: Final = 0.25  # how often memory is measured: short against the time in which a machine swaps to death
STOP_GRACE_SECONDS: Final = 2.0  # between SIGTERM and SIGKILL when a training is cancelled or out of time

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run one training; always 0 when an outcome was written."""
    outcome_fd = int(sys.argv[2])
    os.set_inheritable(outcome_fd, False)
    spec: dict[str, Any] = json.loads(_first_line())
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whatever the training orphans becomes our child, and is found
    isolated: tuple[str, ...] = ()
    scratch: int | None = None
    if spec["uid"] is not None:
        own, scratch = isolate(keep=spec["keep"], uid=spec["uid"], gid=spec["gid"], tmp_mib=spec["memory_mib"])
        isolated = ("user", *own)
    outcome = _run(spec, scratch)
    outcome["isolation"] = list(isolated)
    os.write(outcome_fd, json.dumps(outcome).encode() + b"\n")
    return 0


def _first_line() -> bytes:
    """Read byte by byte: what follows the first line must stay in the pipe, because its end is the lifeline."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit("no specification on standard input")
        line += byte
    return bytes(line)


def _run(spec: dict[str, Any], scratch: int | None) -> dict[str, Any]:
    failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
    started = time.time()
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become_training(spec, failed_write)
    os.close(failed_write)
    failure = os.read(failed_read, 4096)  # ends at exec, which closes the other end
    os.close(failed_read)
    watch = _Watch(pid, begin + spec["time_limit_s"], spec["memory_mib"] << 20, scratch)
    why = watch.until_end()
    status = watch.clear(gently=why is not None)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    outcome: dict[str, Any] = {
        "started": started,
        "ended": started + (time.monotonic() - begin),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_bytes": watch.peak,
        "stopped": why,
        "exit_code": os.waitstatus_to_exitcode(status) if status is not None else None,
    }
    if failure:
        outcome |= {"stopped": "not_started", "error": failure.decode("utf-8", "replace")}
    return outcome


def _become_training(spec: dict[str, Any], failed: int) -> None:
    """In the child: give up everything that a training must not have, then become it. Never returns."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for name, value in spec["limits"].items():
            limit = getattr(resource, name)
            hard = resource.getrlimit(limit)[1]
            resource.setrlimit(limit, (value, value) if hard == resource.RLIM_INFINITY else (min(value, hard),) * 2)
        if spec["uid"] is not None:
            os.setgroups([])
            os.setresgid(spec["gid"], spec["gid"], spec["gid"])
            os.setresuid(spec["uid"], spec["uid"], spec["uid"])
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which clears it
        os.umask(0o077)
        os.chdir(spec["cwd"])
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execve(spec["program"], spec["argv"], spec["env"])  # noqa: S606 - the training command itself
    except BaseException as error:  # noqa: BLE001 - nothing may run on in this process
        os.write(failed, str(error).encode()[:4096])
    os._exit(127)


class _Watch:
    """Waits for the training's end, and says why it was ended: its own (None), time, memory, or the lifeline."""

    def __init__(self, pid: int, deadline: float, memory_bytes: int, scratch: int | None) -> None:
        self._pid = pid
        self._deadline = deadline
        self._memory = memory_bytes
        self._scratch = scratch
        self._status: int | None = None
        self.peak = 0

    def until_end(self) -> str | None:
        process = os.pidfd_open(self._pid)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.register(0, select.POLLIN | select.POLLHUP)
        try:
            while True:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    return "time_limit"
                ready = {fd for fd, _ in poll.poll(min(left, WATCH_SECONDS) * 1000)}
                if process in ready:
                    return None
                if 0 in ready:
                    return "cancelled"
                used = memory_bytes(descendants(os.getpid()), self._scratch)
                self.peak = max(self.peak, used)
                if used > self._memory:
                    return "memory_limit"
                self._reap(block=False)
        finally:
            os.close(process)

    def clear(self, *, gently: bool) -> int | None:
        """Kill every process below this one and reap it; returns the training's wait status."""
        if gently:
            self._signal(signal.SIGTERM)
            end = time.monotonic() + STOP_GRACE_SECONDS
            process = os.pidfd_open(self._pid) if self._status is None else None
            if process is not None:
                select.select([process], [], [], max(0.0, end - time.monotonic()))
                os.close(process)
        while True:
            self._signal(signal.SIGKILL)
            if not self._reap(block=True):
                return self._status

    def _signal(self, number: int) -> None:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def _reap(self, *, block: bool) -> bool:
        """Reap what has ended (`block`: at least one); False when no child is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if block else os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._pid:
                self._status = status
            if block:
                return True


def descendants(root: int) -> list[int]:
    """Every process below `root`, from /proc; those that end meanwhile are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "stat").read_bytes()
            except OSError:
                continue
            parent = int(line[line.rindex(b")") + 2 :].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def memory_bytes(pids: Sequence[int], scratch: int | None) -> int:
    """What processes hold in memory and no file backs: private pages, shared pages, files in memory.

    `scratch` is a descriptor of the file system in memory that they write to. What of it is mapped counts once.
    """
    private = shared = 0
    for pid in pids:
        with suppress(OSError):  # it has ended
            text = Path(f"/proc/{pid}/status").read_text()
            fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
            private += int(fields.get("RssAnon", "0").split()[0]) << 10
            shared += int(fields.get("RssShmem", "0").split()[0]) << 10
    files = sum(size for target, size in unlinked(pids) if target.startswith("/memfd:"))
    if scratch is not None:
        use = os.fstatvfs(scratch)
        files += (use.f_blocks - use.f_bfree) * use.f_frsize
    return private + max(shared, files)


def unlinked(pids: Sequence[int]) -> list[tuple[str, int]]:
    """(former path, bytes) of each file that processes hold open though it has no name any more: no walk finds it."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for pid in pids:
        with suppress(OSError):
            for entry in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    status = entry.stat()
                    if status.st_nlink == 0 and stat.S_ISREG(status.st_mode):
                        found[status.st_dev, status.st_ino] = (str(Path(entry.path).readlink()), status.st_blocks << 9)
    return list(found.values())
