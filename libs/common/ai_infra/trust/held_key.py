"""A long-lived key that a service signs documents with, opened by the published keyring when the service starts.

The keyring that counts is the one that the process follows: a machine may have nothing but the pinned roots. With
REQUIRE_KMS a KMS that does not answer ends the start; without it, the key is opened by the first who needs it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from ai_infra.settings import Settings
from ai_infra.trust.exceptions import SigningUnavailable
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.signers import Signer

log = structlog.get_logger(__name__)


class HeldKey:
    """`opener(settings, keyring)` is one of `ai_infra.trust.open`. Safe to use from several threads."""

    def __init__(self, settings: Settings, opener: Callable[[Settings, Keyring], Signer]) -> None:
        self._settings = settings
        self._opener = opener
        self._keyrings: Keyrings | None = None
        self._signer: Signer | None = None
        self._lock = threading.Lock()

    def learn(self, keyrings: Keyrings) -> None:
        """At each start, with the keyrings that the process follows. Raises ConfigurationError for a key that is not
        there or not the keyring's; SigningUnavailable with REQUIRE_KMS."""
        with self._lock:
            self._keyrings, self._signer = keyrings, None
            try:
                self._signer = self._opener(self._settings, keyrings.latest)
            except SigningUnavailable as error:
                if self._settings.guards.require_kms:
                    raise
                log.warning("a key is opened later", why=str(error))

    def signer(self) -> Signer:
        """The key. Raises SigningUnavailable while its KMS is away."""
        with self._lock:
            if self._signer is None:
                if self._keyrings is None:
                    raise SigningUnavailable("No keyring is known yet, so no key is open.")
                self._signer = self._opener(self._settings, self._keyrings.latest)
            return self._signer
