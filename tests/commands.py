"""The commands as they are typed beside a stack: each is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from subprocess import CompletedProcess

from ai_infra.devstack import Stack

SECONDS = 240.0


def run_command(stack: Stack, *arguments: str, env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Runs `ai-infra …` with everything that the stack's environment says, and with `env`; judges nothing."""
    return subprocess.run(
        [sys.executable, "-m", "ai_infra.cli.main", *arguments],
        env={**os.environ, **stack.env(), **(env or {})},
        cwd=stack.directory,  # where no file of settings is, and nothing is in the way of what a command writes
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
