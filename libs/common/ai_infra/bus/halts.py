"""When a run of failures is a bad deploy and not bad data: the lane should stop before it dead-letters everything."""

from __future__ import annotations

from collections import deque
from typing import Final

CONSECUTIVE_FAILURES: Final = 20  # no ordinary run of bad input of one sender is that long
WINDOW: Final = 100  # triggers over which the ratio is taken
RATIO: Final = 0.5


class FailureRun:
    """Counts failures of events from recognised signers. Junk of unknown writers is never told to it."""

    def __init__(self) -> None:
        self._consecutive = 0
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._committed: tuple[int, tuple[bool, ...]] = (0, ())

    def commit(self) -> None:
        """What was counted has happened."""
        self._committed = (self._consecutive, tuple(self._recent))

    def rollback(self) -> None:
        """Forgets what was counted since the last commit: it will be decided, and counted, again."""
        self._consecutive, recent = self._committed
        self._recent = deque(recent, maxlen=WINDOW)

    def succeeded(self) -> None:
        self._consecutive = 0
        self._recent.append(False)

    def failed(self) -> bool:
        """Counts one failure; True when the lane should halt."""
        self._consecutive += 1
        self._recent.append(True)
        if self._consecutive >= CONSECUTIVE_FAILURES:
            return True
        return len(self._recent) == WINDOW and sum(self._recent) > RATIO * WINDOW

    @property
    def consecutive(self) -> int:
        return self._consecutive

    def reset(self) -> None:
        self._consecutive = 0
        self._recent.clear()


class JunkBudget:
    """How many dead letters a lane writes for writers without a key: a bucket of tokens that fills with time.

    What exceeds it is counted and dropped, so that nobody without a key can fill the dead letters or stop the lane.
    """

    def __init__(self, *, per_second: float = 20.0, burst: int = 200) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at: float | None = None

    def take(self, now_s: float) -> bool:
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + max(0.0, now_s - self._at) * self._per_second)
        self._at = now_s
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
