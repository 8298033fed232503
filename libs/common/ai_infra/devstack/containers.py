"""The same parts as containers of `compose.yaml`, for machines that have Docker but not the programs.

It only ever touches the compose project of this stack.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ai_infra.devstack.backend import PartStatus
from ai_infra.devstack.exceptions import PartFailed
from ai_infra.devstack.part import Part
from ai_infra.devstack.ports import HOST, USUAL, free_port
from ai_infra.devstack.progress import Progress, run_with_progress
from ai_infra.devstack.state import StackState, StateFile
from ai_infra.devstack.waiting import wait_until

WORDS: Final = {"running": "running", "paused": "halted", "exited": "crashed", "dead": "crashed"}
PULL_SECONDS: Final = 600


def engine_answers() -> bool:
    """Whether a Docker engine with the compose plugin can be used from here."""
    if shutil.which("docker") is None:
        return False
    return all(
        subprocess.run(["docker", *command], capture_output=True, check=False, timeout=20).returncode == 0
        for command in (("version", "--format", "{{.Server.Version}}"), ("compose", "version"))
    )


class Containers:
    """Parts as containers. Each part's first port is published under the number in the stack's state."""

    name = "containers"

    def __init__(
        self,
        parts: Mapping[str, Part],
        state: StateFile,
        logs: Path,
        *,
        compose_file: Path,
        project: str,
        usual_ports: bool,
    ) -> None:
        self._parts = parts
        self._state = state
        self._logs = logs
        self._file = compose_file
        self._project = project
        self._usual_ports = usual_ports

    def prepare(self, part: str, progress: Progress) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        run_with_progress(
            self._command("pull", "--policy", "missing", part),
            what=f"fetching the image of {part}",
            progress=progress,
            output=self._logs / f"{part}.pull.log",
            env=self.variables(),
        )

    def start(self, part: str, progress: Progress) -> None:
        progress(f"starting the container of {part} …")
        self._run("up", "--detach", "--no-deps", part)
        known = self._parts[part]
        ports = self._state.read().ports
        if not wait_until(lambda: known.ready(ports), known.start_seconds):
            raise PartFailed(
                f"{part} is not ready after {known.start_seconds:.0f} s. Its last lines:\n{self.log(part, 15)}"
            )

    def stop(self, part: str) -> None:
        self._run("stop", "--timeout", f"{self._parts[part].stop_seconds:.0f}", part)

    def kill(self, part: str, signum: int) -> None:
        self._run("kill", "--signal", signal.Signals(signum).name, part)
        if signum == signal.SIGKILL:
            wait_until(lambda: self.status(part).state != "running", 10)

    def status(self, part: str) -> PartStatus:
        answer = self._run("ps", "--all", "--format", "json", part)
        lines = [json.loads(line) for line in answer.splitlines() if line.startswith("{")]
        state = WORDS.get(lines[0].get("State", ""), "stopped") if lines else "stopped"
        if state == "crashed" and lines[0].get("ExitCode") == 0:
            state = "stopped"
        port = self._state.read().ports.get(self._parts[part].listens[0])
        return PartStatus(part, state, f"{HOST}:{port}" if port else "", None, f"docker compose logs {part}")

    def log(self, part: str, lines: int) -> str:
        return self._run("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), part)

    def reset(self, part: str) -> None:
        self._run("rm", "--stop", "--force", "--volumes", part)
        volume = f"{self._project}_{part}"
        subprocess.run(["docker", "volume", "rm", "--force", volume], capture_output=True, check=False)

    def _choose_port(self, part: str) -> None:
        name = self._parts[part].listens[0]

        def choose(state: StackState) -> None:
            if name not in state.ports:
                taken = set(state.ports.values())
                state.ports[name] = free_port(taken, USUAL[name] if self._usual_ports else None)

        self._state.change(choose)

    def variables(self) -> dict[str, str]:
        """What `compose.yaml` leaves open: the project, ports on this machine, the passwords made up for the stack."""
        for part in self._parts:
            self._choose_port(part)
        state = self._state.read()
        ports = {f"STACK_{name.upper()}_PORT": str(port) for name, port in state.ports.items()}
        passwords = {f"STACK_{name.upper()}": value for name, value in state.credentials.items()}
        return {"COMPOSE_PROJECT_NAME": self._project, **ports, **passwords}

    def _command(self, *arguments: str) -> list[str]:
        return ["docker", "compose", "--file", str(self._file), *arguments]

    def _run(self, *arguments: str) -> str:
        answer = subprocess.run(
            self._command(*arguments),
            env={**os.environ, **self.variables()},
            capture_output=True,
            text=True,
            check=False,
            timeout=PULL_SECONDS,
        )
        if answer.returncode != 0:
            raise PartFailed(f"`docker compose {arguments[0]}` failed: {answer.stderr.strip()[-800:]}")
        return answer.stdout
