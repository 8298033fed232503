"""All versions of the keyring that a process, or a lane, has seen, in their order.

A process has one, fed by the broadcast topic; a lane of the log has its own, fed by what was entered there. A version
is accepted once: after the one before it, or as the first, by the pinned roots.
"""

from __future__ import annotations

import threading
from dataclasses import replace

from ai_infra.trust.exceptions import KeyringConflict, KeyringError
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra.trust.keyring_document import draft, verify_keyring


class Keyrings:
    """Verified keyrings by version. Safe to use from several threads."""

    def __init__(self, roots: Roots) -> None:
        self.roots = roots
        self._versions: dict[int, Keyring] = {}
        self._latest: Keyring | None = None
        self._lock = threading.Lock()

    @property
    def latest(self) -> Keyring:
        """The newest version. Raises KeyringError where there is none yet."""
        if self._latest is None:
            raise KeyringError(
                "No keyring is known yet. `ai-infra keys init` makes the first and publishes it on signer.changed."
            )
        return self._latest

    @property
    def latest_version(self) -> int:
        """Number of the newest version, 0 where there is none yet."""
        return self._latest.version if self._latest is not None else 0

    def get(self, version: int) -> Keyring | None:
        """A version, if it is known."""
        return self._versions.get(version)

    def accept(self, text: str) -> Keyring:
        """Take in a keyring's text; taking in a known one again changes nothing.

        Raises KeyringError for one that does not verify; KeyringConflict for one that skips a version, or that
        differs from the known one of its version.
        """
        keyring = self.verified(text)
        with self._lock:
            known = self._versions.setdefault(keyring.version, keyring)
            if self._latest is None or keyring.version > self._latest.version:
                self._latest = keyring
            return known

    def verified(self, text: str) -> Keyring:
        """The keyring in `text` as `accept` would take it, without taking it in. Raises as `accept` does."""
        content = draft(text)
        version = content.version
        known = self._versions.get(version)
        if known is not None:
            if replace(known, text="") != replace(content, text=""):  # the same content may be signed by other roots
                raise KeyringConflict(
                    f"Two different keyrings carry version {version} (SHA-256 of the known one: {known.sha256})."
                )
            return known
        if self._latest is None:
            return verify_keyring(text, self.roots)
        if version != self._latest.version + 1:
            raise KeyringConflict(
                f"Keyring version {version} does not follow version {self._latest.version}; "
                f"expected {self._latest.version + 1}."
            )
        return verify_keyring(text, self._latest)
