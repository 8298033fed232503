"""Signs a registration with the manifest key, once everything below it has been verified.

It signs nothing but registrations, and only with a key that the keyring names as a manifest key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ai_infra.errors import ConfigurationError
from ai_infra.manifest.registration import sign_registration
from ai_infra.telemetry import metrics
from ai_infra.trust.keyring import MANIFEST, Keyring
from ai_infra.trust.signers import Signer
from ai_infra_registry.state import Signature, ToSign


@dataclass(frozen=True, slots=True)
class Pen:
    """`signer` opens the manifest key; `keyring` gives the newest keyring."""

    signer: Callable[[], Signer]
    keyring: Callable[[], Keyring]

    def sign(self, wanted: ToSign) -> Signature:
        """The signature. Raises SigningUnavailable (worth another try), or ConfigurationError for a wrong key."""
        signer = self.signer()
        key = self.keyring().key_of(signer.key_id, MANIFEST)
        if key is None or key.public_key != signer.public_key:
            raise ConfigurationError(
                f"The keyring has no manifest key {signer.key_id} with the public key of the one that is configured: "
                "nobody could verify its signatures. Set MANIFEST_SIGNING_KMS_KEY_ID and MANIFEST_SIGNER_KID."
            )
        signed = sign_registration(wanted.registration, signer.sign, signer.key_id, public_key=signer.public_key)
        waited = max(0.0, time.time() - wanted.appended.timestamp())
        metrics.ARTIFACT_REGISTRATION_LATENCY.labels("registered").observe(waited)
        return Signature(
            id=signed.manifest_signature_id,
            signer_id=signed.signer_id,
            signature=signed.signature,
            ts=signed.ts,
            envelope=signed.envelope,
        )
