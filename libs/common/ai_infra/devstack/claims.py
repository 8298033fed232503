"""Who a stack is for while somebody uses it: a test run claims one, so that no other run and no `down --all` takes it.

A claim is a lock that the kernel frees when its holder dies; it says nothing about whether the stack runs.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ai_infra.devstack.exceptions import StackError
from ai_infra.devstack.stack import HOME

MOST: Final = 16  # stacks of one kind side by side: each takes a GiB of memory


@contextmanager
def claimed_name(root: Path, kind: str) -> Iterator[str]:
    """The first of `kind`, `kind-2`, `kind-3` … that nobody holds, held until the end of the block."""
    (root / HOME).mkdir(exist_ok=True)
    for number in range(1, MOST + 1):
        name = kind if number == 1 else f"{kind}-{number}"
        with _claim_file(root, name).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield name
            return
    raise StackError(f"{MOST} stacks {kind} are in use in {root} already")


def is_claimed(root: Path, name: str) -> bool:
    """Whether somebody holds this stack now."""
    path = _claim_file(root, name)
    if not path.exists():
        return False
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _claim_file(root: Path, name: str) -> Path:
    return root / HOME / f"{name}.session"
