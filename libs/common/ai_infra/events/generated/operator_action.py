"""What an operator did: a redrive, a seek, a restore, a hold.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class OperatorAction(Body):
    """What an operator did: a redrive, a seek, a restore, a hold."""

    TOPIC: ClassVar[str] = "operator.action"
    SCHEMA_SHA256: ClassVar[str] = "8d4044ee5f73df1701ed770ce0096334f49e3c116086b2af46ddcfd86b12c7f8"
    CRC64: ClassVar[bytes] = bytes.fromhex("4f3b44ac2d632b66")

    action: str
    """dlq.redrive, dlq.discard, groups.seek, groups.resume, job.requeue, restore, hold ..."""
    target: str
    """What it was done to, e.g. a service, a lane, a job id."""
    arguments_json: str
    """Arguments as canonical JSON."""
    reason: str
    """Why, for people."""
    operator: str
    """Principal; equals the signer's principal."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.action)
        out.text(self.target)
        out.text(self.arguments_json)
        out.text(self.reason)
        out.text(self.operator)

    @classmethod
    def read(cls, data: Reader) -> OperatorAction:
        """Reads one datum written with this very schema."""
        return cls(
            action=data.text(),
            target=data.text(),
            arguments_json=data.text(),
            reason=data.text(),
            operator=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "action": self.action,
            "target": self.target,
            "arguments_json": self.arguments_json,
            "reason": self.reason,
            "operator": self.operator,
        }
