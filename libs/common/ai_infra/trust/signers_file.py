"""The signers file of the Kernel's verifiers: public keys by signer id, in the fields that both of them read.

Only keys that sign what those verifiers see: chain keys (the rows), audit keys (checkpoints, certificates), manifest
and promotion keys. Retired keys stay, so that old rows stay verifiable.
"""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from ai_infra.trust.ed25519 import encode, public_key_pem
from ai_infra.trust.keyring import AUDIT, CHAIN, MANIFEST, PROMOTION, Keyring

USES = (CHAIN, AUDIT, MANIFEST, PROMOTION)


def signers_file(keyring: Keyring) -> str:
    """The file's text, indented for people."""
    signers = [
        {
            "signerId": key.id,
            "signer_kid": key.id,
            "algorithm": "ed25519",
            "publicKey": encode(key.public_key),
            "public_key_pem": public_key_pem(key.public_key),
            "deployedAt": _rfc3339(key.deployed_at),
            "description": key.description or f"{key.use} key",
        }
        for key in sorted(
            keyring.keys.values(), key=lambda key: (USES.index(key.use) if key.use in USES else 9, key.id)
        )
        if key.use in USES
    ]
    return msgspec.json.format(msgspec.json.encode({"signers": signers}), indent=2).decode() + "\n"


def _rfc3339(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
