"""How a rollout stands.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Final

from ai_infra.events.avro import Reader, Writer, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import ArmCounts, Environment, Environment_INDEX, Environment_SYMBOLS, Verdict
from ai_infra.events.values import value


class RolloutState(StrEnum):
    """State of a rollout."""

    UNKNOWN = "unknown"
    STARTED = "started"
    HOLDING = "holding"
    ADVANCED = "advanced"
    COMPLETED = "completed"
    REVERTED = "reverted"
    STOPPED = "stopped"
    REFUSED = "refused"
    INCONCLUSIVE = "inconclusive"


RolloutState_SYMBOLS: Final = tuple(RolloutState)
RolloutState_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(RolloutState)}


@value(kw_only=True)
class CanaryStatus(Body):
    """How a rollout stands."""

    TOPIC: ClassVar[str] = "canary.status"
    SCHEMA_SHA256: ClassVar[str] = "a091de6228bdf4eb796f468a3aed96011f4325e07c5ad450bba23bd3874bc595"
    CRC64: ClassVar[bytes] = bytes.fromhex("27cdc90818c6f60f")

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
    phases_percent: tuple[int, ...]
    """All phases, percent."""
    state: RolloutState
    """The state."""
    verdicts: tuple[Verdict, ...]
    """One a metric."""
    counts: tuple[ArmCounts, ...]
    """Merged counts that the verdicts were computed from."""
    reason: str
    """For people."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.text(self.promotion_id)
        out.text(self.artifact_id)
        out.int32(self.phase)
        out.array(self.phases_percent, Writer.int32)
        out.enum(self.state, RolloutState_INDEX)
        out.array(self.verdicts, write_record)
        out.array(self.counts, write_record)
        out.text(self.reason)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> CanaryStatus:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            promotion_id=data.text(),
            artifact_id=data.text(),
            phase=data.int32(),
            phases_percent=data.array(Reader.int32),
            state=data.enum(RolloutState_SYMBOLS),
            verdicts=data.array(Verdict.read),
            counts=data.array(ArmCounts.read),
            reason=data.text(),
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
            "phases_percent": list(self.phases_percent),
            "state": str(self.state),
            "verdicts": [x.to_dict() for x in self.verdicts],
            "counts": [x.to_dict() for x in self.counts],
            "reason": self.reason,
            "rules": self.rules,
        }
