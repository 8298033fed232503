"""Do the configured keys sign? Opens each key that this process is configured to use, has it sign once, and says how
long that took. What is signed is a fixed text that is no document; nothing is published."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings
from ai_infra.trust.ed25519 import verifies
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.open import (
    PROBE,
    open_audit_signer,
    open_chain_signer,
    open_client_signer,
    open_manifest_signer,
    open_promotion_signer,
    open_service_signer,
)
from ai_infra.trust.signers import Signer


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying one key. `error` is None where it signed."""

    purpose: str
    key_id: str | None
    public_key: str | None
    milliseconds: float | None
    error: str | None


def try_keys(settings: Settings, keyring: Keyring | None, services: tuple[str, ...]) -> list[Trial]:
    """Tries the audit, manifest, promotion and chain keys, the client's own, and those of `services`."""
    purposes: dict[str, Callable[[], Signer]] = {
        "audit": lambda: open_audit_signer(settings, keyring),
        "manifest": lambda: open_manifest_signer(settings, keyring),
        "promotion": lambda: open_promotion_signer(settings, keyring),
        "chain": lambda: open_chain_signer(settings, keyring),
        "client": lambda: open_client_signer(settings, None, keyring),
    }
    for service in services:
        purposes[service] = lambda service=service: open_service_signer(settings, service, keyring)  # type: ignore[misc]
    return [_try(purpose, opened) for purpose, opened in purposes.items()]


def try_key(settings: Settings, key_id: str, keyring: Keyring | None) -> Trial:
    """Tries one private key at hand, by its id."""
    return _try(key_id, lambda: open_client_signer(settings, key_id, keyring))


def _try(purpose: str, opened: Callable[[], Signer]) -> Trial:
    started = time.perf_counter()
    try:
        signer = opened()
        good = verifies(PROBE, signer.sign(PROBE), signer.public_key)
    except AiInfraError as error:
        return Trial(purpose, None, None, None, str(error))
    spent = (time.perf_counter() - started) * 1000
    problem = None if good else "The signature does not verify."
    return Trial(purpose, signer.key_id, signer.public_key.hex(), round(spent, 1), problem)
