"""Work on lanes side by side, a process each: lanes share nothing, and one Python process uses one core.

A child opens everything anew, so no thread, lock or connection of the parent is taken along, and it ends with the
parent however that ended. What a child has to tell on its way goes to the parent, which alone speaks to people.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from multiprocessing.queues import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

R = TypeVar("R")

_TELL_SECONDS: Final = 0.2  # how often what was told is passed on
_GC_THRESHOLD: Final = 100_000  # entries are many small objects, none in a cycle: looking for cycles took a part of it


def side_by_side(
    work: Callable[..., R], jobs: Sequence[tuple[Any, ...]], *, processes: int, told: Callable[..., None]
) -> list[R]:
    """`work(*job)` for each job, begun in their order, so many at once; the results in the order of the jobs.

    `work` and the jobs must be picklable; what `work` says by `tell` comes to `told` in this process. When a job
    fails, those that have not begun are left out, and its exception is raised.
    """
    context = get_context("spawn")
    queue: SimpleQueue[tuple[Any, ...]] = context.SimpleQueue()
    with ProcessPoolExecutor(min(processes, len(jobs)), context, _begin, (queue,)) as pool:
        begun = [pool.submit(work, *job) for job in jobs]
        waiting = set(begun)
        try:
            while waiting:
                ended, waiting = wait(waiting, timeout=_TELL_SECONDS)
                while not queue.empty():
                    told(*queue.get())
                for each in ended:
                    each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [each.result() for each in begun]


def tell(*what: Any) -> None:
    """In a child: passes this on to the parent."""
    if _told is not None:
        _told.put(what)


_told: SimpleQueue[tuple[Any, ...]] | None = None


def _begin(queue: SimpleQueue[tuple[Any, ...]]) -> None:
    """Once in each process: where it tells to, and that it ends when the command was killed, so as not to go on working
    beside the one that is started next."""
    global _told  # noqa: PLW0603 - a queue can only be handed to a process when it begins
    _told = queue
    gc.set_threshold(_GC_THRESHOLD, 20, 20)
    Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
