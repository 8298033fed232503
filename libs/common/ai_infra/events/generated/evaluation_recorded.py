"""An evaluation of an artifact on a dataset.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.generated.shared import DatasetRef
from ai_infra.events.values import value


@value(kw_only=True)
class EvaluationRecorded(Body):
    """An evaluation of an artifact on a dataset."""

    TOPIC: ClassVar[str] = "evaluation.recorded"
    SCHEMA_SHA256: ClassVar[str] = "745e2979ccdd5dbade041d881a4ddd633764debb44985d2bff278e3174da0128"
    CRC64: ClassVar[bytes] = bytes.fromhex("c6642c8c4a9976f7")

    evaluation_id: str
    """UUID of the evaluation."""
    artifact_id: str
    """UUIDv5 over the model's name and the artifact's SHA-256."""
    model: str
    """Name of the model; equals the record's key."""
    dataset_ref: DatasetRef
    """What it was evaluated on."""
    score_e6: int
    """The headline score in [0, 1], millionths: what promotion thresholds are compared with."""
    metrics_e6: Mapping[str, int]
    """All metrics by name, millionths."""
    evaluator: str
    """Principal or program who evaluated."""
    report_uri: str | None = None
    """Where the report is."""
    report_sha256: str | None = None
    """SHA-256 of the report, 64 hex digits."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.evaluation_id)
        out.text(self.artifact_id)
        out.text(self.model)
        self.dataset_ref.write(out)
        out.int64(self.score_e6)
        out.mapping(self.metrics_e6, Writer.int64)
        out.text(self.evaluator)
        out.optional(self.report_uri, Writer.text)
        out.optional(self.report_sha256, Writer.text)

    @classmethod
    def read(cls, data: Reader) -> EvaluationRecorded:
        """Reads one datum written with this very schema."""
        return cls(
            evaluation_id=data.text(),
            artifact_id=data.text(),
            model=data.text(),
            dataset_ref=DatasetRef.read(data),
            score_e6=data.int64(),
            metrics_e6=data.mapping(Reader.int64),
            evaluator=data.text(),
            report_uri=data.optional(Reader.text),
            report_sha256=data.optional(Reader.text),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "evaluation_id": self.evaluation_id,
            "artifact_id": self.artifact_id,
            "model": self.model,
            "dataset_ref": self.dataset_ref.to_dict(),
            "score_e6": self.score_e6,
            "metrics_e6": dict(self.metrics_e6),
            "evaluator": self.evaluator,
            "report_uri": self.report_uri,
            "report_sha256": self.report_sha256,
        }
