"""The chain key's certificate: the audit key says that this key signs the rows of the Kernel's chain.

The chain key is held in memory (rows need thousands of signatures a second) and lives long (it is one entry in the
signers file). The audit key, which stays in a KMS, vouches for it once, here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from ai_infra.trust.dsse import SignsMessages, read_document, sign_document
from ai_infra.trust.ed25519 import encode, read_public_key
from ai_infra.trust.exceptions import BadCertificate, KeyFormatError
from ai_infra.trust.keyring import AUDIT, Keyring

CERTIFICATE_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.chain-key.v1+json"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    chain_key: str
    issued_at: int
    issuer: str
    public_key: str
    purpose: str


@dataclass(frozen=True, slots=True)
class ChainCertificate:
    """A verified certificate. `issued_at`: ms since the epoch."""

    chain_key: str
    public_key: bytes
    issuer: str
    issued_at: int


def certify_chain_key(audit: SignsMessages, chain_key: str, public_key: bytes, *, issued_at: int) -> str:
    """The certificate's text: a DSSE envelope, signed by the audit key."""
    payload = {
        "chain_key": chain_key,
        "issued_at": issued_at,
        "issuer": audit.key_id,
        "public_key": encode(public_key),
        "purpose": "rows of audit_events",
    }
    return sign_document(CERTIFICATE_PAYLOAD_TYPE, payload, [audit])


def verify_chain_certificate(text: str, keyring: Keyring) -> ChainCertificate:
    """The certificate in `text`, if an audit key of the keyring signed it. Raises BadCertificate."""
    try:
        document = read_document(text, CERTIFICATE_PAYLOAD_TYPE)
        doc = msgspec.json.decode(document.payload, type=_Document)
        public_key = read_public_key(doc.public_key, "The chain key")
    except (KeyFormatError, msgspec.DecodeError, ValueError) as error:
        raise BadCertificate(f"Not a chain key's certificate: {error}") from None
    issuer = keyring.key_of(doc.issuer, AUDIT)
    if issuer is None:
        raise BadCertificate(f"The certificate is by {doc.issuer!r}, which is no audit key of the keyring.")
    if not document.signed_by({issuer.id: issuer.public_key}):
        raise BadCertificate(f"The certificate is not signed by {issuer.id}.")
    if not issuer.lives_at(doc.issued_at):
        raise BadCertificate(f"The certificate was issued when {issuer.id} did not count.")
    revocation = keyring.revocations.get(issuer.id)
    if revocation is not None and doc.issued_at >= revocation.revoked_at:
        raise BadCertificate(f"The certificate was issued after {issuer.id} was revoked.")
    return ChainCertificate(doc.chain_key, public_key, doc.issuer, doc.issued_at)
