"""A rollout shows a regression and goes back.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import ArmCounts, Environment, Environment_INDEX, Environment_SYMBOLS, Verdict
from ai_infra.events.values import value


@value(kw_only=True)
class CanaryRegression(Body):
    """A rollout shows a regression and goes back."""

    TOPIC: ClassVar[str] = "canary.regression"
    SCHEMA_SHA256: ClassVar[str] = "ae8be354be582afbae4814005f618ac198894f8cb586b5711f8cc61289c007d9"
    CRC64: ClassVar[bytes] = bytes.fromhex("a7525404adcbf716")

    model: str
    """Name of the model; equals the record's key."""
    env: Environment
    """Environment that it is about."""
    promotion_id: str
    """Promotion that is rolled out."""
    artifact_id: str
    """Candidate."""
    phase: int
    """Phase, from 1."""
    verdicts: tuple[Verdict, ...]
    """The verdicts, regressions among them."""
    counts: tuple[ArmCounts, ...]
    """Merged counts."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.text(self.promotion_id)
        out.text(self.artifact_id)
        out.int32(self.phase)
        out.array(self.verdicts, write_record)
        out.array(self.counts, write_record)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> CanaryRegression:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            promotion_id=data.text(),
            artifact_id=data.text(),
            phase=data.int32(),
            verdicts=data.array(Verdict.read),
            counts=data.array(ArmCounts.read),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "env": str(self.env),
            "promotion_id": self.promotion_id,
            "artifact_id": self.artifact_id,
            "phase": self.phase,
            "verdicts": [x.to_dict() for x in self.verdicts],
            "counts": [x.to_dict() for x in self.counts],
            "rules": self.rules,
        }
