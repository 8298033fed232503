"""How the demo talks: plain sentences, the commands that it runs, and what they print."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
_PASSWORD = re.compile(r"://([^:@/]+):[^@]+@")  # what is shown must not hold one


class DemoError(Exception):
    """The demo cannot go on; the message says what to do."""


class Story:
    """Counts the steps and keeps their times."""

    def __init__(self) -> None:
        self._step = 0
        self._began = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._step += 1
        console.print()
        console.print(f"[bold]{self._step}. {title}[/bold]")
        began = time.monotonic()
        yield
        console.print(f"[dim]({time.monotonic() - began:.1f} s)[/dim]")

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def say(text: str) -> None:
    console.print(text)


def fact(name: str, value: object) -> None:
    console.print(f"  [cyan]{name:<22}[/cyan] {value}")


def run(arguments: Sequence[str], *, expect_failure: bool = False) -> str:
    """Runs `ai-infra …` as a person would, shows it and what it prints, and returns that."""
    shown = _PASSWORD.sub(r"://\1:…@", shlex.join(arguments))
    console.print(f"$ ai-infra {shown}", style="green", markup=False)
    done = subprocess.run(
        [sys.executable, "-m", "ai_infra.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    output = (done.stdout + done.stderr).rstrip()
    for line in output.splitlines():
        console.print(f"  {line}", markup=False)
    if (done.returncode != 0) != expect_failure:
        wanted = "a refusal (a non-zero exit)" if expect_failure else "success"
        raise DemoError(f"`ai-infra {shown}` ended with {done.returncode}; expected {wanted}")
    return output
