"""Git repositories with code to train."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(where: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
        cwd=where,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def make_repository(root: Path) -> str:
    """Makes what is in this folder a repository; returns its commit."""
    git(root, "init", "-q", "-b", "main")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "code")
    return git(root, "rev-parse", "HEAD")
