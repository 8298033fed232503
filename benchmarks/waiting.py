"""Waiting with a deadline: for a condition, for a replica that has its lanes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import httpx

from ai_infra.devstack import Stack

READY_SECONDS = 90.0


class WaitedInVainError(RuntimeError):
    """What was waited for did not come."""


def until(condition: Callable[[], bool], seconds: float, what: str, *, every: float = 0.1) -> None:
    """Returns when the condition holds; raises after so many seconds. `every`: pause between two looks."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise WaitedInVainError(f"{what} after {seconds:.0f} s")
        time.sleep(every)


def ready(stack: Stack, service: str, number: int = 0, *, lanes: int) -> None:
    """Returns when the replica is ready and works so many lanes."""
    url = stack.service_url(service, number)

    def has_lanes() -> bool:
        try:
            if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code != 200:
                return False
            text = httpx.get(f"{url}/metrics", timeout=5, trust_env=False).text
        except httpx.HTTPError:
            return False
        found = re.search(rf'^ai_infra_bus_owned_lanes{{service="{service}"}} (\S+)$', text, re.MULTILINE)
        return found is not None and int(float(found[1])) == lanes

    until(has_lanes, READY_SECONDS, f"{service}-{number} is not ready with {lanes} lanes")
