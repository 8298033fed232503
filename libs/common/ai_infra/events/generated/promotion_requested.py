"""A wish that an artifact should serve in an environment.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, rfc3339
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Environment, Environment_INDEX, Environment_SYMBOLS
from ai_infra.events.values import value


@value(kw_only=True)
class PromotionRequested(Body):
    """A wish that an artifact should serve in an environment."""

    TOPIC: ClassVar[str] = "promotion.requested"
    SCHEMA_SHA256: ClassVar[str] = "c80cd2dd18ce7f54626c29c6ffd028c6c67e3b3374718dda192817f11eb0626c"
    CRC64: ClassVar[bytes] = bytes.fromhex("d266c2f4a5a5f0c0")

    promotion_id: str
    """UUID of the promotion, chosen by who asks."""
    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    model: str
    """Name of the model; equals the record's key."""
    target_env: Environment
    """Environment that it is about."""
    reason: str
    """Why."""
    evaluation_id: str | None = None
    """Evaluation that it rests on; null: the newest of the artifact."""
    confidence_e6: int | None = None
    """Confidence of the evaluation engine in [0, 1], millionths."""
    evidence: tuple[str, ...]
    """URIs or ids of evidence, at most 32."""
    traffic_percent: int | None = None
    """Share of traffic to begin with, percent; null: the plan of the policy."""
    manifest_signature_id: str | None = None
    """Signature that the requester saw; null: the registry's newest."""
    expected_current_artifact_id: str | None = None
    """Compare-and-swap: artifact that the requester believes is serving; null: do not care; empty: none."""
    idempotency_key: str | None = None
    """Same key, same request."""
    emergency: bool
    """Break-glass: skips policy service and phases; needs a role for it."""
    not_after: datetime | None = None
    """When the request lapses, ms since the epoch."""
    requested_by: str
    """Principal who asked; equals the signer's principal."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.promotion_id)
        out.text(self.artifact_id)
        out.text(self.model)
        out.enum(self.target_env, Environment_INDEX)
        out.text(self.reason)
        out.optional(self.evaluation_id, Writer.text)
        out.optional(self.confidence_e6, Writer.int64)
        out.array(self.evidence, Writer.text)
        out.optional(self.traffic_percent, Writer.int32)
        out.optional(self.manifest_signature_id, Writer.text)
        out.optional(self.expected_current_artifact_id, Writer.text)
        out.optional(self.idempotency_key, Writer.text)
        out.boolean(self.emergency)
        out.optional(self.not_after, Writer.millis)
        out.text(self.requested_by)

    @classmethod
    def read(cls, data: Reader) -> PromotionRequested:
        """Reads one datum written with this very schema."""
        return cls(
            promotion_id=data.text(),
            artifact_id=data.text(),
            model=data.text(),
            target_env=data.enum(Environment_SYMBOLS),
            reason=data.text(),
            evaluation_id=data.optional(Reader.text),
            confidence_e6=data.optional(Reader.int64),
            evidence=data.array(Reader.text),
            traffic_percent=data.optional(Reader.int32),
            manifest_signature_id=data.optional(Reader.text),
            expected_current_artifact_id=data.optional(Reader.text),
            idempotency_key=data.optional(Reader.text),
            emergency=data.boolean(),
            not_after=data.optional(Reader.millis),
            requested_by=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "promotion_id": self.promotion_id,
            "artifact_id": self.artifact_id,
            "model": self.model,
            "target_env": str(self.target_env),
            "reason": self.reason,
            "evaluation_id": self.evaluation_id,
            "confidence_e6": self.confidence_e6,
            "evidence": list(self.evidence),
            "traffic_percent": self.traffic_percent,
            "manifest_signature_id": self.manifest_signature_id,
            "expected_current_artifact_id": self.expected_current_artifact_id,
            "idempotency_key": self.idempotency_key,
            "emergency": self.emergency,
            "not_after": None if self.not_after is None else rfc3339(self.not_after),
            "requested_by": self.requested_by,
        }
