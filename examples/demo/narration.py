"""How the demo talks: plain sentences, the commands that it runs, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

console = Console(highlight=False, soft_wrap=True)
_PASSWORD = re.compile(r"://([^:@/\s]+):[^@\s]+@")  # what is shown must not hold one


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


def run(arguments: Sequence[str], *, expect_failure: bool = False, **settings: str) -> str:
    """Runs `ai-infra …` as a person would, with these variables set, shows it and what it prints, and returns that."""
    shown = without_password(
        shlex.join([*(f"{name}={value}" for name, value in settings.items()), "ai-infra", *arguments])
    )
    console.print(f"$ {shown}", style="green", markup=False)
    width = {"COLUMNS": str(console.width - 2)} if console.is_terminal else {}
    done = subprocess.run(
        [sys.executable, "-m", "ai_infra.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | settings | width,
    )
    output = (done.stdout + done.stderr).rstrip()
    for line in output.splitlines():
        console.print(f"  {line}", markup=False)
    if (done.returncode != 0) != expect_failure:
        wanted = "a refusal (a non-zero exit)" if expect_failure else "success"
        raise DemoError(f"`{shown}` ended with {done.returncode}; expected {wanted}")
    return output


def without_password(text: str) -> str:
    return _PASSWORD.sub(r"://\1:…@", text)


def suggest(commands: Sequence[tuple[str, str]]) -> None:
    """Commands that work as they stand here, and what each is for."""
    programs = str(Path(sys.executable).parent)
    if programs not in os.environ.get("PATH", "").split(os.pathsep):
        commands = [(f'export PATH="{programs}:$PATH"', "once in this shell"), *commands]
    width = max(len(command) for command, _ in commands)
    beside = all(width + len(why) + 4 <= console.width for _, why in commands)
    for command, why in commands:
        if beside:
            console.print(f"  [green]{command:<{width}}[/green]  {why}")
        else:
            console.print(f"  [dim]# {why}[/dim]\n  [green]{command}[/green]")
