"""What a benchmark answers: a figure beside its limit or its peer, and the ratio of the two.

Pure. On a machine that others use too a ratio says more than a rate, so a pair is measured in turns (A B A B) and the
median of the ratios counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `ratio` is value / peer where there is a peer; `met` is None where nothing is promised."""

    name: str
    what: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None
    ratio: float | None = None
    limit: str = ""
    met: bool | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    below: str = ""
    """What belongs below the table: a plot."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Span:
    """So many events took so long: wall-clock seconds, and CPU seconds of the process that did them."""

    events: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.wall if self.wall > 0 else 0.0

    @property
    def cpu_rate(self) -> float:
        """Events a second of CPU: what does not change when others use the machine."""
        return self.events / self.cpu if self.cpu > 0 else 0.0

    @property
    def cpu_us(self) -> float:
        """CPU time of an event, microseconds."""
        return self.cpu / self.events * 1e6 if self.events else 0.0


def compared(
    name: str, what: str, peer: str, ours: Sequence[Span], theirs: Sequence[Span], *, limit: str = ""
) -> Figure:
    """Ours against a peer, measured in turns: the medians, and the median of the ratios pair by pair."""
    return Figure(
        name=name,
        what=what,
        value=median(s.rate for s in ours),
        unit="events/s",
        peer=peer,
        peer_value=median(s.rate for s in theirs),
        ratio=median(a.rate / b.rate for a, b in zip(ours, theirs, strict=True)),
        limit=limit,
        detail={
            "rates": [round(s.rate) for s in ours],
            "peer_rates": [round(s.rate) for s in theirs],
            "cpu_us_per_event": round(median(s.cpu_us for s in ours), 1),
            "peer_cpu_us_per_event": round(median(s.cpu_us for s in theirs), 1),
            "cpu_ratio": round(median(a.cpu_rate / b.cpu_rate for a, b in zip(ours, theirs, strict=True)), 3),
        },
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0..1) of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


def latencies(name: str, what: str, seconds: Sequence[float], *, limit_ms: float | None, limit: str) -> list[Figure]:
    """p50 and p95 of latencies, in milliseconds; the limit is for the p95."""
    p50, p95 = percentile(seconds, 0.50) * 1000, percentile(seconds, 0.95) * 1000
    detail = {"samples": len(seconds), "max_ms": round(max(seconds) * 1000, 1)}
    met = None if limit_ms is None else p95 <= limit_ms
    return [
        Figure(f"{name} p50", what, p50, "ms", detail=detail),
        Figure(f"{name} p95", what, p95, "ms", limit=limit, met=met, detail=detail),
    ]
