"""A person's yes or no to a promotion, signed with their own key and verifiable offline.

It names what it is about so exactly that it can be used for nothing else: artifact and manifest by digest, what must be
serving, the policy, the request by the id of its event (the nonce). This module verifies that a person said it; whether
it counts (distinct people, not the requester, not expired, not consumed, not revoked) is for the one who counts, by the
decision's own time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from ai_infra.events.avro import rfc3339
from ai_infra.manifest.dsse import Envelope, Sign
from ai_infra.manifest.exceptions import BadStatement
from ai_infra.manifest.reading import SHA256_HEX, Fields
from ai_infra.manifest.statement import Statement, Subject, open_statement

PREDICATE_TYPE: Final = "urn:ai-infra:predicate:approval:v1"
APPROVE: Final = "approve"
REJECT: Final = "reject"
MAX_REASON_BYTES: Final = 1000  # the whole statement must be short enough for a KMS
_ARTIFACT: Final = "artifact"
_MANIFEST: Final = "manifest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """`decision` is APPROVE or REJECT. `nonce` is the request's event id. `not_after` is when the approval lapses.

    `expected_current_digest`: SHA-256 of the artifact that must be serving; None: do not care; empty: none.
    `decision_id`: the policy's answer that the person saw, None where there was none.
    """

    promotion_id: str
    approver: str
    artifact_sha256: str
    manifest_sha256: str
    target_env: str
    expected_current_digest: str | None
    policy_digest: str
    decision_id: str | None
    nonce: str
    keyring_version: int
    not_after: datetime
    decision: str
    reason: str

    def statement(self) -> Statement:
        """The in-toto statement; subjects are the manifest and the artifact."""
        if self.decision not in (APPROVE, REJECT):
            raise BadStatement(f"an approval says {APPROVE} or {REJECT}, not {self.decision!r}")
        if len(self.reason.encode()) > MAX_REASON_BYTES:
            raise BadStatement(f"the reason has at most {MAX_REASON_BYTES} bytes, not {len(self.reason.encode())}")
        return Statement(
            (Subject(_MANIFEST, self.manifest_sha256), Subject(_ARTIFACT, self.artifact_sha256)),
            PREDICATE_TYPE,
            {
                "promotion_id": self.promotion_id,
                "approver": self.approver,
                "target_env": self.target_env,
                "expected_current_digest": self.expected_current_digest,
                "policy_digest": self.policy_digest,
                "decision_id": self.decision_id,
                "nonce": self.nonce,
                "keyring_version": self.keyring_version,
                "not_after": rfc3339(self.not_after),
                "decision": self.decision,
                "reason": self.reason,
            },
        )


def sign_approval(approval: Approval, sign: Sign, key_id: str, *, public_key: bytes | None = None) -> Envelope:
    """Sign with the approver's own key."""
    return approval.statement().sign(sign, key_id, public_key=public_key)


def open_approval(envelope: str | bytes, public_key: bytes) -> Approval:
    """Verify an approval's envelope against a person's key, and read it."""
    statement = open_statement(Envelope.parse(envelope), public_key, PREDICATE_TYPE)
    fields = Fields(statement.predicate, BadStatement, "approval")
    approval = Approval(
        promotion_id=fields.text("promotion_id"),
        approver=fields.text("approver"),
        artifact_sha256=statement.subject(_ARTIFACT),
        manifest_sha256=statement.subject(_MANIFEST),
        target_env=fields.text("target_env"),
        expected_current_digest=fields.optional_text("expected_current_digest"),
        policy_digest=fields.text("policy_digest", SHA256_HEX),
        decision_id=fields.optional_text("decision_id"),
        nonce=fields.text("nonce"),
        keyring_version=fields.integer("keyring_version"),
        not_after=fields.time("not_after"),
        decision=fields.text("decision"),
        reason=fields.text("reason"),
    )
    fields.end()
    approval.statement()  # refuses a word that is neither yes nor no
    return approval
