"""Under which user a server runs that refuses to be root, and where on disk that user gets to.

Only asked when the stack is started as root (in containers, mostly). Creates no users and changes no directory above
those that belong to the stack.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from ai_infra.devstack.exceptions import StackError, ToolMissing
from ai_infra.devstack.processes import Account

# `daemon` before `nobody`: what runs trainings (foreign code) may be `nobody`, and users that share an id may end each
# other's processes.
CANDIDATES: Final = ("postgres", "daemon", "nobody")
ELSEWHERE: Final = Path("/var/tmp/ai-infra")  # noqa: S108 - survives a reboot, everybody may enter; see `_own`


def unprivileged() -> Account | None:
    """None when this process isn't root: then servers run as the user who starts them."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ToolMissing(
        "Postgres refuses to run as root, and there is no other user: add one, `useradd --system postgres`"
    )


def may_enter(path: Path, account: Account) -> bool:
    """Whether `account` gets to `path` through every directory that exists on the way."""
    return all(_searchable(step, account) for step in (path, *path.parents) if step.exists())


def within_reach(path: Path, account: Account | None) -> Path:
    """`path` if `account` gets there, else a place of its own for it under a directory that everybody may enter."""
    if account is None or may_enter(path.parent, account):
        return path
    _own(ELSEWHERE)
    return ELSEWHERE / hashlib.sha256(os.fsencode(path)).hexdigest()[:16] / path.name


def _own(directory: Path) -> None:
    """Make a directory that only root writes to. One that somebody else put there first is refused: what is below it
    gets run."""
    directory.mkdir(mode=0o755, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StackError(f"{directory} does not belong to root alone: remove it, and start again")


def _searchable(directory: Path, account: Account) -> bool:
    status = directory.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == account.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)
