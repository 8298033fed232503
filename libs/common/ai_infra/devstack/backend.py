"""How parts are started and ended: as programs of this machine, or as containers. The stack sees no difference."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from ai_infra.devstack import processes
from ai_infra.devstack.exceptions import PartFailed
from ai_infra.devstack.part import Part
from ai_infra.devstack.ports import HOST, USUAL, free_port, is_free
from ai_infra.devstack.processes import Process
from ai_infra.devstack.progress import Progress, tail
from ai_infra.devstack.state import StackState, StateFile
from ai_infra.devstack.waiting import wait_until

PORT_RELEASE_SECONDS: Final = 5.0
ATTEMPTS: Final = 5
RETRY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class PartStatus:
    """`state` is one of running, halted (by SIGSTOP), crashed (recorded, but gone), stopped."""

    name: str
    state: str
    address: str
    pid: int | None
    log: str


class Backend(Protocol):
    """Starts and ends the parts of one stack. All calls may be repeated."""

    name: str

    def prepare(self, part: str, progress: Progress) -> None: ...
    def start(self, part: str, progress: Progress) -> None:
        """Returns once the part serves."""

    def stop(self, part: str) -> None: ...
    def kill(self, part: str, signum: int) -> None: ...
    def status(self, part: str) -> PartStatus: ...
    def log(self, part: str, lines: int) -> str: ...
    def reset(self, part: str) -> None:
        """Delete the data of a stopped part."""


class Programs:
    """Parts as programs of this machine, found again by the process recorded in the stack's state."""

    name = "programs"

    def __init__(self, parts: Mapping[str, Part], state: StateFile, logs: Path, *, usual_ports: bool) -> None:
        self._parts = parts
        self._state = state
        self._logs = logs
        self._usual_ports = usual_ports

    def prepare(self, part: str, progress: Progress) -> None:
        self._parts[part].prepare(progress)

    def start(self, part: str, progress: Progress) -> None:
        known = self._state.read().processes.get(part)
        if known is not None and known.alive():
            self._await(self._parts[part], known, self._ports(part))
            return
        for attempt in range(1, ATTEMPTS + 1):
            ports = self._choose_ports(part)
            process = processes.start(self._parts[part].launch(ports), self._log(part), port=self._first(part, ports))
            self._state.record(part, process)
            try:
                self._await(self._parts[part], process, ports)
            except PartFailed:
                # Somebody may have taken a port between our look and the server's own, or children of a killed server
                # have not noticed yet that they are alone: both are over in a moment.
                if process.alive() or attempt == ATTEMPTS:
                    raise
                progress(f"{part} ended while starting: another attempt …")
                threading.Event().wait(RETRY_SECONDS)
            else:
                return

    def stop(self, part: str) -> None:
        known = self._state.read().processes.get(part)
        if known is not None:
            processes.stop(known, grace=self._parts[part].stop_seconds, signum=self._parts[part].stop_signal)
            self._state.record(part, None)

    def kill(self, part: str, signum: int) -> None:
        known = self._state.read().processes.get(part)
        if known is None or not processes.send(known, signum):
            raise PartFailed(f"{part} does not run, so it gets no signal: `ai-infra dev status`")
        if signum == signal.SIGKILL:
            wait_until(lambda: not known.alive(), 10)

    def status(self, part: str) -> PartStatus:
        state = self._state.read()
        known = state.processes.get(part)
        port = state.ports.get(self._parts[part].listens[0])
        address = f"{HOST}:{port}" if port else ""
        running = known is not None and known.alive()
        return PartStatus(
            part, describe(known), address, known.pid if known and running else None, str(self._log(part))
        )

    def log(self, part: str, lines: int) -> str:
        return tail(self._log(part), lines)

    def reset(self, part: str) -> None:
        for directory in self._parts[part].data():
            shutil.rmtree(directory, ignore_errors=True)

    def _await(self, part: Part, process: Process, ports: dict[str, int]) -> None:
        wait_until(lambda: not process.alive() or part.ready(ports), part.start_seconds)
        if not process.alive() or not part.ready(ports):
            happened = "is not ready after" if process.alive() else "ended within"
            raise PartFailed(
                f"{part.name} {happened} {part.start_seconds:.0f} s. "
                f"The last lines of {self._log(part.name)}:\n{tail(self._log(part.name))}"
            )

    def _choose_ports(self, part: str) -> dict[str, int]:
        """The ports of the last time, so that clients find a restarted part again; others where those are taken."""

        def choose(state: StackState) -> dict[str, int]:
            for name in self._parts[part].listens:
                last = state.ports.get(name)
                if last is not None and wait_until(partial(is_free, last), PORT_RELEASE_SECONDS):
                    continue
                state.ports[name] = free_port(
                    set(state.ports.values()), USUAL[name] if self._usual_ports and last is None else None
                )
            return dict(state.ports)

        return self._state.change(choose)

    def _ports(self, part: str) -> dict[str, int]:
        return {name: port for name, port in self._state.read().ports.items() if name in self._parts[part].listens}

    def _first(self, part: str, ports: Mapping[str, int]) -> int:
        return ports[self._parts[part].listens[0]]

    def _log(self, part: str) -> Path:
        return self._logs / f"{part}.log"


def describe(process: Process | None) -> str:
    """The state of a recorded process, in one word."""
    if process is None:
        return "stopped"
    if not process.alive():
        return "crashed"
    return "halted" if processes.halted(process) else "running"
