"""The places of this process for trainings. A job holds one from its preparation to its end, so that a job that is
said to be running does not stand in a queue.

A place that was reserved and not taken up (the lane has moved to another process) is free again after a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

PATIENCE_SECONDS: Final = 5.0
"""From the end of a preparation to the start of its training: one commit. Where the lane moved to another process in
between, nobody takes the place up, and others wait for it; where the commit took longer, the job is prepared anew."""


class Slots:
    """At most `count` keys hold a place. Thread-safe. `on_expire(key)` is called for one that was never taken up."""

    def __init__(
        self,
        count: int,
        *,
        on_expire: Callable[[str], None] = lambda _: None,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._count = count
        self._on_expire = on_expire
        self._patience = patience
        self._clock = clock
        self._changed = threading.Condition()
        self._held: dict[str, float | None] = {}  # key: when the reservation ends; None while it is in use

    def acquire(self, key: str, cancelled: threading.Event) -> bool:
        """Wait for a place and use it; False when `cancelled` came first. A key that has a place keeps it."""
        with self._changed:
            while not cancelled.is_set():
                self._expire()
                if key in self._held or len(self._held) < self._count:
                    self._held[key] = None
                    return True
                self._changed.wait(0.2)
        return False

    def reserve(self, key: str) -> None:
        """Keep the place of `key` for its next `acquire`, for a while."""
        with self._changed:
            if key in self._held:
                self._held[key] = self._clock() + self._patience

    def release(self, key: str) -> None:
        """Give the place back; no error when there is none."""
        with self._changed:
            self._held.pop(key, None)
            self._changed.notify_all()

    @property
    def used(self) -> int:
        """Places that are taken or reserved."""
        with self._changed:
            return len(self._held)

    def _expire(self) -> None:
        now = self._clock()
        for key in [k for k, until in self._held.items() if until is not None and until < now]:
            del self._held[key]
            self._on_expire(key)
