"""`python -m benchmarks.run`: measures on a stack of its own, prints one table for people, writes JSON.

It takes its stack down and deletes it at the end, also when something fails. Nothing here is a test: what is slow is
shown, not failed; the exit code says only whether everything could be measured.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from ai_infra.devstack import Stack
from ai_infra.settings import Settings
from benchmarks import auditing, crypto, flow, indexing, latency, machine, memory, runtime, writing
from benchmarks.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "out"
# In this order: each finds clean topics.
NAMES = (
    "writing",
    "audit",
    "rebuild",
    "latency",
    "indexing",
    "memory",
    "runtime",
    "registration",
    "promotion",
)
EVENTS = 9_000
LOG = 4  # times so many entries are in the log that is read back, and in the memory's course
SAMPLES = 60
QUICK_EVENTS = 3_000
QUICK_SAMPLES = 20


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    _forget_environment()
    wanted = tuple(options.only or NAMES)
    _quiet()
    stack = Stack(options.stack, ROOT)
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    figures: list[Figure] = []
    failed: list[str] = []
    facts: dict[str, Any] = {}
    try:
        stack.reset()
        stack.up(progress)
        settings = stack.settings()
        facts = machine.describe(settings)
        figures += _limits()
        for name in NAMES:
            if name not in wanted:
                continue
            try:
                figures += _measure(name, stack, settings, options, progress)
            except Exception as error:
                failed.append(f"{name}: {type(error).__name__}: {error}")
                print(f"{name} could not be measured: {error}", file=sys.stderr)
                if options.debug:
                    raise
    finally:
        stack.reset(progress)
    facts["load_average_at_end"] = machine.load()
    print(_report(facts, figures, failed, time.monotonic() - started))
    path = _write(facts, figures, failed)
    print(f"\nAs JSON: {path.relative_to(ROOT)}. What each line means: benchmarks/README.md")
    return 1 if failed else 0


def _measure(
    name: str,
    stack: Stack,
    settings: Settings,
    options: argparse.Namespace,
    progress: Callable[[str], None],
) -> list[Figure]:
    events = options.events or (QUICK_EVENTS if options.quick else EVENTS)
    samples = QUICK_SAMPLES if options.quick else SAMPLES
    OUT.mkdir(exist_ok=True)
    target = OUT / "runtime.prof" if options.profile else None
    measures: dict[str, Callable[[], list[Figure]]] = {
        "writing": lambda: writing.measure(settings, max(1, events // 3), progress),
        "audit": lambda: auditing.measure_audit(stack, settings, events * LOG, progress),
        "rebuild": lambda: auditing.measure_rebuild(stack, settings, events * LOG, progress),
        "latency": lambda: latency.measure(stack, settings, samples / 3, progress),
        "indexing": lambda: indexing.measure(stack, settings, events, progress),
        "memory": lambda: memory.measure(stack, settings, options.memory_events or events * LOG, progress),
        "runtime": lambda: runtime.measure(stack, settings, events, progress, target),
        "registration": lambda: flow.measure_registration(stack, settings, samples, progress),
        "promotion": lambda: flow.measure_promotion(stack, settings, samples, progress),
    }
    return measures[name]()


def _limits() -> list[Figure]:
    """What one core can do at most, now."""
    signing, verifying = crypto.signatures(), crypto.verifications()
    return [
        Figure(
            f"Ed25519 {what}",
            "PyNaCl, 1,024 bytes, 1 thread",
            span.rate,
            "1/s",
            detail={"per_cpu_second": round(span.cpu_rate)},
        )
        for what, span in (("signatures", signing), ("verifications", verifying))
    ]


def _report(facts: dict[str, Any], figures: list[Figure], failed: list[str], seconds: float) -> str:
    rows = [("figure", "measured", "beside it", "ratio", "by CPU", "CPU a piece", "limit")]
    for figure in figures:
        peer = f"{figure.peer_value:,.0f} {figure.peer}" if figure.peer_value is not None else ""
        cpu = figure.detail.get("cpu_us_per_event")
        limit = figure.limit if figure.met is None else f"{figure.limit}: {'met' if figure.met else 'MISSED'}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        by_cpu = f"{figure.detail['cpu_ratio']:.2f}" if "cpu_ratio" in figure.detail else ""
        value = f"{figure.value:,.1f} {figure.unit}" if figure.unit == "ms" else f"{figure.value:,.0f} {figure.unit}"
        rows.append((figure.name, value, peer, ratio, by_cpu, "" if cpu is None else f"{cpu:,.0f} µs", limit))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    for figure in figures:
        if figure.below:
            lines += ["", f"{figure.name}:", figure.below]
    lines += ["", f"{machine.in_words(facts)}, {facts['load_average_at_end'][0]} at the end; {seconds:.0f} s in all"]
    lines += [f"NOT MEASURED: {what}" for what in failed]
    return "\n".join(lines)


def _write(facts: dict[str, Any], figures: list[Figure], failed: list[str]) -> Path:
    OUT.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    data = {
        "at": now.isoformat(timespec="seconds"),
        "machine": facts,
        "figures": [figure.to_dict() for figure in figures],
        "failed": failed,
    }
    path = OUT / f"{now:%Y%m%dT%H%M%SZ}.json"
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text)
    (OUT / "latest.json").write_text(text)
    return path


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer events: minutes become one, figures rougher")
    parser.add_argument("--only", action="append", choices=NAMES, help="only this one (may be repeated)")
    parser.add_argument("--events", type=int, help=f"events of a measurement (default {EVENTS})")
    parser.add_argument("--memory-events", type=int, help=f"events of the memory's course (default {EVENTS * LOG})")
    parser.add_argument("--stack", default="bench", help="name of the stack, deleted before and after (default bench)")
    parser.add_argument("--profile", action="store_true", help="profile the runtime into benchmarks/out/*.prof")
    parser.add_argument("--debug", action="store_true", help="end with the stack trace of the first failure")
    options = parser.parse_args(argv)
    if not options.stack.startswith("bench"):
        parser.error(f"the stack is deleted before and after, so its name begins with bench; this is {options.stack}")
    return options


def _forget_environment() -> None:
    """What people have set for their own work must not reach the benchmarks."""
    for name in list(os.environ):
        if name.startswith(("AI_INFRA_", "KAFKA_", "AWS_")):
            del os.environ[name]


def _quiet() -> None:
    """The runtime's lines about its lanes would stand between our own."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


if __name__ == "__main__":
    sys.exit(main())
