"""Watches what a training takes of the disk, from outside it: no limit of the kernel bounds many files together."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Final

from ai_infra_trainer.launch import descendants, unlinked

LOOK_SECONDS: Final = 0.5
SHARE: Final = 10  # a look that took long is followed by a pause of so many times as long
ENTRY_BYTES: Final = 4096  # an empty file takes an inode, of which a disk has as many as it has blocks, or fewer


class DiskWatch(threading.Thread):
    """Sets `full` once `max_bytes` more than when this was made are taken, in files below `root` and in those without a
    name that processes below the watched one hold."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        super().__init__(name="training-disk", daemon=True)
        self._root = root
        self._pid = 0
        self._max_bytes = max_bytes + on_disk(root)
        self._over = threading.Event()
        self.full = threading.Event()

    def watch(self, pid: int) -> None:
        """Begin to look."""
        self._pid = pid
        self.start()

    def run(self) -> None:
        pause = LOOK_SECONDS
        while not self._over.wait(pause):
            begin = time.monotonic()
            if taken(self._root, self._pid) > self._max_bytes:
                self.full.set()
                return
            pause = max(LOOK_SECONDS, SHARE * (time.monotonic() - begin))

    def end(self) -> None:
        """Look no more."""
        self._over.set()


def taken(root: Path, pid: int) -> int:
    """Bytes on disk below `root`, and in files that have lost their name and that processes below `pid` still hold."""
    held = sum(size for target, size in unlinked(descendants(pid)) if not target.startswith("/memfd:"))
    return held + on_disk(root)


def on_disk(root: Path) -> int:
    """Bytes on disk below `root`, with something for each file and directory."""
    return _du("--block-size=1", root) + ENTRY_BYTES * _du("--inodes", root)


def _du(unit: str, root: Path) -> int:
    """The system's own: it follows directories that are nested more deeply than a path is long."""
    done = subprocess.run(["du", "-sx", unit, "--", str(root)], capture_output=True, text=True, check=False)
    number = done.stdout.partition("\t")[0]  # it tells a sum even where files vanish while it looks
    return int(number) if number.isdigit() else 0
