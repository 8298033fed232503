"""The registry's signature over a manifest: `{manifestSignatureId, signerId, signature, ts}` and its envelope.

Signed with the manifest key, after everything below it has been verified: artifact, manifest, provenance. The process
that runs foreign code never holds that key.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from ai_infra.errors import AiInfraError
from ai_infra.events.avro import rfc3339
from ai_infra.events.lanes import MODEL_NAME
from ai_infra.manifest.dsse import Envelope, Sign
from ai_infra.manifest.exceptions import BadStatement
from ai_infra.manifest.reading import SHA256_HEX, Fields
from ai_infra.manifest.statement import Statement, Subject, open_statement

PREDICATE_TYPE: Final = "urn:ai-infra:predicate:registration:v1"
_ARTIFACT: Final = "artifact"
_MANIFEST: Final = "manifest"
_MAX_VERSION: Final = 2**31 - 1
_REMEMBERED: Final = 256  # a replay that looks for an order of hearing reads the same few thousands of times


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the registry states. `produced_event_id` is the artifact.produced event that it answers."""

    artifact_id: str
    model: str
    version: int
    artifact_sha256: str
    artifact_bytes: int
    manifest_sha256: str
    provenance_sha256: str
    input_checksum: str
    builder_id: str
    produced_event_id: str
    keyring_version: int
    rules: str
    registered_at: datetime

    def statement(self) -> Statement:
        """The in-toto statement; subjects are the artifact and its manifest."""
        return Statement(
            (Subject(_ARTIFACT, self.artifact_sha256), Subject(_MANIFEST, self.manifest_sha256)),
            PREDICATE_TYPE,
            {
                "artifact_id": self.artifact_id,
                "model": self.model,
                "version": self.version,
                "artifact_bytes": self.artifact_bytes,
                "provenance_sha256": self.provenance_sha256,
                "input_checksum": self.input_checksum,
                "builder_id": self.builder_id,
                "produced_event_id": self.produced_event_id,
                "keyring_version": self.keyring_version,
                "rules": self.rules,
                "registered_at": rfc3339(self.registered_at),
            },
        )

    @classmethod
    def read(cls, statement: Statement) -> Registration:
        """From a verified statement; raises BadStatement."""
        fields = Fields(statement.predicate, BadStatement, "registration")
        registration = cls(
            artifact_id=fields.text("artifact_id"),
            model=fields.text("model", MODEL_NAME),
            version=fields.integer("version", 1, _MAX_VERSION),
            artifact_sha256=statement.subject(_ARTIFACT),
            artifact_bytes=fields.integer("artifact_bytes"),
            manifest_sha256=statement.subject(_MANIFEST),
            provenance_sha256=fields.text("provenance_sha256", SHA256_HEX),
            input_checksum=fields.text("input_checksum", SHA256_HEX),
            builder_id=fields.text("builder_id"),
            produced_event_id=fields.text("produced_event_id"),
            keyring_version=fields.integer("keyring_version"),
            rules=fields.text("rules"),
            registered_at=fields.time("registered_at"),
        )
        fields.end()
        return registration


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestSignature:
    """A signed registration, as it goes into artifact.registered. `signature` is standard base64 of 64 bytes."""

    manifest_signature_id: str
    signer_id: str
    signature: str
    ts: datetime
    envelope: str


def sign_registration(
    registration: Registration, sign: Sign, signer_id: str, *, public_key: bytes | None = None
) -> ManifestSignature:
    """Sign with the manifest key. The same registration gives the same signature and id again (Ed25519)."""
    envelope = registration.statement().sign(sign, signer_id, public_key=public_key)
    return ManifestSignature(
        manifest_signature_id=envelope.signature_id,
        signer_id=signer_id,
        signature=base64.b64encode(envelope.signatures[0].signature).decode(),
        ts=registration.registered_at,
        envelope=envelope.to_text(),
    )


def open_registration(
    envelope: str, public_key: bytes, *, expected: Mapping[str, object] | None = None
) -> Registration:
    """Verify a registration's envelope (its text, as in the event) against the manifest key, and read it.

    `expected`: fields that must have these values, e.g. `{"artifact_sha256": …, "version": 3}`; a difference raises
    BadStatement, as does an envelope in another spelling than ours (its id would not be the one that was signed for).
    """
    parsed = Envelope.parse(envelope)
    registration = Registration.read(open_statement(parsed, public_key, PREDICATE_TYPE))
    if parsed.to_text() != envelope:
        raise BadStatement("a registration's envelope is canonical JSON: its id is a hash of these bytes")
    for name, value in (expected or {}).items():
        found = getattr(registration, name)
        if found != value:
            raise BadStatement(f"the registration is of {name} {found}, expected {value}")
    return registration


@lru_cache(maxsize=_REMEMBERED)
def unverified_registration(envelope: str) -> Registration | None:
    """What a registration's envelope states, unverified: to know where to look. None for what cannot be read."""
    try:
        return Registration.read(Statement.parse(Envelope.parse(envelope).payload, PREDICATE_TYPE))
    except AiInfraError:
        return None
