"""Ed25519 as this system uses it: raw 32-byte keys, 64-byte signatures, over messages of at most 4,096 bytes.

One place for reading keys in the forms that people have them in. Errors never carry key material.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from typing import Final

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from ai_infra.trust.exceptions import KeyFormatError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
# What AWS KMS signs as a RAW message; kept everywhere, so that any key can move into a KMS.
MAX_MESSAGE_BYTES: Final = 4096

# RFC 8410: the DER before the 32 key bytes is the same for every Ed25519 key.
_PKCS8_PREFIX: Final = bytes.fromhex("302e020100300506032b657004220420")
_SPKI_PREFIX: Final = bytes.fromhex("302a300506032b6570032100")


def new_seed() -> bytes:
    """A fresh private key (32 random bytes)."""
    return secrets.token_bytes(KEY_BYTES)


def public_of(seed: bytes) -> bytes:
    """Public key of a private one."""
    return crypto_sign_seed_keypair(seed)[0]


def secret_of(seed: bytes) -> bytes:
    """The 64-byte secret (seed and public key) that `sign` takes: computed once per key."""
    return crypto_sign_seed_keypair(seed)[1]


def sign(message: bytes, secret: bytes) -> bytes:
    """Signature of a message by the 64-byte secret of `secret_of`."""
    return crypto_sign(message, secret)[:SIGNATURE_BYTES]


def verifies(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether the signature is this key's over this message."""
    if len(signature) != SIGNATURE_BYTES or len(public_key) != KEY_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public_key)
    except CryptoError:
        return False
    return True


def encode(data: bytes) -> str:
    """Base64, standard alphabet, padded."""
    return base64.b64encode(data).decode()


def decode(text: str, what: str) -> bytes:
    """Base64, standard alphabet; raises KeyFormatError that names `what` and not its value."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise KeyFormatError(f"{what} is not base64.") from None


def read_private_key(text: str, what: str) -> bytes:
    """The seed in base64 of 32 bytes, of 64 (seed and public key, as Go writes them), or PEM PKCS#8."""
    der = _pem(text, "PRIVATE KEY", what)
    if der is not None:
        if len(der) != len(_PKCS8_PREFIX) + KEY_BYTES or not der.startswith(_PKCS8_PREFIX):
            raise KeyFormatError(f"{what} is PEM, but not an unencrypted Ed25519 private key (PKCS#8).")
        return der[len(_PKCS8_PREFIX) :]
    data = decode(text, what)
    if len(data) == KEY_BYTES:
        return data
    if len(data) == 2 * KEY_BYTES:
        if public_of(data[:KEY_BYTES]) != data[KEY_BYTES:]:
            raise KeyFormatError(f"{what} has 64 bytes, whose second half is not the public key of its first half.")
        return data[:KEY_BYTES]
    raise KeyFormatError(
        f"{what} has {len(data)} bytes. An Ed25519 private key has 32 (the seed) or 64 (seed and public key)."
    )


def read_public_key(text: str, what: str) -> bytes:
    """A public key in base64 of 32 raw bytes, of DER (SubjectPublicKeyInfo), or PEM."""
    der = _pem(text, "PUBLIC KEY", what)
    data = decode(text, what) if der is None else der
    if len(data) == len(_SPKI_PREFIX) + KEY_BYTES and data.startswith(_SPKI_PREFIX):
        data = data[len(_SPKI_PREFIX) :]
    if len(data) != KEY_BYTES:
        raise KeyFormatError(f"{what} is not an Ed25519 public key (32 bytes in base64, or PEM).")
    return data


def public_key_pem(public_key: bytes) -> str:
    """PEM (SubjectPublicKeyInfo) of a raw public key."""
    return f"-----BEGIN PUBLIC KEY-----\n{encode(_SPKI_PREFIX + public_key)}\n-----END PUBLIC KEY-----\n"


def _pem(text: str, label: str, what: str) -> bytes | None:
    begin, end = f"-----BEGIN {label}-----", f"-----END {label}-----"
    if "-----BEGIN" not in text:
        return None
    if begin not in text or end not in text:
        raise KeyFormatError(f"{what} is PEM, but not a {label}.")
    return decode(text.split(begin, 1)[1].split(end, 1)[0], what)
