"""Where trainings work: one directory for each, in a directory of this process, gone when it is over.

What a process that died has left behind is removed by the next one; a directory that is still in use never is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ai_infra_trainer.exceptions import RunnerUnfit
from ai_infra_trainer.sandbox import Identity


@dataclass(frozen=True, slots=True)
class Workspace:
    """The directories of one training. `private` is the trainer's own; everything else the training may see."""

    root: Path

    @property
    def open(self) -> Path:
        return self.root / "training"

    @property
    def code(self) -> Path:
        return self.open / "code"

    @property
    def datasets(self) -> Path:
        return self.open / "datasets"

    @property
    def home(self) -> Path:
        return self.open / "home"

    @property
    def output(self) -> Path:
        return self.open / "output"

    @property
    def hyperparams(self) -> Path:
        return self.open / "hyperparams.json"

    @property
    def private(self) -> Path:
        return self.root / "private"

    def make(self) -> None:
        """The empty directories, readable by the trainer alone until `hand_over`."""
        for directory in (self.root, self.open, self.datasets, self.home, self.home / "tmp", self.output, self.private):
            directory.mkdir(mode=0o700)

    def hand_over(self, who: Identity) -> None:
        """Give the training its own: code, home and output to write to, datasets and hyperparameters to read."""
        if who.uid is None or who.gid is None:
            return
        self.root.chmod(0o711)
        self.open.chmod(0o755)
        for writable in (self.code, self.home, self.output):
            _give(writable, who.uid, who.gid)
        for path in (self.datasets, *self.datasets.rglob("*"), self.hyperparams):
            path.chmod(0o755 if path.is_dir() else 0o644)

    def remove(self) -> None:
        _remove(self.root)


def _give(path: Path, uid: int, gid: int) -> None:
    subprocess.run(["chown", "-hR", f"{uid}:{gid}", "--", str(path)], check=True)


def _remove(path: Path) -> None:
    """By the system's own program: a training nests directories more deeply than Python's recursion goes, and may have
    closed them, which stops everybody but root."""
    remove = ["rm", "-rf", "--", str(path)]
    for command in (remove, ["chmod", "-R", "u+rwX", "--", str(path)], remove):
        if not path.exists():
            return
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Workspaces:
    """All workspaces of this process, below `<directory>/<pid>-…`, with a lock that says that it lives."""

    def __init__(self, directory: Path | None) -> None:
        self.base = directory or Path(tempfile.gettempdir()) / f"ai-infra-runner-{os.geteuid()}"
        self.base.mkdir(mode=0o711, parents=True, exist_ok=True)
        status = self.base.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022 or self.base.is_symlink():
            raise RunnerUnfit(
                f"{self.base} belongs to somebody else or is writable by others; remove it, or set another"
            )
        self.base.chmod(0o711)
        self.locks = self.base / "locks"
        self.locks.mkdir(mode=0o700, exist_ok=True)
        self._root = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.base))
        self._root.chmod(0o711)
        self._lock = self._claim(self._root)
        self._sweep()

    def of(self, key: str) -> Workspace:
        """The workspace of a key; the same key has the same one."""
        return Workspace(self._root / hashlib.sha256(key.encode()).hexdigest()[:24])

    def close(self) -> None:
        """Remove everything of this process."""
        _remove(self._root)
        os.close(self._lock)
        self._lock_path(self._root).unlink(missing_ok=True)

    def _lock_path(self, root: Path) -> Path:
        return self.locks / root.name

    def _claim(self, root: Path) -> int:
        descriptor = os.open(self._lock_path(root), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor

    def _sweep(self) -> None:
        """Remove what dead processes left: their lock is free. A fresh directory may not be locked yet."""
        for other in self.base.iterdir():
            if other in (self._root, self.locks):
                continue
            try:
                fresh = time.time() - other.stat().st_mtime < 60
            except FileNotFoundError:
                continue  # another process sweeps too
            if fresh:
                continue
            descriptor = os.open(self._lock_path(other), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                _remove(other)
                self._lock_path(other).unlink(missing_ok=True)
            finally:
                os.close(descriptor)
