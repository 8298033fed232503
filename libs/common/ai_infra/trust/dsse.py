"""DSSE envelopes for the few documents that keys sign directly: keyring, chain-key certificate.

Text is signed as it was written: a reader verifies the payload's bytes and parses those, and never serialises again.
(Manifests and decisions have envelopes of their own, in `ai_infra.manifest`.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from ai_infra.events.canonical import canonical_json
from ai_infra.events.statement import pae
from ai_infra.trust.ed25519 import decode, encode, verifies
from ai_infra.trust.exceptions import KeyFormatError


class SignsMessages(Protocol):
    """What an envelope needs of a signer."""

    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SignedDocument:
    """A payload and the signatures over it; `payload` is exactly what was signed."""

    payload_type: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def signed_by(self, keys: Mapping[str, bytes]) -> set[str]:
        """Ids of those of `keys` whose signature is on it. Two ids of one public key count once."""
        message = pae(self.payload_type, self.payload)
        good: dict[bytes, str] = {}
        for key_id, signature in self.signatures:
            public_key = keys.get(key_id)
            if public_key is not None and public_key not in good and verifies(message, signature, public_key):
                good[public_key] = key_id
        return set(good.values())


def sign_document(payload_type: str, payload: object, signers: Iterable[SignsMessages]) -> str:
    """An envelope (canonical JSON) over the canonical JSON of `payload`."""
    body = canonical_json(payload)
    message = pae(payload_type, body)
    signatures = [{"keyid": signer.key_id, "sig": encode(signer.sign(message))} for signer in signers]
    return canonical_json({"payload": encode(body), "payloadType": payload_type, "signatures": signatures}).decode()


def read_document(text: str, payload_type: str) -> SignedDocument:
    """Reads an envelope; its signatures are not checked yet. Raises KeyFormatError."""
    try:
        outer: Any = orjson.loads(text)
        found = outer["payloadType"]
        payload = decode(outer["payload"], "The envelope's payload")
        signatures = tuple((str(item["keyid"]), decode(item["sig"], "A signature")) for item in outer["signatures"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise KeyFormatError(f"Not a DSSE envelope ({type(error).__name__}).") from None
    if found != payload_type:
        raise KeyFormatError(f"Expected a document of type {payload_type}, got {found!r}.")
    return SignedDocument(payload_type, payload, signatures)
