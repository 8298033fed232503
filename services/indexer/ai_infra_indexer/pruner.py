"""Prunes the lanes that a replica holds, as their entries come to be older than AI_INFRA_HOT_DAYS.

With a rest after each step as long as the step, so that the loop that sequences hardly notices. It waits for nobody:
what is away is asked again at the next look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from ai_infra.telemetry import metrics
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.exceptions import LaneLost
from ai_infra_indexer.pruning import PruningRefused, low_water, prune
from ai_infra_indexer.store import Connection

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 60.0  # rows grow old by the day; a look where nothing is to do is two small questions


class Pruner:
    """Watches the lanes that `lanes` names. `check` is for the health port; `look` may be called by anybody else."""

    def __init__(
        self,
        lanes: Callable[[], Iterable[int]],
        connect: Callable[[], Connection],
        archived: Callable[[int], ArchivedLane],
        roots: Roots,
        hot_days: int,
        stop: threading.Event,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lanes = lanes
        self._connect = connect
        self._archived = archived
        self._roots = roots
        self._hot_days = hot_days
        self._clock = clock
        self._refused: dict[int, PruningRefused] = {}
        self._shown: set[int] = set()
        self._stop = stop

    def check(self) -> str | None:
        """What the archive has otherwise than Postgres; None where nothing was found."""
        return next((str(error) for _, error in sorted(dict(self._refused).items())), None)

    def look(self) -> None:
        """Prune what is old enough now, and show in the metric how far that is."""
        held = set(self._lanes())
        for lane in self._shown - held:
            metrics.INDEXER_POSITION.remove(str(lane), "pruned")  # another replica shows it now
        self._shown &= held
        self._refused = {lane: error for lane, error in self._refused.items() if lane in held}
        with self._connect() as connection:
            for lane in sorted(held):
                if not self._stop.is_set():
                    self._look(connection, lane)

    def _look(self, connection: Connection, lane: int) -> None:
        try:
            if self._hot_days:
                before = self._clock() - timedelta(days=self._hot_days)
                done = prune(connection, self._archived(lane), roots=self._roots, before=before, pause=self._stop.wait)
                if done.entries:
                    log.info("old rows pruned", lane=lane, entries=done.entries, low_water=done.low_water)
            self._refused.pop(lane, None)
            metrics.INDEXER_POSITION.labels(str(lane), "pruned").set(low_water(connection, lane).size)
            self._shown.add(lane)
        except PruningRefused as error:
            self._refused[lane] = error
            log.error("old rows not pruned", lane=lane, code=error.code, why=str(error))
        except LaneLost as error:
            log.info("old rows not pruned", lane=lane, why=str(error))  # taken by nobody yet, or pruned by a command
