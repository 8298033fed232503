"""What looks at the lanes again and again beside the loop that sequences: each on a thread of its own.

So it tells the truth while the lanes stand still, and holds up nothing. Whatever is away is asked again at the next
look; until then what was seen last stays on show: an outage makes nothing better.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import structlog

from ai_infra.errors import AiInfraError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    """Something to be looked at every so many seconds. `look` is only ever called by one thread."""

    name: str
    look: Callable[[], object]
    seconds: float


@contextmanager
def looking(stop: threading.Event, *at: Looked) -> Iterator[None]:
    """Looks until the block ends, which sets `stop`. No thread is waited for: a look may end in its own time, and none
    leaves anything half done."""
    for one in at:
        threading.Thread(target=_look, args=(one, stop), name=one.name, daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _look(at: Looked, stop: threading.Event) -> None:
    away = False
    while not stop.is_set():
        try:
            at.look()
        except (AiInfraError, psycopg.Error) as error:
            say = log.debug if away else log.warning  # the lanes say it louder, and more than once
            say("not looked at", what=at.name, why=str(error))
            away = True
        else:
            away = False
        stop.wait(at.seconds)
