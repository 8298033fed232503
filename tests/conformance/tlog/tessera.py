"""Tessera's own checker, `cmd/fsck`: built once into the cache by the Go on this machine, or a reason why not."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from ai_infra.devstack.cache import cache_directory, cached

MODULE: Final = "github.com/transparency-dev/tessera/cmd/fsck"
VERSION: Final = "v1.0.4"


def built_fsck() -> Path:
    """The program. Skips the test where it can't be built."""
    name = f"tessera-fsck-{VERSION}"
    if not (cache_directory() / name).exists() and shutil.which("go") is None:
        pytest.skip("Tessera's checker is built with Go, which is not installed")

    def build(into: Path) -> None:
        # Modules go where Go keeps them anyway; only the program comes into our cache.
        done = subprocess.run(
            ["go", "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(into)},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        if done.returncode != 0:
            pytest.skip(f"Tessera's checker can't be built here: {done.stderr.strip()[-300:]}")

    return cached(name, build, progress=lambda _: None) / "fsck"


def fsck_finds_in_order(fsck: Path, url: str, vkey: str, scratch: Path) -> bool:
    """What the checker says of a log at a URL (`file:` or `http:`) by its verifier key. It ends with 0 either way."""
    key = scratch / "log.vkey"
    key.write_text(vkey)
    done = subprocess.run(
        [str(fsck), "-ui=false", "-N=4", f"-storage_url={url}", f"-public_key={key}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    good, bad = "Successfully fsck'd" in done.stderr, "fsck failed" in done.stderr
    assert good is not bad, done.stderr[-500:]
    return good
