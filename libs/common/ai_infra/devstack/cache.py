"""Where downloads are kept between stacks, and how several set-ups at once share them safely.

A directory in the cache is either complete or not there: it is filled under another name and renamed. It holds programs
only, never state, keys or data of a stack.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ai_infra.devstack.progress import Progress


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/ai-infra`, by default `~/.cache/ai-infra`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ai-infra"


@contextmanager
def locked(path: Path, *, progress: Progress, busy: str) -> Iterator[None]:
    """Hold the lock file `path`; `busy` is said once when somebody else holds it. The kernel frees it when we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached(name: str, fetch: Callable[[Path], None], *, progress: Progress) -> Path:
    """The cache's directory `name`, complete; when it isn't there, `fetch` fills it, once, whoever asks first."""
    target = cache_directory() / name
    if target.is_dir():
        return target
    with locked(target.parent / f"{name}.lock", progress=progress, busy=f"waiting for another set-up of {name} …"):
        if target.is_dir():
            return target
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            fetch(unfinished)
            unfinished.chmod(0o755)
            unfinished.rename(target)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return target
