"""Waiting for something in the world to become true, under one deadline.

The only place of this package that pauses. It never waits for time to pass: always for a condition that is asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

POLL_SECONDS: Final = 0.05  # short beside a broker's start (3 s), long beside the cost of asking


def wait_until(condition: Callable[[], bool], timeout: float) -> bool:
    """Ask `condition` until it holds or `timeout` seconds are over; says whether it held."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if time.monotonic() >= deadline:
            return False
        pause.wait(POLL_SECONDS)
    return True
