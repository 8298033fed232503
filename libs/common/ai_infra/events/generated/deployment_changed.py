"""What serves in an environment from now on; the canary alone says this.

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


class DeploymentCause(StrEnum):
    """Why it changed."""

    UNKNOWN = "unknown"
    PROMOTION_STARTED = "promotion_started"
    PHASE_ADVANCED = "phase_advanced"
    PROMOTION_APPLIED = "promotion_applied"
    PROMOTION_REFUSED = "promotion_refused"
    AUTO_REVERTED = "auto_reverted"
    ROLLBACK = "rollback"
    STOPPED = "stopped"
    REVOKED = "revoked"


DeploymentCause_SYMBOLS: Final = tuple(DeploymentCause)
DeploymentCause_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(DeploymentCause)}


@value(kw_only=True)
class DeploymentChanged(Body):
    """What serves in an environment from now on; the canary alone says this."""

    TOPIC: ClassVar[str] = "deployment.changed"
    SCHEMA_SHA256: ClassVar[str] = "c1ad6e9251005f94c1bd750b3bed7182fedef9d1066ff5b69c1ddadebf78b73c"
    CRC64: ClassVar[bytes] = bytes.fromhex("184562e33a1d8576")

    model: str
    """Name of the model; equals the record's key."""
    env: Environment
    """Environment that it is about."""
    promotion_id: str | None = None
    """Promotion that caused it."""
    revision: int
    """Counts the changes of (model, env), from 1: the compare-and-swap."""
    stable_artifact_id: str | None = None
    """Artifact that serves; null: none."""
    candidate_artifact_id: str | None = None
    """Artifact on trial; null: none."""
    candidate_percent: int
    """Share of requests that the candidate serves, percent."""
    previous_stable_artifact_id: str | None = None
    """What served before this change."""
    cause: DeploymentCause
    """Why."""
    reason: str
    """For people; empty where all is well."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.optional(self.promotion_id, Writer.text)
        out.int64(self.revision)
        out.optional(self.stable_artifact_id, Writer.text)
        out.optional(self.candidate_artifact_id, Writer.text)
        out.int32(self.candidate_percent)
        out.optional(self.previous_stable_artifact_id, Writer.text)
        out.enum(self.cause, DeploymentCause_INDEX)
        out.text(self.reason)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> DeploymentChanged:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            promotion_id=data.optional(Reader.text),
            revision=data.int64(),
            stable_artifact_id=data.optional(Reader.text),
            candidate_artifact_id=data.optional(Reader.text),
            candidate_percent=data.int32(),
            previous_stable_artifact_id=data.optional(Reader.text),
            cause=data.enum(DeploymentCause_SYMBOLS),
            reason=data.text(),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "env": str(self.env),
            "promotion_id": self.promotion_id,
            "revision": self.revision,
            "stable_artifact_id": self.stable_artifact_id,
            "candidate_artifact_id": self.candidate_artifact_id,
            "candidate_percent": self.candidate_percent,
            "previous_stable_artifact_id": self.previous_stable_artifact_id,
            "cause": str(self.cause),
            "reason": self.reason,
            "rules": self.rules,
        }
