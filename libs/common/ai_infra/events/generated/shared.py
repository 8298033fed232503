"""Types that several topics use.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.values import value


@value(kw_only=True)
class Reason:
    """One reason of a refusal or a decision."""

    code: str
    """Stable word in snake_case, for programs."""
    detail: str
    """A sentence for people: what was expected, what came."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.code)
        out.text(self.detail)

    @classmethod
    def read(cls, data: Reader) -> Reason:
        """Reads one datum written with this very schema."""
        return cls(
            code=data.text(),
            detail=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "code": self.code,
            "detail": self.detail,
        }


@value(kw_only=True)
class DatasetRef:
    """A dataset that a training or an evaluation read, pinned by checksum."""

    id: str
    """Name of the dataset in its registry."""
    checksum: str
    """SHA-256 of the dataset's bytes as 'sha256:<64 hex digits>'."""
    version: str
    """Version of the dataset as its registry names it."""
    uri: str
    """Where the bytes are: s3://, file:// or https://."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.id)
        out.text(self.checksum)
        out.text(self.version)
        out.text(self.uri)

    @classmethod
    def read(cls, data: Reader) -> DatasetRef:
        """Reads one datum written with this very schema."""
        return cls(
            id=data.text(),
            checksum=data.text(),
            version=data.text(),
            uri=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "id": self.id,
            "checksum": self.checksum,
            "version": self.version,
            "uri": self.uri,
        }


class Environment(StrEnum):
    """Where a model serves. 'unknown' is what an older reader sees of a newer environment."""

    UNKNOWN = "unknown"
    DEV = "dev"
    STAGING = "staging"
    PROD = "prod"


Environment_SYMBOLS: Final = tuple(Environment)
Environment_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(Environment)}


class VerdictKind(StrEnum):
    """Outcome of an anytime-valid test."""

    UNKNOWN = "unknown"
    REGRESSION = "regression"
    SAFE = "safe"
    INCONCLUSIVE = "inconclusive"
    BLOCKED = "blocked"


VerdictKind_SYMBOLS: Final = tuple(VerdictKind)
VerdictKind_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(VerdictKind)}


@value(kw_only=True)
class Verdict:
    """What one metric's test says, with the counts that it was computed from."""

    metric: str
    """error_rate, score, latency_p95, latency_p99 or sample_ratio."""
    verdict: VerdictKind
    """The outcome."""
    alpha_e9: int
    """Level of the test, billionths."""
    statistic: str
    """The statistic as decimal text, for people; recompute it from the counts."""
    detail: str
    """A sentence for people."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.metric)
        out.enum(self.verdict, VerdictKind_INDEX)
        out.int64(self.alpha_e9)
        out.text(self.statistic)
        out.text(self.detail)

    @classmethod
    def read(cls, data: Reader) -> Verdict:
        """Reads one datum written with this very schema."""
        return cls(
            metric=data.text(),
            verdict=data.enum(VerdictKind_SYMBOLS),
            alpha_e9=data.int64(),
            statistic=data.text(),
            detail=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "metric": self.metric,
            "verdict": str(self.verdict),
            "alpha_e9": self.alpha_e9,
            "statistic": self.statistic,
            "detail": self.detail,
        }


class Arm(StrEnum):
    """Which arm a request was served by."""

    UNKNOWN = "unknown"
    STABLE = "stable"
    CANDIDATE = "candidate"


Arm_SYMBOLS: Final = tuple(Arm)
Arm_INDEX: Final[Mapping[object, int]] = {symbol: i for i, symbol in enumerate(Arm)}


@value(kw_only=True)
class ArmCounts:
    """Counts of one arm in one window. All are integers, so that merging is adding."""

    arm: Arm
    """The arm."""
    artifact_id: str
    """Artifact that served it."""
    requests: int
    """Requests answered or failed, count."""
    errors: int
    """Requests that failed, count."""
    latency_buckets: Mapping[str, int]
    """Count per latency bucket; key: bucket index as decimal text, buckets geometric with ratio 1.3^(1/26) from 1 microsecond."""
    scores: int
    """Requests with a quality score, count."""
    score_sum_e6: int
    """Sum of quality scores in [0, 1], millionths."""
    score_square_sum_e6: int
    """Sum of squared quality scores, millionths."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.enum(self.arm, Arm_INDEX)
        out.text(self.artifact_id)
        out.int64(self.requests)
        out.int64(self.errors)
        out.mapping(self.latency_buckets, Writer.int64)
        out.int64(self.scores)
        out.int64(self.score_sum_e6)
        out.int64(self.score_square_sum_e6)

    @classmethod
    def read(cls, data: Reader) -> ArmCounts:
        """Reads one datum written with this very schema."""
        return cls(
            arm=data.enum(Arm_SYMBOLS),
            artifact_id=data.text(),
            requests=data.int64(),
            errors=data.int64(),
            latency_buckets=data.mapping(Reader.int64),
            scores=data.int64(),
            score_sum_e6=data.int64(),
            score_square_sum_e6=data.int64(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "arm": str(self.arm),
            "artifact_id": self.artifact_id,
            "requests": self.requests,
            "errors": self.errors,
            "latency_buckets": dict(self.latency_buckets),
            "scores": self.scores,
            "score_sum_e6": self.score_sum_e6,
            "score_square_sum_e6": self.score_square_sum_e6,
        }
