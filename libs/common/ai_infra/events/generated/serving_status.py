"""What a serving replica has loaded and verified.

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


class LoadState(StrEnum):
    """What the replica did."""

    UNKNOWN = "unknown"
    LOADED = "loaded"
    REFUSED = "refused"
    UNLOADED = "unloaded"


LoadState_SYMBOLS: Final = tuple(LoadState)
LoadState_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(LoadState)}


@value(kw_only=True)
class ServingStatus(Body):
    """What a serving replica has loaded and verified."""

    TOPIC: ClassVar[str] = "serving.status"
    SCHEMA_SHA256: ClassVar[str] = "8cf943b30fd01d435f9cbb2adaad80f6af714f2e5425b0437db04411ce5a0a5c"
    CRC64: ClassVar[bytes] = bytes.fromhex("c269ed55e7cc487d")

    model: str
    """Name of the model; equals the record's key."""
    env: Environment
    """Environment that it is about."""
    replica: str
    """Name of the replica."""
    artifact_id: str
    """Artifact."""
    artifact_sha256: str
    """SHA-256 of what was loaded, 64 hex digits."""
    manifest_signature_id: str
    """Signature that was verified before loading."""
    state: LoadState
    """The state."""
    reason: str
    """For people; empty where all is well."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.text(self.replica)
        out.text(self.artifact_id)
        out.text(self.artifact_sha256)
        out.text(self.manifest_signature_id)
        out.enum(self.state, LoadState_INDEX)
        out.text(self.reason)

    @classmethod
    def read(cls, data: Reader) -> ServingStatus:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            replica=data.text(),
            artifact_id=data.text(),
            artifact_sha256=data.text(),
            manifest_signature_id=data.text(),
            state=data.enum(LoadState_SYMBOLS),
            reason=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "env": str(self.env),
            "replica": self.replica,
            "artifact_id": self.artifact_id,
            "artifact_sha256": self.artifact_sha256,
            "manifest_signature_id": self.manifest_signature_id,
            "state": str(self.state),
            "reason": self.reason,
        }
