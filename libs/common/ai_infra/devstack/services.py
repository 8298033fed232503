"""Our own services beside the stack: started as an operator would start them, recorded like the stack's parts.

A service gets the stack's environment and its own key, never the orchestrator's.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

from ai_infra.devstack import processes
from ai_infra.devstack.backend import PartStatus, describe
from ai_infra.devstack.exceptions import PartFailed
from ai_infra.devstack.ports import HOST, free_port, is_free
from ai_infra.devstack.processes import Launch, Process
from ai_infra.devstack.progress import tail
from ai_infra.devstack.state import StackState, StateFile
from ai_infra.devstack.waiting import wait_until

GROUP: Final = "ai_infra.services"
START_SECONDS: Final = 180.0  # one that ends is noticed at once: this is for one that hangs, on a busy machine too
STOP_SECONDS: Final = 30.0


def installed_services() -> tuple[str, ...]:
    """The services of this installation, by name."""
    return tuple(sorted(entry.name for entry in entry_points(group=GROUP)))


class Services:
    """The services of one stack, which run in `directory`. A replica is known as `<service>-<number>`."""

    def __init__(self, directory: Path, state: StateFile, logs: Path) -> None:
        self._directory = directory
        self._state = state
        self._logs = logs

    def start(self, service: str, replica: int, env: Mapping[str, str], *, wait: bool = True) -> Process:
        """Start a replica with `env` as its environment and wait until it answers; does nothing to a running one."""
        name = replica_name(service, replica)
        known = self._state.read().processes.get(name)
        if known is not None and known.alive():
            return known
        port = self._state.change(lambda state: _choose_port(state, name))
        own = {"AI_INFRA_HTTP_HOST": HOST, "AI_INFRA_HTTP_PORT": str(port), "AI_INFRA_REPLICA": str(replica)}
        launch = Launch([sys.executable, "-m", "ai_infra.cli.main", "run", service], {**own, **env}, self._directory)
        process = processes.start(launch, self.log_path(name), port=port, facts={"service": service})
        self._state.record(name, process)
        if wait:
            self.wait(name, START_SECONDS)
        return process

    def wait(self, name: str, timeout: float) -> None:
        """Return once the replica answers on /health. Raises PartFailed when it ends, or stays silent, before."""
        process = self._recorded(name)
        wait_until(lambda: not process.alive() or self.asks(process, "/health") is not None, timeout)
        if not process.alive() or self.asks(process, "/health") is None:
            happened = "does not answer on /health after" if process.alive() else "ended within"
            raise PartFailed(
                f"{name} {happened} {timeout:.0f} s. The last lines of {self.log_path(name)}:\n"
                f"{tail(self.log_path(name))}"
            )

    def stop(self, name: str) -> bool:
        """Graceful stop. False when it had to be killed."""
        known = self._state.read().processes.get(name)
        graceful = known is None or processes.stop(known, grace=STOP_SECONDS)
        self._state.record(name, None)
        return graceful

    def kill(self, name: str, signum: int = signal.SIGKILL) -> None:
        """A signal to the process of the service alone, as the kernel's memory guard would."""
        known = self._recorded(name)
        if not processes.send(known, signum):
            raise PartFailed(f"{name} does not run, so it gets no signal")
        if signum == signal.SIGKILL:
            wait_until(lambda: not known.alive(), 10)

    def names(self) -> list[str]:
        """Every recorded replica, running or not."""
        return sorted(name for name, process in self._state.read().processes.items() if "service" in process.facts)

    def status(self, name: str) -> PartStatus:
        known = self._state.read().processes.get(name)
        state = describe(known)
        address = f"http://{HOST}:{known.port}" if known else ""
        if known and state == "running" and self.asks(known, "/readyz") != 200:
            state = "not ready"
        return PartStatus(name, state, address, known.pid if known else None, str(self.log_path(name)))

    def log_path(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    @staticmethod
    def asks(process: Process, path: str) -> int | None:
        """The HTTP status of a route of the service; None when it doesn't answer."""
        import httpx

        try:
            return httpx.get(f"http://{HOST}:{process.port}{path}", timeout=2, trust_env=False).status_code
        except httpx.HTTPError:
            return None

    def _recorded(self, name: str) -> Process:
        known = self._state.read().processes.get(name)
        if known is None:
            raise PartFailed(f"{name} was not started by this stack: `ai-infra dev status` shows what was")
        return known


def replica_name(service: str, replica: int) -> str:
    return f"{service}-{replica}"


def _choose_port(state: StackState, name: str) -> int:
    known = state.processes.get(name)
    taken = {process.port for key, process in state.processes.items() if key != name and process.port}
    taken |= set(state.ports.values())
    if known is not None and known.port and known.port not in taken and is_free(known.port):
        return known.port
    return free_port(taken)
