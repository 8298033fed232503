"""What a training runs in, as the manifest records it: interpreter, libraries, threads, processor, isolation.

Whatever here can change a result is written down; nothing here is a secret, and nothing names a person or a machine.
"""

from __future__ import annotations

import hashlib
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Final

from ai_infra.events.canonical import canonical_json

_RELEVANT: Final = frozenset({"avx", "avx2", "avx512f", "amx_tile", "fma", "sse4_2", "neon", "asimd", "sve"})
"""Instruction sets by which numeric libraries choose their kernels, and so the last bits of a result."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """The installed distributions as canonical JSON {name: version}, and its SHA-256 (hex)."""

    listing: bytes
    sha256: str


@cache
def libraries() -> Libraries:
    """Every distribution that this interpreter can import. Read once: it does not change under a process."""
    found = {
        re.sub(r"[-_.]+", "-", name).lower(): str(distribution.version)
        for distribution in distributions()
        if (name := distribution.metadata["Name"])
    }
    listing = canonical_json(dict(sorted(found.items())))
    return Libraries(listing, hashlib.sha256(listing).hexdigest())


@cache
def _processor() -> tuple[str, str]:
    """(model, relevant features) of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine(), ""
    fields = dict(re.findall(r"^(model name|flags|Features)\s*:\s*(.*)$", text, re.M))
    flags = set((fields.get("flags") or fields.get("Features") or "").split())
    return fields.get("model name", platform.machine()).strip(), " ".join(sorted(flags & _RELEVANT))


def captured(*, threads: int, env: Mapping[str, str], isolation: tuple[str, ...]) -> dict[str, str]:
    """The environment of one training, for its manifest: flat text by name.

    `env` is the training's whole environment; the variables that steer results are recorded. `isolation` is what the
    training had to itself, of user, network and mounts.
    """
    model, features = _processor()
    libc = "-".join(platform.libc_ver())
    return {
        "cpu_features": features,
        "cpu_model": model,
        "cublas_workspace_config": env.get("CUBLAS_WORKSPACE_CONFIG", ""),
        "interpreter": f"{platform.python_implementation()} {platform.python_version()}",
        "interpreter_cache_tag": sys.implementation.cache_tag or "",
        "isolation": " ".join(isolation),
        "libc": libc,
        "libraries_sha256": libraries().sha256,
        "machine": platform.machine(),
        "python_hash_seed": env.get("PYTHONHASHSEED", ""),
        "system": f"{platform.system()} {platform.release()}",
        "threads": str(threads),
    }
