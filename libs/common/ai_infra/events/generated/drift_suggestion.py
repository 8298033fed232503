"""The production data has moved from the baseline; a retraining is suggested.

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
class FeatureDrift:
    """What moved, by how much, in which direction."""

    feature: str
    """Name of the feature."""
    psi_e6: int
    """Population stability index, millionths."""
    js_distance_e6: int
    """Jensen-Shannon distance (base 2), 0..1, millionths."""
    statistic: str
    """Name and value of the test's statistic, text."""
    p_value_e9: int
    """p-value after correction, billionths."""
    direction: str
    """up, down or shape."""
    window_counts: tuple[int, ...]
    """Counts in the window, in the order of the bins."""
    baseline_counts: tuple[int, ...]
    """Counts in the baseline, in the order of the bins."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.feature)
        out.int64(self.psi_e6)
        out.int64(self.js_distance_e6)
        out.text(self.statistic)
        out.int64(self.p_value_e9)
        out.text(self.direction)
        out.array(self.window_counts, Writer.int64)
        out.array(self.baseline_counts, Writer.int64)

    @classmethod
    def read(cls, data: Reader) -> FeatureDrift:
        """Reads one datum written with this very schema."""
        return cls(
            feature=data.text(),
            psi_e6=data.int64(),
            js_distance_e6=data.int64(),
            statistic=data.text(),
            p_value_e9=data.int64(),
            direction=data.text(),
            window_counts=data.array(Reader.int64),
            baseline_counts=data.array(Reader.int64),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "feature": self.feature,
            "psi_e6": self.psi_e6,
            "js_distance_e6": self.js_distance_e6,
            "statistic": self.statistic,
            "p_value_e9": self.p_value_e9,
            "direction": self.direction,
            "window_counts": list(self.window_counts),
            "baseline_counts": list(self.baseline_counts),
        }


@value(kw_only=True)
class DriftSuggestion(Body):
    """The production data has moved from the baseline; a retraining is suggested."""

    TOPIC: ClassVar[str] = "drift.suggestion"
    SCHEMA_SHA256: ClassVar[str] = "8285c2538f23714027dbf2487dde376a03648b4e7c57efe735a38659481e143a"
    CRC64: ClassVar[bytes] = bytes.fromhex("c2d996fcfda67b63")

    suggestion_id: str
    """UUID of the suggestion."""
    model: str
    """Name of the model; equals the record's key."""
    env: Environment
    """Environment that it is about."""
    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    window_start: datetime
    """Start, ms since the epoch."""
    window_end: datetime
    """End, ms since the epoch."""
    rows: int
    """Rows in the window."""
    features: tuple[FeatureDrift, ...]
    """What moved."""
    alpha_e9: int
    """Level that the operator asked for, billionths."""
    report_uri: str
    """Where the report is."""
    report_sha256: str
    """SHA-256 of the report."""
    job_id: str | None = None
    """The retraining that it asks for."""
    reason: str
    """For people."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.suggestion_id)
        out.text(self.model)
        out.enum(self.env, Environment_INDEX)
        out.text(self.artifact_id)
        out.millis(self.window_start)
        out.millis(self.window_end)
        out.int64(self.rows)
        out.array(self.features, write_record)
        out.int64(self.alpha_e9)
        out.text(self.report_uri)
        out.text(self.report_sha256)
        out.optional(self.job_id, Writer.text)
        out.text(self.reason)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> DriftSuggestion:
        """Reads one datum written with this very schema."""
        return cls(
            suggestion_id=data.text(),
            model=data.text(),
            env=data.enum(Environment_SYMBOLS),
            artifact_id=data.text(),
            window_start=data.millis(),
            window_end=data.millis(),
            rows=data.int64(),
            features=data.array(FeatureDrift.read),
            alpha_e9=data.int64(),
            report_uri=data.text(),
            report_sha256=data.text(),
            job_id=data.optional(Reader.text),
            reason=data.text(),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "suggestion_id": self.suggestion_id,
            "model": self.model,
            "env": str(self.env),
            "artifact_id": self.artifact_id,
            "window_start": rfc3339(self.window_start),
            "window_end": rfc3339(self.window_end),
            "rows": self.rows,
            "features": [x.to_dict() for x in self.features],
            "alpha_e9": self.alpha_e9,
            "report_uri": self.report_uri,
            "report_sha256": self.report_sha256,
            "job_id": self.job_id,
            "reason": self.reason,
            "rules": self.rules,
        }
