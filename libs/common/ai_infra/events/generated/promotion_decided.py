"""One step of a promotion's decision; the promoter alone says this.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from ai_infra.events.avro import Reader, Writer, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Environment, Environment_INDEX, Environment_SYMBOLS, Reason
from ai_infra.events.values import value


class PromotionStatus(StrEnum):
    """State of a promotion."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    PENDING_MULTISIG = "pending_multisig"
    QUARANTINED = "quarantined"
    APPROVED = "approved"
    APPLIED = "applied"
    REJECTED = "rejected"
    EMERGENCY_APPLIED = "emergency_applied"
    RATIFIED = "ratified"
    REVERTED = "reverted"
    REVOKED = "revoked"
    EXPIRED = "expired"


PromotionStatus_SYMBOLS: Final = tuple(PromotionStatus)
PromotionStatus_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(PromotionStatus)}


class PromotionKind(StrEnum):
    """What was asked for."""

    UNKNOWN = "unknown"
    PROMOTION = "promotion"
    ROLLBACK = "rollback"


PromotionKind_SYMBOLS: Final = tuple(PromotionKind)
PromotionKind_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(PromotionKind)}


@value(kw_only=True)
class ApprovalRecord:
    """One approval that counted."""

    approver: str
    """Principal id of the person."""
    key_id: str
    """Key that signed the approval."""
    event_id: str
    """Id of the promotion.approval event."""
    envelope_sha256: str
    """SHA-256 of the approval's DSSE envelope, 64 hex digits."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.approver)
        out.text(self.key_id)
        out.text(self.event_id)
        out.text(self.envelope_sha256)

    @classmethod
    def read(cls, data: Reader) -> ApprovalRecord:
        """Reads one datum written with this very schema."""
        return cls(
            approver=data.text(),
            key_id=data.text(),
            event_id=data.text(),
            envelope_sha256=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "approver": self.approver,
            "key_id": self.key_id,
            "event_id": self.event_id,
            "envelope_sha256": self.envelope_sha256,
        }


@value(kw_only=True)
class PromotionDecided(Body):
    """One step of a promotion's decision; the promoter alone says this."""

    TOPIC: ClassVar[str] = "promotion.decided"
    SCHEMA_SHA256: ClassVar[str] = "c63d989b5239c831abccdba419f522c475774ac0a11b5ed50a753e543860bc4a"
    CRC64: ClassVar[bytes] = bytes.fromhex("199f42965168659f")

    promotion_id: str
    """The promotion."""
    model: str
    """Name of the model; equals the record's key."""
    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    target_env: Environment
    """Environment that it is about."""
    status: PromotionStatus
    """The state after this step."""
    kind: PromotionKind
    """Promotion or rollback."""
    reasons: tuple[Reason, ...]
    """Every reason for this status."""
    verifier_id: str
    """Who judged: URI of the policy service or of the static threshold."""
    policy_answer_json: str
    """The whole answer of the policy, canonical JSON."""
    policy_version: int
    """Version of our policy document; 0: the built-in one."""
    policy_sha256: str
    """SHA-256 of that document, 64 hex digits."""
    fallback: bool
    """True where the static threshold stood in for an unreachable policy service."""
    evaluation_id: str | None = None
    """Evaluation that was judged."""
    score_e6: int | None = None
    """Its score, millionths."""
    threshold_e6: int | None = None
    """Threshold that it was compared with, millionths."""
    manifest_signature_id: str | None = None
    """Signature of the manifest that was verified."""
    approvals: tuple[ApprovalRecord, ...]
    """Approvals that counted."""
    expected_current_artifact_id: str | None = None
    """Compare-and-swap for the canary; null: do not care; empty: none."""
    plan_percent: tuple[int, ...]
    """Phases of the rollout, percent of traffic; [100] is one phase."""
    decision_envelope: str | None = None
    """DSSE envelope (JSON) over the in-toto decision, signed by the promotion key; null while pending."""
    requested_by: str
    """Principal who asked; equals the signer's principal."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.promotion_id)
        out.text(self.model)
        out.text(self.artifact_id)
        out.enum(self.target_env, Environment_INDEX)
        out.enum(self.status, PromotionStatus_INDEX)
        out.enum(self.kind, PromotionKind_INDEX)
        out.array(self.reasons, write_record)
        out.text(self.verifier_id)
        out.text(self.policy_answer_json)
        out.int32(self.policy_version)
        out.text(self.policy_sha256)
        out.boolean(self.fallback)
        out.optional(self.evaluation_id, Writer.text)
        out.optional(self.score_e6, Writer.int64)
        out.optional(self.threshold_e6, Writer.int64)
        out.optional(self.manifest_signature_id, Writer.text)
        out.array(self.approvals, write_record)
        out.optional(self.expected_current_artifact_id, Writer.text)
        out.array(self.plan_percent, Writer.int32)
        out.optional(self.decision_envelope, Writer.text)
        out.text(self.requested_by)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> PromotionDecided:
        """Reads one datum written with this very schema."""
        return cls(
            promotion_id=data.text(),
            model=data.text(),
            artifact_id=data.text(),
            target_env=data.enum(Environment_SYMBOLS),
            status=data.enum(PromotionStatus_SYMBOLS),
            kind=data.enum(PromotionKind_SYMBOLS),
            reasons=data.array(Reason.read),
            verifier_id=data.text(),
            policy_answer_json=data.text(),
            policy_version=data.int32(),
            policy_sha256=data.text(),
            fallback=data.boolean(),
            evaluation_id=data.optional(Reader.text),
            score_e6=data.optional(Reader.int64),
            threshold_e6=data.optional(Reader.int64),
            manifest_signature_id=data.optional(Reader.text),
            approvals=data.array(ApprovalRecord.read),
            expected_current_artifact_id=data.optional(Reader.text),
            plan_percent=data.array(Reader.int32),
            decision_envelope=data.optional(Reader.text),
            requested_by=data.text(),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "promotion_id": self.promotion_id,
            "model": self.model,
            "artifact_id": self.artifact_id,
            "target_env": str(self.target_env),
            "status": str(self.status),
            "kind": str(self.kind),
            "reasons": [x.to_dict() for x in self.reasons],
            "verifier_id": self.verifier_id,
            "policy_answer_json": self.policy_answer_json,
            "policy_version": self.policy_version,
            "policy_sha256": self.policy_sha256,
            "fallback": self.fallback,
            "evaluation_id": self.evaluation_id,
            "score_e6": self.score_e6,
            "threshold_e6": self.threshold_e6,
            "manifest_signature_id": self.manifest_signature_id,
            "approvals": [x.to_dict() for x in self.approvals],
            "expected_current_artifact_id": self.expected_current_artifact_id,
            "plan_percent": list(self.plan_percent),
            "decision_envelope": self.decision_envelope,
            "requested_by": self.requested_by,
            "rules": self.rules,
        }
