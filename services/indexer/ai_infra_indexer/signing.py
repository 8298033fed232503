"""Which of the log's own keys sign while it runs, through rotations and revocations.

A row of the chain is judged by the keyring that is in force where it is entered, so the chain key is chosen by that:
what was said before a rotation takes the old key, however late it is sequenced. A checkpoint is judged by the newest
keyring that it covers, and a key that is known to be revoked signs none any more, wherever its revocation has got to.
Where no key that may sign is at hand nothing is signed: the indexer stands still and says so until one is, which takes
no restart where the new key lies in the keys directory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from ai_infra.errors import ConfigurationError, UnavailableError
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.trust.exceptions import KeyFormatError
from ai_infra.trust.keyring import AUDIT, CHAIN, Keyring
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import open_audit_signer, open_chain_signer
from ai_infra.trust.signers import Signer
from ai_infra_indexer.exceptions import IndexerError

log = structlog.get_logger(__name__)

_OPEN: Final[dict[str, Callable[[Settings, Keyring], Signer]]] = {AUDIT: open_audit_signer, CHAIN: open_chain_signer}
_SETTING: Final = {AUDIT: "AUDIT_SIGNING_KMS_KEY_ID", CHAIN: "AI_INFRA_CHAIN_KEY"}


class NoStandingKey(IndexerError, UnavailableError):
    """No key at hand may sign this now. It is asked for again, so it is enough to bring one."""

    code = "no_standing_key"


class LogKeys:
    """The audit key and the chain key of this process. Safe to use from several threads."""

    def __init__(self, settings: Settings, keyrings: Keyrings) -> None:
        """`keyrings`: those that this process follows. Raises what opening a key raises."""
        self._settings = settings
        self._keyrings = keyrings
        latest = keyrings.latest
        self._opened: dict[str, list[Signer]] = {use: [open_key(settings, latest)] for use, open_key in _OPEN.items()}
        for use in _OPEN:
            metrics.INDEXER_KEY_STANDS.labels(use).set(1)

    def chain(self, keyring: Keyring) -> Signer:
        """Signs rows that are entered where this keyring is in force. Raises NoStandingKey, SigningUnavailable."""
        return self._standing(CHAIN, keyring)

    def audit(self, version: int) -> Signer:
        """Signs what covers this version of the keyring and no newer one. Raises as `chain` does."""
        latest = self._keyrings.latest
        if version > latest.version:
            raise NoStandingKey(f"version {version} of the keyring is in the lane, and not read by this process yet")
        covered = self._keyrings.get(version)
        if covered is not None and covered is not latest:
            # By what the lane says up to here, where that key still counts today.
            with suppress(NoStandingKey):
                signer = self._standing(AUDIT, covered)
                if signer.key_id not in latest.revocations:
                    return signer
        return self._standing(AUDIT, latest)

    def newest(self) -> Signer:
        """The audit key by all that this process knows, for what is of no single lane."""
        return self._standing(AUDIT, self._keyrings.latest)

    def _standing(self, use: str, keyring: Keyring) -> Signer:
        opened = self._opened[use]
        for signer in opened:
            if _stands(signer, use, keyring):
                metrics.INDEXER_KEY_STANDS.labels(use).set(1)
                return signer
        try:
            signer = _OPEN[use](self._settings, keyring)
        except (ConfigurationError, KeyFormatError) as error:
            metrics.INDEXER_KEY_STANDS.labels(use).set(0)
            had = ", ".join(s.key_id for s in opened)
            raise NoStandingKey(
                f"nothing is signed: the {use} key {had} is revoked in version {keyring.version} of the keyring, or "
                f"not in it, and no other is at hand. Make one with `ai-infra keys new ID --use {use}`, or set "
                f"{_SETTING[use]} to one that counts there and start the indexer anew ({error})"
            ) from error
        self._opened[use] = [signer, *opened]
        metrics.INDEXER_KEY_STANDS.labels(use).set(1)
        log.warning("another key signs from here on", use=use, key=signer.key_id, keyring=keyring.version)
        return signer


def _stands(signer: Signer, use: str, keyring: Keyring) -> bool:
    return keyring.key_of(signer.key_id, use) is not None and signer.key_id not in keyring.revocations
