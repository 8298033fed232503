"""A new version of the policy (broadcast: one partition).

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class PolicyChanged(Body):
    """A new version of the policy (broadcast: one partition)."""

    TOPIC: ClassVar[str] = "policy.changed"
    SCHEMA_SHA256: ClassVar[str] = "8b1a37f3f7c6c4b31b342f9afd6d77f223cb0cd60d780b3c70e3c48095a03e5c"
    CRC64: ClassVar[bytes] = bytes.fromhex("29b9e241334aa674")

    version: int
    """Version of the policy, from 1."""
    policy_json: str
    """The policy document, canonical JSON."""
    policy_sha256: str
    """SHA-256 of that text, 64 hex digits."""
    reason: str
    """Why, for people."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.int32(self.version)
        out.text(self.policy_json)
        out.text(self.policy_sha256)
        out.text(self.reason)

    @classmethod
    def read(cls, data: Reader) -> PolicyChanged:
        """Reads one datum written with this very schema."""
        return cls(
            version=data.int32(),
            policy_json=data.text(),
            policy_sha256=data.text(),
            reason=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "version": self.version,
            "policy_json": self.policy_json,
            "policy_sha256": self.policy_sha256,
            "reason": self.reason,
        }
