"""Whether the rows of the lanes that a replica holds are those of its own projection, and what is done where not.

The log goes on either way: what is entered into a lane never depends on the rows that older entries have. Small lanes
are projected anew at once, beside the live rows; large ones wait for a person to choose the time, and until then
/readyz, `status` and a metric say so. The loop that sequences waits for nothing of this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import structlog

from ai_infra.errors import AiInfraError
from ai_infra.telemetry import metrics
from ai_infra_indexer.projection.version import PROJECTION
from ai_infra_indexer.reprojection import LaneProjection, Reprojected, projections
from ai_infra_indexer.store import Connection

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 5.0
AT_ONCE: Final = 20_000  # entries: some ten seconds of one core, which the lanes at work hardly notice
AGAIN_SECONDS: Final = 300.0  # after one that failed


class ProjectionWatch:
    """Watches the lanes that `lanes` names. `check` is for the health port; `look` may be called by anybody else."""

    def __init__(
        self,
        lanes: Callable[[], Iterable[int]],
        connect: Callable[[], Connection],
        anew: Callable[[int], Reprojected],
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._lanes = lanes
        self._connect = connect
        self._anew = anew
        self._at_once = at_once
        self._outdated: dict[int, LaneProjection] = {}
        self._shown: set[int] = set()
        self._not_before: dict[int, float] = {}

    def check(self) -> str | None:
        """Which lanes' rows are of another projection; None where none are."""
        outdated = sorted(dict(self._outdated).values(), key=lambda found: found.lane)
        if not outdated:
            return None
        lanes = ", ".join(str(found.lane) for found in outdated)
        return (
            f"the rows of lane {lanes} are those of {outdated[0].told}, this program's is {PROJECTION}: they may lack "
            "or misstate what newer queries ask for, the log itself is whole. Run `ai-infra db reproject`"
        )

    def look(self) -> None:
        """Looks now, shows it in the metric, and projects small lanes anew."""
        held = set(self._lanes())
        with self._connect() as connection:
            found = [lane for lane in projections(connection) if lane.lane in held]
        self._show(found)
        for lane in found:
            if lane.current or lane.size > self._at_once or self._not_before.get(lane.lane, 0.0) > time.monotonic():
                continue
            try:
                done = self._anew(lane.lane)
            except AiInfraError as error:
                self._not_before[lane.lane] = time.monotonic() + AGAIN_SECONDS
                log.warning("lane not projected anew", lane=lane.lane, code=error.code, why=str(error))
                continue
            self._outdated.pop(lane.lane, None)
            metrics.INDEXER_PROJECTION_OUTDATED.labels(str(lane.lane)).set(0)
            log.info("lane projected anew", lane=lane.lane, entries=done.entries, rows_changed=done.rows_changed)

    def _show(self, found: list[LaneProjection]) -> None:
        for lane in found:
            metrics.INDEXER_PROJECTION_OUTDATED.labels(str(lane.lane)).set(0 if lane.current else 1)
        numbers = {lane.lane for lane in found}
        for number in self._shown - numbers:
            metrics.INDEXER_PROJECTION_OUTDATED.remove(str(number))  # another replica shows it now
        self._shown = numbers
        self._outdated = {lane.lane: lane for lane in found if not lane.current}
