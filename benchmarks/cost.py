"""CPU time of the stack's parts and of replicas, from outside: their processes, and the children that have ended."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import psutil

from ai_infra.devstack import Stack

PARTS = ("kafka", "postgres", "s3")


def pid_of(stack: Stack, name: str) -> int:
    """The process of a part or a replica (`indexer-0`)."""
    for part in stack.status():
        if part.name == name and part.pid is not None:
            return part.pid
    raise RuntimeError(f"{name} does not run, or not as a program")


def tree(stack: Stack, part: str) -> list[psutil.Process]:
    """A part's process with its children: Postgres has one for each connection."""
    first = psutil.Process(pid_of(stack, part))
    return [first, *first.children(recursive=True)]


def cpu(processes: list[psutil.Process]) -> float:
    """CPU seconds of these processes until now."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def cpu_with_ended(stack: Stack, part: str) -> float:
    """CPU seconds of a part until now, connections that have ended since included: their parent has waited for them."""
    first, *children = tree(stack, part)
    times = first.cpu_times()
    return float(times.user + times.system + times.children_user + times.children_system) + cpu(children)


def spent(stack: Stack) -> Mapping[str, float]:
    """CPU seconds of each part of the stack until now."""
    return {part: cpu_with_ended(stack, part) for part in PARTS}
