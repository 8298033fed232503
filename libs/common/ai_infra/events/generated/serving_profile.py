"""Integer histograms of one replica over one closed window. Not sequenced.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer, rfc3339, write_record
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import Environment, Environment_INDEX, Environment_SYMBOLS
from ai_infra.events.values import value


@value(kw_only=True)
class FeatureCounts:
    """Integer histogram of one feature over frozen bins."""

    feature: str
    """Name of the feature, the score or the label."""
    edges_sha256: str
    """SHA-256 of the canonical JSON of the frozen bins, 64 hex digits."""
    counts: tuple[int, ...]
    """Counts: underflow, bins in order, overflow, missing (numeric); dictionary in order, unseen, missing (categorical)."""
    sum_e6: int | None = None
    """Sum of the values, millionths; null for categories."""
    square_sum_e6: int | None = None
    """Sum of the squared values, millionths; null for categories."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.feature)
        out.text(self.edges_sha256)
        out.array(self.counts, Writer.int64)
        out.optional(self.sum_e6, Writer.int64)
        out.optional(self.square_sum_e6, Writer.int64)

    @classmethod
    def read(cls, data: Reader) -> FeatureCounts:
        """Reads one datum written with this very schema."""
        return cls(
            feature=data.text(),
            edges_sha256=data.text(),
            counts=data.array(Reader.int64),
            sum_e6=data.optional(Reader.int64),
            square_sum_e6=data.optional(Reader.int64),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "feature": self.feature,
            "edges_sha256": self.edges_sha256,
            "counts": list(self.counts),
            "sum_e6": self.sum_e6,
            "square_sum_e6": self.square_sum_e6,
        }


@value(kw_only=True)
class ServingProfile(Body):
    """Integer histograms of one replica over one closed window. Not sequenced."""

    TOPIC: ClassVar[str] = "serving.profile"
    SCHEMA_SHA256: ClassVar[str] = "52de50057fa8ecbfcb34cbbb1b350b05df01ae7795c290859d35066c2132175d"
    CRC64: ClassVar[bytes] = bytes.fromhex("0b53b1a3b9da1463")

    model: str
    """Name of the model; equals the record's key."""
    env: Environment
    """Environment that it is about."""
    replica: str
    """Name of the replica."""
    artifact_id: str
    """Artifact that served."""
    window_start: datetime
    """Start, inclusive, ms since the epoch."""
    window_end: datetime
    """End, exclusive, ms since the epoch."""
    rows: int
    """Rows counted."""
    features: tuple[FeatureCounts, ...]
    """One a feature."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.text(self.replica)
        out.text(self.artifact_id)
        out.millis(self.window_start)
        out.millis(self.window_end)
        out.int64(self.rows)
        out.array(self.features, write_record)

    @classmethod
    def read(cls, data: Reader) -> ServingProfile:
        """Reads one datum written with this very schema."""
        return cls(
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            replica=data.text(),
            artifact_id=data.text(),
            window_start=data.millis(),
            window_end=data.millis(),
            rows=data.int64(),
            features=data.array(FeatureCounts.read),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "model": self.model,
            "env": str(self.env),
            "replica": self.replica,
            "artifact_id": self.artifact_id,
            "window_start": rfc3339(self.window_start),
            "window_end": rfc3339(self.window_end),
            "rows": self.rows,
            "features": [x.to_dict() for x in self.features],
        }
