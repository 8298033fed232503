"""A private key at rest that only a KMS can open: the chain key, which must be in memory to sign thousands of rows.

Signing services sign, and few of them decrypt, so the key that wraps is made from a signature: Ed25519 is
deterministic (RFC 8032), so only who may have the audit key sign this one message can compute it again.

    message = PAE("application/vnd.ai-infra.wrap.v1+json", {"key", "nonce", "wrapped_by"})
    key     = BLAKE2b-256(signature, person "ai-infra wrap 1")
    sealed  = XSalsa20-Poly1305(seed, key, nonce)

The nonce is fresh for each file, so no two files share a message or a key. A signer whose signatures differ from time
to time (some HSMs mix in randomness) is refused when wrapping.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path
from typing import Final

import msgspec
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from ai_infra.errors import ConfigurationError
from ai_infra.events.canonical import canonical_json
from ai_infra.events.statement import pae
from ai_infra.trust.ed25519 import KEY_BYTES, decode, encode, public_of
from ai_infra.trust.exceptions import KeyFormatError
from ai_infra.trust.signers import LocalSigner, Signer

WRAP_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.wrap.v1+json"
SCHEME: Final = "wrapped"


class _Wrapped(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    nonce: str
    public_key: str
    sealed: str
    wrapped_by: str


def wrap(key_id: str, seed: bytes, kms: Signer) -> str:
    """The file's text. Asks `kms` for two signatures. Raises ConfigurationError where they differ."""
    nonce = secrets.token_bytes(SecretBox.NONCE_SIZE)
    box = _box(key_id, nonce, kms)
    if bytes(box) != bytes(_box(key_id, nonce, kms)):
        raise ConfigurationError(
            f"{kms.key_id} gives a different signature each time, so nothing that it wraps could be opened again. "
            "Use a key whose signatures are deterministic (RFC 8032)."
        )
    document = _Wrapped(
        key=key_id,
        nonce=encode(nonce),
        public_key=encode(public_of(seed)),
        sealed=encode(box.encrypt(seed, nonce).ciphertext),
        wrapped_by=kms.key_id,
    )
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def unwrap(path: Path, kms: Signer) -> LocalSigner:
    """The key in a file, opened by the key that wrapped it. Raises ConfigurationError, KeyFormatError."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Wrapped)
    except OSError as error:
        raise ConfigurationError(f"The wrapped key {path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, ValueError):
        raise KeyFormatError(f"{path} does not hold a wrapped key.") from None
    nonce, sealed = decode(document.nonce, f"The nonce in {path}"), decode(document.sealed, f"The key in {path}")
    try:
        seed = _box(document.key, nonce, kms, document.wrapped_by).decrypt(sealed, nonce)
    except (CryptoError, ValueError):
        raise KeyFormatError(
            f"{path} was wrapped by {document.wrapped_by} and {kms.key_id} does not open it, or it was touched. "
            "After a rotation of the audit key, rotate the wrapped one: `ai-infra keys rotate KEY --wrap`."
        ) from None
    if len(seed) != KEY_BYTES or encode(public_of(seed)) != document.public_key:
        raise KeyFormatError(f"{path} holds another key than it says.")
    return LocalSigner(document.key, seed)


def _box(key_id: str, nonce: bytes, kms: Signer, wrapped_by: str | None = None) -> SecretBox:
    statement = {"key": key_id, "nonce": encode(nonce), "wrapped_by": wrapped_by or kms.key_id}
    signature = kms.sign(pae(WRAP_PAYLOAD_TYPE, canonical_json(statement)))
    return SecretBox(hashlib.blake2b(signature, digest_size=32, person=b"ai-infra wrap 1").digest())
