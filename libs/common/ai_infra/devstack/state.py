"""What is recorded of a stack, so that another command, or the same after a crash, finds everything again.

One JSON file per stack, readable by its owner alone (it holds the passwords that were made up for this stack), replaced
as a whole. It never holds anything that a restart could not live without: lost, the stack is set up anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from ai_infra.devstack.cache import locked
from ai_infra.devstack.exceptions import StackError
from ai_infra.devstack.processes import Process
from ai_infra.devstack.progress import silent

FORMAT: Final = 1
_T = TypeVar("_T")


class StackState(msgspec.Struct, kw_only=True):
    """`ports` by name, `processes` by part or `<service>-<replica>`, `credentials` by name (made up for this stack)."""

    format: int = FORMAT
    backend: str = ""
    lanes: int = 0
    ports: dict[str, int] = {}
    processes: dict[str, Process] = {}
    credentials: dict[str, str] = {}


class StateFile:
    """The state of one stack on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> StackState:
        try:
            state = msgspec.json.decode(self.path.read_bytes(), type=StackState)
        except FileNotFoundError:
            return StackState()
        except msgspec.DecodeError as error:
            raise StackError(f"{self.path} cannot be read ({error}): `ai-infra dev reset` starts afresh") from error
        if state.format != FORMAT:
            raise StackError(
                f"{self.path} has format {state.format}, and this version knows {FORMAT}: "
                "`ai-infra dev reset` starts afresh"
            )
        return state

    def write(self, state: StackState) -> None:
        write_private(self.path, msgspec.json.format(msgspec.json.encode(state)))

    def change(self, change: Callable[[StackState], _T]) -> _T:
        """Read, change and write, alone: threads and other commands wait their turn."""
        with locked(self.path.with_suffix(".lock"), progress=silent, busy=""):
            state = self.read()
            result = change(state)
            self.write(state)
        return result

    def record(self, name: str, process: Process | None) -> None:
        """What runs under this name from now on."""

        def put(state: StackState) -> None:
            state.processes.pop(name, None)
            if process is not None:
                state.processes[name] = process

        self.change(put)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner alone from the first byte on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    new.replace(path)
