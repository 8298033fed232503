"""A new version of the keyring (broadcast: one partition).

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class SignerChanged(Body):
    """A new version of the keyring (broadcast: one partition)."""

    TOPIC: ClassVar[str] = "signer.changed"
    SCHEMA_SHA256: ClassVar[str] = "baddac6690b64a6c642e54daea4b117f6c936b5c5a5824b9a5cdb9e3c84e96a2"
    CRC64: ClassVar[bytes] = bytes.fromhex("a29367c4ea754111")

    version: int
    """Version of the keyring, from 1."""
    keyring: str
    """The signed keyring: DSSE envelope (JSON), signatures by thresholds of root keys."""
    keyring_sha256: str
    """SHA-256 of that text, 64 hex digits."""
    reason: str
    """Why, for people."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.int32(self.version)
        out.text(self.keyring)
        out.text(self.keyring_sha256)
        out.text(self.reason)

    @classmethod
    def read(cls, data: Reader) -> SignerChanged:
        """Reads one datum written with this very schema."""
        return cls(
            version=data.int32(),
            keyring=data.text(),
            keyring_sha256=data.text(),
            reason=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "version": self.version,
            "keyring": self.keyring,
            "keyring_sha256": self.keyring_sha256,
            "reason": self.reason,
        }
