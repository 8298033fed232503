"""What a service declares to the runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ai_infra.bus.decision import Context, Decision, StateView, Trigger, WorkItem
from ai_infra.errors import ConfigurationError
from ai_infra.trust.keyrings import Keyrings

Decide = Callable[[StateView, Any, Context], Decision]

QUICK_GRACE_SECONDS: Final = 0.25  # how long a batch stays open for quick work: well under the 500 ms of the SLO


@dataclass(frozen=True, slots=True)
class WorkKind:
    """A kind of work: `run(item) -> result` on a thread of its own, at most `slots` at once in this process.

    `quick` work is awaited for a short grace while its batch is open, so that trigger and result are decided in one
    transaction; anything else is remembered as pending and comes back in a later one. `args` and `result` are frozen
    dataclasses (JSON-encodable by msgspec): args are kept in state, and a pending result is decided only once.
    """

    run: Callable[[WorkItem], Any]
    args: type
    result: type
    slots: int = 2
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service is what it listens to, what it says, how it decides and what it does to the world."""

    name: str
    listens: tuple[type, ...]
    says: tuple[type, ...]
    decide: Decide
    rules: str
    records: tuple[type, ...] = ()
    work: Mapping[str, WorkKind] = field(default_factory=dict)
    checks: Mapping[str, Callable[[], str | None]] = field(default_factory=dict)
    """Readiness checks of its own: name to a function that returns None when well, else why not."""
    learn_keyrings: Callable[[Keyrings], None] | None = None
    """Called once, before anything is decided, with the keyrings that the process follows: for a service that verifies
    envelopes of the manifest or promotion key. `Keyrings.get(context.keyring)` never changes, so it may be asked by
    `decide` too."""

    def __post_init__(self) -> None:
        names = [t.__name__ for t in self.records]
        if len(set(names)) != len(names):
            raise ConfigurationError(
                f"service {self.name}: two state record types share a name among {sorted(names)}; rename one"
            )


__all__ = [
    "QUICK_GRACE_SECONDS",
    "Context",
    "Decide",
    "Decision",
    "Service",
    "StateView",
    "Trigger",
    "WorkItem",
    "WorkKind",
]
