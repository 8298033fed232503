"""A service has refused an event: what its sender waits for.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Reason
from ai_infra.events.values import value


@value(kw_only=True)
class EventRefused(Body):
    """A service has refused an event: what its sender waits for."""

    TOPIC: ClassVar[str] = "event.refused"
    SCHEMA_SHA256: ClassVar[str] = "57abd3c99185e59074c49a19b6a7ca6c2b659a5a4a09fc095d346f0ff8606389"
    CRC64: ClassVar[bytes] = bytes.fromhex("5f93efd0a1dc4ec2")

    model: str
    """Name of the model; equals the record's key."""
    event_id: str
    """ce_id of the refused event."""
    event_type: str
    """ce_type of the refused event."""
    event_hash: str
    """event_hash of the refused event, 64 hex digits."""
    service: str
    """Service that refused it."""
    signer: str
    """Key id that signed the refused event."""
    reasons: tuple[Reason, ...]
    """Every reason."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.text(self.event_id)
        out.text(self.event_type)
        out.text(self.event_hash)
        out.text(self.service)
        out.text(self.signer)
        out.array(self.reasons, write_record)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> EventRefused:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            event_id=data.text(),
            event_type=data.text(),
            event_hash=data.text(),
            service=data.text(),
            signer=data.text(),
            reasons=data.array(Reason.read),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "event_id": self.event_id,
            "event_type": self.event_type,
            "event_hash": self.event_hash,
            "service": self.service,
            "signer": self.signer,
            "reasons": [x.to_dict() for x in self.reasons],
            "rules": self.rules,
        }
