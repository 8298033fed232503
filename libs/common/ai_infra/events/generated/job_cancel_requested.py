"""A wish that a job should end.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class JobCancelRequested(Body):
    """A wish that a job should end."""

    TOPIC: ClassVar[str] = "job.cancel_requested"
    SCHEMA_SHA256: ClassVar[str] = "17d7be7ba98e762aec32c9bed78e759a4efc0bb8f2c8ee1c43f244a71809f544"
    CRC64: ClassVar[bytes] = bytes.fromhex("ddddab9ad5b1f816")

    job_id: str
    """UUID of the job, chosen by who asked for it."""
    model: str
    """Name of the model; equals the record's key."""
    reason: str
    """Why, for people."""
    requested_by: str
    """Principal who asked; equals the signer's principal."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.job_id)
        out.text(self.model)
        out.text(self.reason)
        out.text(self.requested_by)

    @classmethod
    def read(cls, data: Reader) -> JobCancelRequested:
        """Reads one datum written with this very schema."""
        return cls(
            job_id=data.text(),
            model=data.text(),
            reason=data.text(),
            requested_by=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "job_id": self.job_id,
            "model": self.model,
            "reason": self.reason,
            "requested_by": self.requested_by,
        }
