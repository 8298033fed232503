"""What `ai-infra doctor` looks at on this machine: each finding says what is there, and what to do where it isn't.

It changes nothing and starts nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ai_infra.devstack.cache import cache_directory
from ai_infra.devstack.containers import engine_answers
from ai_infra.devstack.kafka import Kafka
from ai_infra.devstack.part import Tool
from ai_infra.devstack.ports import USUAL, is_free
from ai_infra.devstack.postgres import Postgres
from ai_infra.devstack.s3 import S3
from ai_infra.devstack.stack import Stack

LEAST_PYTHON: Final = (3, 11)
LEAST_DISK_GIB: Final = 3.0  # downloads 0.2, Go's build cache 1, a virtual environment 1, logs and data of a demo
LEAST_MEMORY_GIB: Final = 3.0  # broker 0.6, Postgres and S3 0.2, five services 0.1 each, a training
GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is ok, note (works, but worth knowing) or problem (something will not work)."""

    name: str
    state: str
    found: str
    advice: str = ""


def examine_machine(root: Path) -> list[Finding]:
    """Everything that a stack in `root` needs from this machine."""
    findings = [_python()]
    missing, tools = _tools(root)
    docker = engine_answers() if missing else None
    if docker:
        tools = [Finding(tool.name, "note", tool.found, tool.advice) for tool in tools]
        tools.append(Finding("Docker", "ok", "an engine answers: the stack takes containers of compose.yaml"))
    findings += tools
    findings += [_disk(root), _memory(), _ports(root)]
    return findings


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] < LEAST_PYTHON:
        return Finding("Python", "problem", version, "use Python 3.11 or newer")
    return Finding("Python", "ok", f"{version} at {sys.executable}")


def _tools(root: Path) -> tuple[bool, list[Finding]]:
    parts = (Kafka(root), Postgres(root, ""), S3(root, "", ""))
    tools: list[Tool] = [tool for part in parts for tool in part.tools()]
    findings = [
        Finding(tool.name, "ok", tool.found) if tool.found else Finding(tool.name, "problem", "not found", tool.advice)
        for tool in tools
    ]
    if cache_directory().is_dir():
        kept = sorted(path.name for path in cache_directory().iterdir() if path.is_dir() and path.name[0] != ".")
        findings.append(Finding("downloads", "ok", ", ".join(kept) or "none yet"))
    return any(tool.missing for tool in tools), findings


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free / GIB
    if free < LEAST_DISK_GIB:
        return Finding("disk", "problem", f"{free:.1f} GiB free", f"free {LEAST_DISK_GIB:.0f} GiB")
    return Finding("disk", "ok", f"{free:.0f} GiB free")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError):
        return Finding("memory", "note", "unknown")
    if total < LEAST_MEMORY_GIB:
        return Finding("memory", "note", f"{total:.1f} GiB", f"a stack with all services wants {LEAST_MEMORY_GIB:.0f}")
    return Finding("memory", "ok", f"{total:.0f} GiB")


def _ports(root: Path) -> Finding:
    if Stack("dev", root).running():
        return Finding("ports", "ok", "the stack dev runs")
    taken = [f"{port} ({name})" for name, port in USUAL.items() if not is_free(port)]
    if taken:
        return Finding("ports", "note", f"in use: {', '.join(taken)}", "a stack takes others: `ai-infra dev urls`")
    return Finding("ports", "ok", "the usual ones are free")
