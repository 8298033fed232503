"""One person's yes or no, verifiable offline.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Environment, Environment_INDEX, Environment_SYMBOLS
from ai_infra.events.values import value


class ApprovalDecision(StrEnum):
    """Yes or no."""

    UNKNOWN = "unknown"
    APPROVE = "approve"
    REJECT = "reject"


ApprovalDecision_SYMBOLS: Final = tuple(ApprovalDecision)
ApprovalDecision_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(ApprovalDecision)}


@value(kw_only=True)
class PromotionApproval(Body):
    """One person's yes or no, verifiable offline."""

    TOPIC: ClassVar[str] = "promotion.approval"
    SCHEMA_SHA256: ClassVar[str] = "cc2a8375943e12391c3d706b6ffe69988a5d06d65766c9097ccd3145c7c27a4d"
    CRC64: ClassVar[bytes] = bytes.fromhex("cded048f42cbbf90")

    promotion_id: str
    """Promotion that it is about."""
    model: str
    """Name of the model; equals the record's key."""
    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    target_env: Environment
    """Environment that it is about."""
    approver: str
    """Principal; equals the signer's principal."""
    decision: ApprovalDecision
    """The answer."""
    reason: str
    """Why."""
    envelope: str
    """DSSE envelope (JSON) over the in-toto approval statement."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.promotion_id)
        out.text(self.model)
        out.text(self.artifact_id)
        out.enum(self.target_env, Environment_INDEX)
        out.text(self.approver)
        out.enum(self.decision, ApprovalDecision_INDEX)
        out.text(self.reason)
        out.text(self.envelope)

    @classmethod
    def read(cls, data: Reader) -> PromotionApproval:
        """Reads one datum written with this very schema."""
        return cls(
            promotion_id=data.text(),
            model=data.text(),
            artifact_id=data.text(),
            target_env=data.enum(Environment_SYMBOLS),
            approver=data.text(),
            decision=data.enum(ApprovalDecision_SYMBOLS),
            reason=data.text(),
            envelope=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "promotion_id": self.promotion_id,
            "model": self.model,
            "artifact_id": self.artifact_id,
            "target_env": str(self.target_env),
            "approver": self.approver,
            "decision": str(self.decision),
            "reason": self.reason,
            "envelope": self.envelope,
        }
