"""The keyring as a signed document: written, signed, read, verified.

The text is a DSSE envelope with the keyring beside it. What is signed is a small statement of the keyring's version and
SHA-256, because a KMS signs at most 4,096 bytes and a root key may live in one:

    {"keyring": {...}, "payload": base64({"keyring_sha256", "version"}),
     "payloadType": "application/vnd.ai-infra.keyring.v1+json", "signatures": [{"keyid", "sig"}]}

where keyring_sha256 is over the canonical JSON (RFC 8785) of "keyring".
`verify_keyring` is the only way from text to a `Keyring` that counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson

from ai_infra.errors import ConfigurationError
from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.exceptions import CanonicalError
from ai_infra.trust.dsse import SignedDocument, SignsMessages, read_document, sign_document
from ai_infra.trust.ed25519 import encode, read_public_key
from ai_infra.trust.exceptions import KeyFormatError, KeyringError
from ai_infra.trust.keyring import (
    Grant,
    Key,
    Keyring,
    Principal,
    Revocation,
    Roots,
    check_keyring,
    check_successor,
)

KEYRING_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.keyring.v1+json"
# A keyring travels in one event, whose body has at most 48 KiB.
MAX_TEXT_BYTES: Final = 47 * 1024


class _Envelope(msgspec.Struct):
    keyring: Any


class _Statement(msgspec.Struct, forbid_unknown_fields=True):
    keyring_sha256: str
    version: int


class _RootsDoc(msgspec.Struct, forbid_unknown_fields=True):
    keys: dict[str, str]
    threshold: int


class _KeyDoc(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    public_key: str
    principal: str
    use: str
    deployed_at: int
    description: str = ""
    not_before: int | None = None
    not_after: int | None = None


class _GrantDoc(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    models: list[str]
    environments: list[str]


class _PrincipalDoc(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    kind: str
    counted: int
    grants: list[_GrantDoc]


class _RevocationDoc(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    revoked_at: int
    reason: str
    positions: dict[str, int]


class _KeyringDoc(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    created_at: int
    roots: _RootsDoc
    keys: list[_KeyDoc]
    principals: list[_PrincipalDoc]
    roles: dict[str, list[str]]
    revocations: list[_RevocationDoc]


def sign_keyring(keyring: Keyring, signers: Iterable[SignsMessages]) -> str:
    """The signed text of a keyring. Raises KeyringError for content that contradicts itself, or too much of it.

    Whether enough roots signed is for `verify_keyring` to say.
    """
    check_keyring(keyring)
    body = _to_document(keyring)
    statement = {"keyring_sha256": sha256_hex(canonical_json(body)), "version": keyring.version}
    envelope = orjson.loads(sign_document(KEYRING_PAYLOAD_TYPE, statement, signers))
    text = canonical_json({**envelope, "keyring": body}).decode()
    if len(text.encode()) > MAX_TEXT_BYTES:
        raise KeyringError(f"The signed keyring has {len(text.encode())} bytes, {MAX_TEXT_BYTES} at most.")
    return text


def verify_keyring(text: str, trusted: Roots | Keyring) -> Keyring:
    """The keyring in `text`, if it is signed as it must be. Raises KeyringError.

    `trusted`: the keyring before (then this must be the next version, signed by thresholds of both), or the pinned
    roots (then it must be signed by thresholds of those and of its own).
    """
    document, keyring = _read(text)
    before = trusted.roots if isinstance(trusted, Keyring) else trusted
    for roots, whose in ((before, "trusted before it"), (keyring.roots, "of its own")):
        signed = document.signed_by(roots.keys)
        if len(signed) < roots.threshold:
            raise KeyringError(
                f"Keyring version {keyring.version} is signed by {len(signed)} of the root keys {whose}; "
                f"{roots.threshold} are needed."
            )
    check_keyring(keyring)
    if isinstance(trusted, Keyring):
        if keyring.version != trusted.version + 1:
            raise KeyringError(f"Expected keyring version {trusted.version + 1}, got {keyring.version}.")
        check_successor(trusted, keyring)
    return keyring


def draft(text: str) -> Keyring:
    """The content of a keyring's text, **unverified**: for tools that write the next version or show one."""
    return _read(text)[1]


def roots_text(roots: Roots) -> str:
    """The file that pins roots, for `roots.json`."""
    return canonical_json(_roots_document(roots)).decode() + "\n"


def read_roots(path: Path) -> Roots:
    """The pinned roots in a file. Raises ConfigurationError where there are none."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_RootsDoc)
        return _roots(document)
    except OSError as error:
        raise ConfigurationError(
            f"The pinned root keys {path} cannot be read: {error.strerror}. `ai-infra keys init` writes them; "
            "AI_INFRA_TRUST_ROOTS says where they are."
        ) from None
    except (msgspec.DecodeError, ValueError, KeyFormatError, KeyringError) as error:
        raise ConfigurationError(f"{path} does not hold root keys: {error}") from None


@lru_cache(maxsize=8)  # each lane has them all, and each is looked at before it is verified
def _read(text: str) -> tuple[SignedDocument, Keyring]:
    """What is signed, and the keyring that it is about; its signatures and its content are not checked yet."""
    if len(text) > MAX_TEXT_BYTES:
        raise KeyringError(f"A keyring's text has at most {MAX_TEXT_BYTES} bytes, this one {len(text)}.")
    try:
        document = read_document(text, KEYRING_PAYLOAD_TYPE)
        statement = msgspec.json.decode(document.payload, type=_Statement)
        envelope = msgspec.json.decode(text, type=_Envelope)
        body = canonical_json(envelope.keyring)
        if sha256_hex(body) != statement.keyring_sha256:
            raise KeyringError("The keyring is not the one that was signed: its SHA-256 differs.")
        keyring = _from_document(body, text)
    except (msgspec.DecodeError, ValueError, RecursionError, KeyFormatError, CanonicalError) as error:
        raise KeyringError(f"Not a keyring: {error}") from None
    if keyring.version != statement.version:
        raise KeyringError(f"The keyring is version {keyring.version}; signed was version {statement.version}.")
    return document, keyring


def _roots_document(roots: Roots) -> dict[str, object]:
    return {"keys": {key_id: encode(key) for key_id, key in roots.keys.items()}, "threshold": roots.threshold}


def _roots(document: _RootsDoc) -> Roots:
    return Roots(
        {key_id: read_public_key(key, f"The root key {key_id}") for key_id, key in document.keys.items()},
        document.threshold,
    )


def _to_document(keyring: Keyring) -> dict[str, object]:
    return {
        "version": keyring.version,
        "created_at": keyring.created_at,
        "roots": _roots_document(keyring.roots),
        "keys": [_key_document(key) for _, key in sorted(keyring.keys.items())],
        "principals": [
            {
                "id": principal.id,
                "kind": principal.kind,
                "counted": int(principal.counted),
                "grants": [
                    {"role": g.role, "models": list(g.models), "environments": list(g.environments)}
                    for g in principal.grants
                ],
            }
            for _, principal in sorted(keyring.principals.items())
        ],
        "roles": {role: sorted(events) for role, events in keyring.roles.items()},
        "revocations": [
            {
                "key": revocation.key,
                "revoked_at": revocation.revoked_at,
                "reason": revocation.reason,
                "positions": {str(lane): index for lane, index in revocation.positions.items()},
            }
            for _, revocation in sorted(keyring.revocations.items())
        ],
    }


def _key_document(key: Key) -> dict[str, object]:
    document: dict[str, object] = {
        "id": key.id,
        "public_key": encode(key.public_key),
        "principal": key.principal,
        "use": key.use,
        "deployed_at": key.deployed_at,
    }
    # What a key does not have is left out: keys stay for ever, and the keyring travels in one event.
    optional = {"description": key.description or None, "not_before": key.not_before, "not_after": key.not_after}
    return document | {name: value for name, value in optional.items() if value is not None}


def _from_document(body: bytes, text: str) -> Keyring:
    doc = msgspec.json.decode(body, type=_KeyringDoc)
    keyring = Keyring(
        version=doc.version,
        created_at=doc.created_at,
        roots=_roots(doc.roots),
        keys={item.id: _key(item) for item in doc.keys},
        principals={item.id: _principal(item) for item in doc.principals},
        roles={role: frozenset(events) for role, events in doc.roles.items()},
        revocations={
            item.key: Revocation(
                item.key, item.revoked_at, item.reason, {_lane(p): index for p, index in item.positions.items()}
            )
            for item in doc.revocations
        },
        text=text,
    )
    # One keyring has one form: nothing may hide in a second spelling of a field, or a second key of one id.
    if canonical_json(_to_document(keyring)) != body:
        raise KeyringError("The keyring is not in canonical form.")
    return keyring


def _lane(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise KeyringError(f"A revocation names the lane {text!r}.")
    return int(text)


def _key(doc: _KeyDoc) -> Key:
    return Key(
        id=doc.id,
        public_key=read_public_key(doc.public_key, f"The public key of {doc.id}"),
        principal=doc.principal,
        use=doc.use,
        not_before=doc.not_before,
        not_after=doc.not_after,
        deployed_at=doc.deployed_at,
        description=doc.description,
    )


def _principal(doc: _PrincipalDoc) -> Principal:
    grants = tuple(Grant(item.role, tuple(item.models), tuple(item.environments)) for item in doc.grants)
    return Principal(doc.id, doc.kind, grants, bool(doc.counted))
