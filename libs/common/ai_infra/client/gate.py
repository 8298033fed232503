"""The client's view of who may say what: the published keyring, followed, and the verdict on each record it reads.

Safe to use from several threads. What does not verify never reaches who asked for events.
"""

from __future__ import annotations

import math
import threading
import time
from typing import Any, Final

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.decision import PolicyView
from ai_infra.events.event import Event, Record
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import AwaitKeyring
from ai_infra.trust.keyring import Keyring

FOLLOW_SECONDS: Final = 1.0  # how often the broadcast topics are looked at while records are read
CATCH_UP_SECONDS: Final = 15.0


class Gate:
    """Keyring, policy and verification for one client."""

    def __init__(self, settings: Settings, timeout: float = CATCH_UP_SECONDS) -> None:
        """Reads the broadcast topics whole. Raises UnavailableError where no broker or no keyring is there."""
        self._lock = threading.Lock()
        self._broadcast = Broadcast(settings, service="client")
        self._followed = time.monotonic()
        self._looked = 0.0  # when the last look to the ends of the broadcast topics began
        try:
            self._broadcast.catch_up(timeout)
        except BaseException:
            self._broadcast.close()
            raise

    @property
    def keyring(self) -> Keyring:
        """The newest keyring known."""
        return self._broadcast.keyrings.latest

    @property
    def policy(self) -> PolicyView:
        """The newest policy known."""
        return self._broadcast.policy

    def verify(self, record: Record, taken: float = math.inf) -> Event[Any]:
        """The event in a record. Raises TrustError or EventError.

        `taken`: when it was there already, by time.monotonic; without it, only a look from now on serves it.
        """
        with self._lock:
            self._follow()
            verifier = self._broadcast.verifier
            try:
                return verifier.verify(record)
            except AwaitKeyring:
                # Who signed with a keyring had read it: it is on its topic by now, or nowhere. One look serves all that
                # was taken before it, so that junk which names none that exists costs no look for each record.
                if self._looked <= taken:
                    looked = time.monotonic()
                    self._broadcast.catch_up(CATCH_UP_SECONDS)
                    self._looked = looked
                return verifier.verify(record, caught_up=True)

    def follow(self) -> None:
        """Takes in new keyrings and policies, at most once a second."""
        with self._lock:
            self._follow()

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._broadcast.close()

    def _follow(self) -> None:
        now = time.monotonic()
        if now - self._followed >= FOLLOW_SECONDS:
            self._followed = now
            self._broadcast.poll()
