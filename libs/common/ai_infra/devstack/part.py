"""What a part of the stack (Kafka, Postgres, S3) is, seen from the stack that starts and stops it.

A part knows how to get its program, how to start it and how to ask whether it serves. It records nothing and ends
nothing: the backend does, the same way for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ai_infra.devstack.processes import Launch
from ai_infra.devstack.progress import Progress


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that a part is made from, as it was looked for on this machine."""

    name: str
    found: str | None
    advice: str

    @property
    def missing(self) -> bool:
        return self.found is None


class Part(Protocol):
    """One server of the stack. `directory` is the stack's own; the part keeps its data under it."""

    name: str
    listens: tuple[str, ...]
    """The names of its ports in `StackState.ports`; the first is the one that clients use."""
    start_seconds: float
    """How long a start may take, recovery after a crash included."""
    stop_signal: int
    stop_seconds: float

    def tools(self) -> tuple[Tool, ...]:
        """What it needs on this machine that its cache doesn't already hold."""

    def prepare(self, progress: Progress) -> None:
        """Fetch the program and make its data directory. Does nothing the second time."""

    def launch(self, ports: dict[str, int]) -> Launch: ...

    def ready(self, ports: dict[str, int]) -> bool:
        """Whether it serves now: asked again and again during a start, so it must not block for long."""

    def data(self) -> tuple[Path, ...]:
        """What a reset deletes."""
