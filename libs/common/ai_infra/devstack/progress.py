"""Saying what happens while something takes long: every line says what is being done, and for how long already."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ai_infra.devstack.exceptions import PartFailed

Progress = Callable[[str], None]
"""Takes one line of text for people. It may be called from several threads."""

SAY_AGAIN_SECONDS: Final = 15.0  # nobody should look at a silent terminal for longer
LAST_LINES: Final = 15


def silent(_line: str) -> None:
    """For callers that show nothing."""


def run_with_progress(
    argv: Sequence[str],
    *,
    what: str,
    progress: Progress,
    output: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end, saying now and then that `what` is still going on.

    Its output goes to the file `output`; the last lines of it are in the error when it fails.
    """
    started = time.monotonic()
    progress(f"{what} …")
    with output.open("wb") as log:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                try:
                    code = process.wait(SAY_AGAIN_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    progress(f"{what} … {time.monotonic() - started:.0f} s")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        raise PartFailed(f"{what} failed: `{' '.join(argv[:3])} …` ended with {code}. Its last lines:\n{tail(output)}")
    progress(f"{what}: done in {time.monotonic() - started:.0f} s")


def tail(path: Path, lines: int = LAST_LINES) -> str:
    """The last lines of a text file; the empty text where there is no file."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 400 * max(lines, 1)))
        text = file.read().decode("utf-8", "replace")
    return "\n".join(text.splitlines()[-lines:])
