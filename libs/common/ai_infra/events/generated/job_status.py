"""What became of a job. The trainer alone says this.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final

from ai_infra.events.avro import Reader, Writer, rfc3339
from ai_infra.events.body import Body
from ai_infra.events.values import value


class JobStatusKind(StrEnum):
    """State of a job; completed, failed, cancelled and timed_out are final."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


JobStatusKind_SYMBOLS: Final = tuple(JobStatusKind)
JobStatusKind_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(JobStatusKind)}


@value(kw_only=True)
class JobStatus(Body):
    """What became of a job. The trainer alone says this."""

    TOPIC: ClassVar[str] = "job.status"
    SCHEMA_SHA256: ClassVar[str] = "078b60227a42f73809ab68928337caa134fc7559a3de77e564b77613582a6aa1"
    CRC64: ClassVar[bytes] = bytes.fromhex("2678e6a5af1d07b3")

    job_id: str
    """UUID of the job, chosen by who asked for it."""
    model: str
    """Name of the model; equals the record's key."""
    status: JobStatusKind
    """The state."""
    attempt: int
    """Attempt, from 1."""
    runner: str
    """Which runner works on it; empty while queued."""
    log_uri: str | None = None
    """Where the training's output is."""
    log_sha256: str | None = None
    """SHA-256 of the log, 64 hex digits."""
    queued_time: datetime
    """When the job was accepted, ms since the epoch."""
    started_time: datetime | None = None
    """When the training process started, ms since the epoch."""
    ended_time: datetime | None = None
    """When it ended, ms since the epoch."""
    reason_code: str
    """Stable word; empty where all is well."""
    reason: str
    """Why it is in this state, for people; empty where all is well."""
    artifact_id: str | None = None
    """Artifact that came of it, when completed."""
    exit_code: int | None = None
    """Exit code of the training process."""
    rules: str
    """Version of the rules that decided, '<service>/v<n>'."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.job_id)
        out.text(self.model)
        out.enum(self.status, JobStatusKind_INDEX)
        out.int32(self.attempt)
        out.text(self.runner)
        out.optional(self.log_uri, Writer.text)
        out.optional(self.log_sha256, Writer.text)
        out.millis(self.queued_time)
        out.optional(self.started_time, Writer.millis)
        out.optional(self.ended_time, Writer.millis)
        out.text(self.reason_code)
        out.text(self.reason)
        out.optional(self.artifact_id, Writer.text)
        out.optional(self.exit_code, Writer.int32)
        out.text(self.rules)

    @classmethod
    def read(cls, data: Reader) -> JobStatus:
        """Reads one datum written with this very schema."""
        return cls(
            job_id=data.text(),
            model=data.text(),
            status=data.enum(JobStatusKind_SYMBOLS),
            attempt=data.int32(),
            runner=data.text(),
            log_uri=data.optional(Reader.text),
            log_sha256=data.optional(Reader.text),
            queued_time=data.millis(),
            started_time=data.optional(Reader.millis),
            ended_time=data.optional(Reader.millis),
            reason_code=data.text(),
            reason=data.text(),
            artifact_id=data.optional(Reader.text),
            exit_code=data.optional(Reader.int32),
            rules=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "job_id": self.job_id,
            "model": self.model,
            "status": str(self.status),
            "attempt": self.attempt,
            "runner": self.runner,
            "log_uri": self.log_uri,
            "log_sha256": self.log_sha256,
            "queued_time": rfc3339(self.queued_time),
            "started_time": None if self.started_time is None else rfc3339(self.started_time),
            "ended_time": None if self.ended_time is None else rfc3339(self.ended_time),
            "reason_code": self.reason_code,
            "reason": self.reason,
            "artifact_id": self.artifact_id,
            "exit_code": self.exit_code,
            "rules": self.rules,
        }
