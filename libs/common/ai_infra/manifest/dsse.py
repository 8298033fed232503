"""DSSE v1 envelopes: a payload, its type, and signatures over both.

What a verifier gets back is the very bytes that were verified; nothing is ever parsed again from elsewhere. A keyid is
a hint that anybody can write, so it must never decide whether a signature counts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from ai_infra.events.canonical import canonical_json
from ai_infra.events.statement import pae
from ai_infra.manifest.exceptions import BadEnvelope, BadEnvelopeSignature, StatementTooLarge
from ai_infra.manifest.identity import manifest_signature_id
from ai_infra.manifest.reading import parse_json

IN_TOTO: Final = "application/vnd.in-toto+json"
MAX_SIGNED_BYTES: Final = 4096  # AWS KMS signs Ed25519 over raw messages of at most this length
MAX_ENVELOPE_BYTES: Final = 16 << 10
_MAX_SIGNATURES: Final = 16
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64

Sign = Callable[[bytes], bytes]
"""Message to 64-byte Ed25519 signature; local key, session key or KMS."""


@dataclass(frozen=True, slots=True)
class EnvelopeSignature:
    """A signature and the hint who made it."""

    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed envelope, unverified: its payload must not be used before `verify` has returned it."""

    payload_type: str
    payload: bytes
    signatures: tuple[EnvelopeSignature, ...]

    def to_bytes(self) -> bytes:
        """The envelope as canonical JSON: the form in which it is stored and hashed."""
        return canonical_json(
            {
                "payload": _b64(self.payload),
                "payloadType": self.payload_type,
                "signatures": [{"keyid": item.key_id, "sig": _b64(item.signature)} for item in self.signatures],
            }
        )

    def to_text(self) -> str:
        """The same as text, as it travels in an event."""
        return self.to_bytes().decode()

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of `to_bytes()`."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def signature_id(self) -> str:
        """UUIDv5 of `to_bytes()`: the manifestSignatureId of a registration."""
        return manifest_signature_id(self.to_bytes())

    @classmethod
    def parse(cls, data: bytes | str) -> Envelope:
        """Read an envelope. Other JSON spellings than ours are accepted; nothing in it is trusted yet."""
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        if len(raw) > MAX_ENVELOPE_BYTES:
            raise BadEnvelope(f"an envelope has at most {MAX_ENVELOPE_BYTES} bytes, not {len(raw)}")
        value = parse_json(raw, BadEnvelope, "envelope")
        if not isinstance(value, dict) or not isinstance(value.get("payloadType"), str):
            raise BadEnvelope("expected an object with payload, payloadType and signatures")
        signatures = value.get("signatures")
        if not isinstance(signatures, list) or not 1 <= len(signatures) <= _MAX_SIGNATURES:
            raise BadEnvelope(f"an envelope has 1 to {_MAX_SIGNATURES} signatures")
        return cls(
            value["payloadType"],
            _bytes(value.get("payload"), "payload"),
            tuple(_signature(item) for item in signatures),
        )

    def verify(self, public_key: bytes, *, payload_type: str = IN_TOTO) -> bytes:
        """The payload, verified to be signed by this Ed25519 key (32 raw bytes).

        Raises BadEnvelope for another payload type, BadEnvelopeSignature where no signature is by this key.
        """
        if self.payload_type != payload_type:
            raise BadEnvelope(f"expected a payload of type {payload_type}, got {self.payload_type[:200]!r}")
        if len(public_key) != _KEY_BYTES:
            raise BadEnvelopeSignature(f"an Ed25519 public key is {_KEY_BYTES} bytes, not {len(public_key)}")
        message = pae(self.payload_type, self.payload)
        if any(_verifies(public_key, message, item.signature) for item in self.signatures):
            return self.payload
        hints = ", ".join(repr(item.key_id[:80]) for item in self.signatures)
        raise BadEnvelopeSignature(f"the envelope is not signed by the expected key (it names {hints})")


def sign_envelope(
    payload: bytes, sign: Sign, key_id: str, *, payload_type: str = IN_TOTO, public_key: bytes | None = None
) -> Envelope:
    """Sign a payload. With `public_key` the signature that comes back is verified before it is used.

    Raises StatementTooLarge where the message is longer than a KMS signs.
    """
    message = pae(payload_type, payload)
    if len(message) > MAX_SIGNED_BYTES:
        raise StatementTooLarge(
            f"what is signed has at most {MAX_SIGNED_BYTES} bytes, not {len(message)}: refer to long lists by digest"
        )
    signature = sign(message)
    if len(signature) != _SIGNATURE_BYTES:
        raise BadEnvelopeSignature(f"an Ed25519 signature is {_SIGNATURE_BYTES} bytes, not {len(signature)}")
    if public_key is not None and not _verifies(public_key, message, signature):
        raise BadEnvelopeSignature(f"the signature that came back for key {key_id} does not verify")
    return Envelope(payload_type, payload, (EnvelopeSignature(key_id, signature),))


def signed_size(payload: bytes, payload_type: str = IN_TOTO) -> int:
    """Length of the message that would be signed."""
    return len(pae(payload_type, payload))


def _verifies(public_key: bytes, message: bytes, signature: bytes) -> bool:
    if len(signature) != _SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(public_key).verify(message, signature)
    except BadSignatureError:
        return False
    return True


def _signature(item: Any) -> EnvelopeSignature:
    if not isinstance(item, dict) or not isinstance(item.get("keyid", ""), str):
        raise BadEnvelope("a signature is an object with keyid and sig")
    return EnvelopeSignature(item.get("keyid", ""), _bytes(item.get("sig"), "sig"))


def _bytes(value: Any, name: str) -> bytes:
    """DSSE allows standard and URL-safe base64."""
    if not isinstance(value, str):
        raise BadEnvelope(f"{name} is base64 text")
    try:
        return base64.b64decode(value.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise BadEnvelope(f"{name} is not base64") from None


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
