"""Runs a training command as its own user, in a clean environment, under limits, with its output captured to a bound.

The environment is built from nothing: no variable of this process, and so no secret, reaches the training. The work of
starting and ending it is `launch.py`'s; this module never forks in a process with threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import pwd
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from ai_infra_trainer.disk import DiskWatch
from ai_infra_trainer.exceptions import Cancelled, RunnerUnfit, TrainingFailed

FIRST_UID: Final = 62_000  # in no distribution's range for people or services, and below nobody (65534)
UIDS: Final = 64
MAX_LOG_BYTES: Final = 8 << 20
MAX_OPEN_FILES: Final = 4096
MAX_PROCESSES: Final = 512
LAUNCHER_GRACE_SECONDS: Final = 30.0
LEASE_SECONDS: Final = 0.2  # between two looks whether a named user is free
_LAUNCH: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from ai_infra_trainer.launch import main; sys.exit(main())"
)
PATH: Final = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose rights a training has: uid and gid, or None for those of this process (when it is not root)."""

    uid: int | None
    gid: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a training may use. `cpu_millis`: thousandths of a core; `disk_mib`: all of its files together."""

    time_limit_s: int
    memory_mib: int
    cpu_millis: int
    disk_mib: int

    @property
    def threads(self) -> int:
        """Threads that numeric libraries are told to use; fixed, because results depend on it."""
        return max(1, math.ceil(self.cpu_millis / 1000))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a training ended. `stopped`: None (by itself), {time,memory,disk}_limit, cancelled or not_started."""

    started: datetime
    ended: datetime
    exit_code: int | None
    stopped: str | None
    error: str
    cpu_seconds: float
    peak_bytes: int
    isolation: tuple[str, ...]
    log_sha256: str
    log_bytes: int
    last_line: str


@contextmanager
def identity(user: str | None, locks: Path, cancelled: threading.Event) -> Iterator[Identity]:
    """The user that a training runs as, for as long as the block lasts; no other training has it meanwhile (a locked
    file in `locks` says so), because whoever has it can change the other's output.

    Root: `user` if one is named, waiting for it until `cancelled`, else one of our range that is free. Not root: our
    own user; `user` cannot be honoured then, and RunnerUnfit says so.
    """
    if os.geteuid() != 0:
        if user and user != pwd.getpwuid(os.geteuid()).pw_name:
            raise RunnerUnfit(f"only root can run trainings as user {user!r}; start the trainer as root, or unset it")
        yield Identity(None, None)
        return
    if user:
        try:
            entry = pwd.getpwnam(user)
        except KeyError:
            raise RunnerUnfit(f"there is no user {user!r} on this machine; create it, or unset it") from None
        if entry.pw_uid == 0:
            raise RunnerUnfit("trainings do not run as root; name another user")
        while True:
            with _lease(entry.pw_uid, locks) as free:
                if free:
                    yield Identity(entry.pw_uid, entry.pw_gid)
                    return
            if cancelled.wait(LEASE_SECONDS):
                raise Cancelled(f"the job was cancelled while it waited for user {user!r}, which another training has")
    for uid in range(FIRST_UID, FIRST_UID + UIDS):
        with _lease(uid, locks) as free:
            if free:
                yield Identity(uid, uid)
                return
    raise RunnerUnfit(f"all {UIDS} user ids for trainings are in use; run fewer at once")


@contextmanager
def _lease(uid: int, locks: Path) -> Iterator[bool]:
    """Whether the user id was free; it is taken while the block lasts."""
    descriptor = os.open(locks / f"uid-{uid}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def environment(
    *, home: Path, output: Path, datasets: Path, hyperparams: Path, seed: int, threads: int
) -> dict[str, str]:
    """The whole environment of a training: what `docs/training-contract.md` promises, and nothing else."""
    count = str(threads)
    return {
        "AI_INFRA_DATASETS_DIR": str(datasets),
        "AI_INFRA_HYPERPARAMS": str(hyperparams),
        "AI_INFRA_OUTPUT_DIR": str(output),
        "AI_INFRA_SEED": str(seed),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS is deterministic only with a fixed workspace
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "LOGNAME": "training",
        "MKL_NUM_THREADS": count,
        "NUMEXPR_NUM_THREADS": count,
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "PATH": f"{Path(sys.executable).parent}:{PATH}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": str(seed % (1 << 32)),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
        "SOURCE_DATE_EPOCH": "0",
        "TMPDIR": str(home / "tmp"),
        "TZ": "UTC",
        "USER": "training",
    }


def run(
    command: Sequence[str],
    *,
    cwd: Path,
    workspace: Path,
    env: Mapping[str, str],
    limits: Limits,
    who: Identity,
    log: Path,
    cancelled: threading.Event,
) -> Ended:
    """Run `command` (a list; its first word `python` is this interpreter) to its end; never raises for what it does.

    `workspace` is the directory that stays visible to the training and holds all of its own. Returns how it ended.
    """
    program, argv = _program(command, env["PATH"], cwd)
    spec = {
        "program": program,
        "argv": argv,
        "cwd": str(cwd),
        "env": dict(env),
        "uid": who.uid,
        "gid": who.gid,
        "keep": [str(workspace), sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent.parent)],
        "memory_mib": limits.memory_mib,
        "time_limit_s": limits.time_limit_s,
        "limits": _rlimits(limits, who),
    }
    disk = DiskWatch(workspace, limits.disk_mib << 20)
    outcome_read, outcome_write = os.pipe()
    try:
        launcher = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCH, str(Path(__file__).parent.parent), str(outcome_write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": PATH, "LANG": "C.UTF-8"},
            cwd="/",
            pass_fds=(outcome_write,),
            start_new_session=True,
        )
    finally:
        os.close(outcome_write)
    with os.fdopen(outcome_read, "rb") as outcomes, launcher:
        if launcher.stdin is None or launcher.stdout is None:
            raise RunnerUnfit("the launcher has no pipes")
        launcher.stdin.write(json.dumps(spec).encode() + b"\n")
        launcher.stdin.flush()
        reader = _LogReader(launcher.stdout, log)
        reader.start()
        disk.watch(launcher.pid)
        over = threading.Event()
        unwanted = (cancelled, disk.full)
        threading.Thread(target=_let_go, args=(launcher, unwanted, over, limits.time_limit_s), daemon=True).start()
        line = outcomes.readline()
        over.set()
        disk.end()
        reader.join()
        launcher.wait()
    if not line:
        raise RunnerUnfit(f"the launcher ended with {launcher.returncode} and no outcome: {reader.last_line}")
    outcome = json.loads(line)
    if outcome["stopped"] == "cancelled" and disk.full.is_set():
        outcome["stopped"] = "disk_limit"
    return Ended(
        started=_moment(outcome["started"]),
        ended=_moment(outcome["ended"]),
        exit_code=outcome["exit_code"],
        stopped=outcome["stopped"],
        error=outcome.get("error", ""),
        cpu_seconds=outcome["cpu_seconds"],
        peak_bytes=outcome["peak_bytes"],
        isolation=tuple(outcome["isolation"]),
        log_sha256=reader.sha256,
        log_bytes=reader.written,
        last_line=reader.last_line,
    )


def _let_go(
    launcher: subprocess.Popen[bytes], unwanted: Sequence[threading.Event], over: threading.Event, time_limit_s: int
) -> None:
    """Close the lifeline when an event says that the training must end; kill a launcher that outlives every limit."""
    left = time_limit_s + LAUNCHER_GRACE_SECONDS
    while not over.wait(0.1):
        left -= 0.1
        if any(event.is_set() for event in unwanted) and launcher.stdin is not None and not launcher.stdin.closed:
            launcher.stdin.close()
            left = min(left, LAUNCHER_GRACE_SECONDS)
        if left <= 0:
            launcher.kill()
            return


def _program(command: Sequence[str], path: str, cwd: Path) -> tuple[str, list[str]]:
    """The program's path and its arguments; `python` is this interpreter, a relative path is below the code."""
    first = command[0]
    if first in ("python", "python3"):
        return sys.executable, [sys.executable, *command[1:]]
    if "/" in first:
        found: str | None = str(cwd / first)
    else:
        found = shutil.which(first, path=path)
    if found is None:
        raise TrainingFailed(f"training_cmd: there is no program {first!r} on the runner", code="bad_command")
    return found, list(command)


def _rlimits(limits: Limits, who: Identity) -> dict[str, int]:
    # RLIMIT_DATA, not RLIMIT_AS: it counts what a process can write to, where address space also counts mapped files
    # and reservations that are never used. The sum over all processes is watched by the launcher.
    wanted = {
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": limits.time_limit_s * limits.threads + 60,
        "RLIMIT_DATA": limits.memory_mib << 20,
        "RLIMIT_FSIZE": limits.disk_mib << 20,
        "RLIMIT_NOFILE": MAX_OPEN_FILES,
    }
    if who.uid is not None:  # counted for the whole user, so only where the training has one of its own
        wanted["RLIMIT_NPROC"] = MAX_PROCESSES
    return wanted


def _moment(seconds: float) -> datetime:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


class _LogReader(threading.Thread):
    """Drains the training's output to the end; keeps the first 8 MiB, and the last line to tell people."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(name="training-log", daemon=True)
        self._stream = stream
        self._path = path
        self._digest = hashlib.sha256()
        self._tail = b""
        self.written = 0

    def run(self) -> None:
        dropped = 0
        with self._path.open("wb") as out:
            while chunk := os.read(self._stream.fileno(), 1 << 16):
                self._tail = (self._tail + chunk)[-2048:]
                room = MAX_LOG_BYTES - self.written
                self._write(out, chunk[:room])
                dropped += max(0, len(chunk) - room)
            if dropped:
                self._write(out, f"\n[{dropped} more bytes of output were not kept]\n".encode())

    def _write(self, out: IO[bytes], data: bytes) -> None:
        out.write(data)
        self._digest.update(data)
        self.written += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def last_line(self) -> str:
        lines = [line for line in self._tail.decode("utf-8", "replace").splitlines() if line.strip()]
        return "".join(c if c.isprintable() else " " for c in lines[-1])[:300].strip() if lines else ""
