"""How fast the log is read back: `ai-infra audit verify` against the Kernel's verifier on the same rows, and
`ai-infra rebuild` against what the cores can verify.

Both are run as the commands that people run, over a log that the indexer has made. The Kernel's program sees one
signature a row; ours two (the event's and the row's), the roles, every column, and that the row follows from the event.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import psycopg

from ai_infra.devstack import Stack
from ai_infra.settings import Settings
from benchmarks import cost, crypto
from benchmarks.figure import Figure, Span, compared
from benchmarks.filling import fill

VERIFIER = Path(__file__).parent / "kernel_verifier.mjs"
TURNS = 2
COMMAND_SECONDS = 300.0
AUDIT_AIM = 3.0  # times the Kernel's verifier
REBUILD_AIM = 0.5  # of what all cores can verify
CORES = os.cpu_count() or 1

_ROWS = (
    "SELECT id, payload::text, prev_hash, hash, signature, signer_id, created_at::text FROM audit_events "
    "WHERE lane = %s ORDER BY created_at DESC"
)


def measure_audit(stack: Stack, settings: Settings, events: int, progress: Callable[[str], None]) -> list[Figure]:
    """`audit verify` of every lane from Postgres, and the Kernel's verifier over the same rows, by turns."""
    if shutil.which("node") is None:
        raise RuntimeError("the Kernel's verifier is a Node program, and there is no Node here: install 18 or newer")
    fill(stack, settings, events, progress)
    ours: list[Span] = []
    kernel: list[Span] = []
    with TemporaryDirectory() as directory:
        files = _rows(settings, Path(directory))
        signers = stack.directory / "keys" / "signers.json"
        for turn in range(TURNS):
            progress(f"ai-infra audit verify --from postgres, turn {turn + 1} of {TURNS} …")
            answer, span = _command(stack, "audit", "verify", "--from", "postgres", "--json")
            entries = sum(lane["entries"] for lane in answer["lanes"])
            ours.append(Span(entries, answer["seconds"], span.cpu))
            progress("the Kernel's verifier over the same rows …")
            kernel.append(_kernel(signers, files))
            if kernel[-1].events != entries:
                raise RuntimeError(f"the Kernel's verifier saw {kernel[-1].events} rows, ours {entries}")
    what = "every lane from Postgres: both signatures, roles, chain, columns"
    figure = compared("audit verify", what, "Kernel's verifier (Node), same rows", ours, kernel)
    assert figure.ratio is not None
    return [_judged(figure, f"at least {AUDIT_AIM:.1f}", met=figure.ratio >= AUDIT_AIM)]


def measure_rebuild(stack: Stack, settings: Settings, events: int, progress: Callable[[str], None]) -> list[Figure]:
    """`rebuild` of every lane into an empty database, between two measurements of what all cores can verify."""
    fill(stack, settings, events, progress)
    ours: list[Span] = []
    limit: list[Span] = []
    parts: list[dict[str, float]] = []
    for turn in range(TURNS):
        verifying = [verifications_of_all_cores()]
        url = stack.create_database("bench_rebuilt")
        try:
            progress(f"ai-infra rebuild, turn {turn + 1} of {TURNS} …")
            before = cost.spent(stack)
            rebuilt, span = _command(stack, "rebuild", "--into", url, "--json")
            after = cost.spent(stack)
        finally:
            stack.drop_database("bench_rebuilt")
        verifying.append(verifications_of_all_cores())
        loaded, besides = sum(lane["loaded"] for lane in rebuilt), {p: after[p] - before[p] for p in ("postgres", "s3")}
        ours.append(Span(loaded, span.wall, span.cpu + sum(besides.values())))  # the limit is that of the whole machine
        parts.append({part: round(used / loaded * 1e6, 1) for part, used in {"rebuild": span.cpu, **besides}.items()})
        limit.append(_sum(verifying))
    what = "every lane from S3 into an empty Postgres, every event's signature, chain, tree"
    figure = compared("rebuild", what, f"Ed25519 verifications, {CORES} cores", ours, limit)
    assert figure.ratio is not None
    figure.detail["cpu_us_per_event_by_part"] = parts
    return [_judged(figure, f"at least {REBUILD_AIM:.2f}", met=figure.ratio >= REBUILD_AIM)]


def verifications_of_all_cores(seconds: float = 1.0) -> Span:
    """Verifications of all cores at once."""
    with ProcessPoolExecutor(CORES, get_context("spawn")) as pool:
        list(pool.map(crypto.verifications, [0.05] * CORES))  # every process has started
        spans = list(pool.map(crypto.verifications, [seconds] * CORES))
    return Span(sum(s.events for s in spans), max(s.wall for s in spans), sum(s.cpu for s in spans))


def _command(stack: Stack, *arguments: str) -> tuple[Any, Span]:
    """What an `ai-infra` command answers, how long it took, and the CPU time of its processes; their start included."""
    began, cpu = time.perf_counter(), _children_cpu()
    done = subprocess.run(
        [sys.executable, "-m", "ai_infra.cli.main", *arguments],
        env=_environment(stack.env()),
        capture_output=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    span = Span(1, time.perf_counter() - began, _children_cpu() - cpu)
    if done.returncode != 0:
        raise RuntimeError(f"ai-infra {' '.join(arguments[:2])} failed: {(done.stderr or done.stdout).decode()[-500:]}")
    return orjson.loads(done.stdout), span


def _kernel(signers: Path, files: list[Path]) -> Span:
    rows, seconds, cpu = 0, 0.0, 0.0
    for file in files:
        done = subprocess.run(
            ["node", VERIFIER, signers, file], capture_output=True, timeout=COMMAND_SECONDS, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the Kernel's verifier does not accept {file.name}: {done.stderr.decode()[-500:]}")
        said = orjson.loads(done.stdout)
        rows, seconds, cpu = rows + said["rows"], seconds + said["seconds"], cpu + said["cpu_seconds"]
    return Span(rows, seconds, cpu)


def _rows(settings: Settings, directory: Path) -> list[Path]:
    """A file of each lane's rows, as the Kernel's verifier selects them."""
    files = []
    with psycopg.connect(settings.database.url) as connection:
        for lane in range(settings.log.lanes):
            rows = connection.execute(_ROWS, (lane,)).fetchall()
            files.append(directory / f"lane-{lane}.jsonl")
            files[-1].write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return files


def _environment(stack: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, **stack}


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _sum(spans: list[Span]) -> Span:
    return Span(sum(s.events for s in spans), sum(s.wall for s in spans), sum(s.cpu for s in spans))


def _judged(figure: Figure, limit: str, *, met: bool) -> Figure:
    return replace(figure, limit=limit, met=met)
