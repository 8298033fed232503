"""Which keys may sign the log's own notes, its checkpoints and heads, by a keyring. Pure."""

from __future__ import annotations

from ai_infra.tlog.note import VerifierKey
from ai_infra.trust.keyring import AUDIT, Keyring


def audit_keys(keyring: Keyring, origin: str, *, standing: bool = False) -> list[VerifierKey]:
    """The keys that may sign notes of this origin; `standing`: only those that are not revoked.

    A revocation counts against every note that could have been signed after it, whatever the note says of its age:
    who has stolen the key can sign one that looks old.
    """
    keys = [key for key in keyring.keys.values() if key.use == AUDIT]
    return [VerifierKey(origin, k.public_key) for k in keys if not standing or k.id not in keyring.revocations]
