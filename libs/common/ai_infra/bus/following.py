"""The keyring for what runs beside the lanes: work verifies and signs by it, on threads of its own.

The runtime's own view of the broadcast topics belongs to its loop; this is a second reader, opened when the first work
asks for it. It must never be used to decide: what `decide` may know is in its context.
"""

from __future__ import annotations

import threading
from typing import Final

import structlog

from ai_infra.bus.broadcast import Broadcast
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings
from ai_infra.trust.keyrings import Keyrings

log = structlog.get_logger(__name__)

CATCH_UP_SECONDS: Final = 30.0
FOLLOW_SECONDS: Final = 0.5
LAG_SECONDS: Final = 5.0  # how long one waits for a keyring that somebody else knows already


class Following:
    """Follows the keyring on a thread of its own from the first use until `close`. Thread-safe."""

    def __init__(self, settings: Settings, service: str) -> None:
        self._settings = settings
        self._service = service
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._broadcast: Broadcast | None = None

    @property
    def keyrings(self) -> Keyrings:
        """All versions seen. Raises UnavailableError (retriable) while the broker does not tell them."""
        with self._lock:
            if self._broadcast is None:
                broadcast = Broadcast(self._settings, service=f"{self._service}.work")
                try:
                    broadcast.catch_up(CATCH_UP_SECONDS)
                except BaseException:
                    broadcast.close()
                    raise
                self._broadcast = broadcast
                threading.Thread(target=self._follow, args=(broadcast,), name="keyring", daemon=True).start()
            return self._broadcast.keyrings

    def latest_version(self) -> int:
        """Version of the newest keyring."""
        return self.keyrings.latest_version

    def await_version(self, version: int) -> Keyrings:
        """The same, once this version is among them or a few seconds have passed."""
        keyrings = self.keyrings
        with self._changed:
            self._changed.wait_for(lambda: keyrings.latest_version >= version, LAG_SECONDS)
        return keyrings

    def close(self) -> None:
        """End the thread; it closes its connection."""
        self._stop.set()

    def _follow(self, broadcast: Broadcast) -> None:
        while not self._stop.wait(FOLLOW_SECONDS):
            before = broadcast.keyrings.latest_version
            try:
                broadcast.poll()
            except AiInfraError as error:
                log.warning("keyring not followed", service=self._service, code=error.code, why=str(error))
                continue
            if broadcast.keyrings.latest_version != before:
                with self._changed:
                    self._changed.notify_all()
        broadcast.close()
