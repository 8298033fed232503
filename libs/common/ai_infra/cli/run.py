"""`ai-infra run`: a service in the foreground, or all of them, until a signal asks to stop.

Asked to stop, a service finishes its batch and leaves its group. What ends it besides is an exit code other than 0: who
started it (systemd, Kubernetes, `run all`) starts it anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Annotated, Any, Final

import structlog
import typer

from ai_infra.cli.output import Json, note, show
from ai_infra.cli.stopping import stop_on_signal
from ai_infra.errors import AiInfraError, ConfigurationError

ENTRY_POINTS: Final = "ai_infra.services"
ALL: Final = "all"
KILL_SECONDS: Final = 40.0  # a stop that takes this long is ended by who started it
RESTART_AFTER: Final = 1.0  # seconds; doubled with each failure in a row
RESTART_AT_MOST: Final = 30.0
_HEALTHY_SECONDS: Final = 30.0  # who has run this long failed for a new reason

log = structlog.get_logger(__name__)
app = typer.Typer(help="Run a service, or all of them, in the foreground.")


@app.command()
def run(
    service: Annotated[str, typer.Argument(help="A service's name, or `all`.")],
    replicas: Annotated[
        list[str] | None, typer.Option("--replicas", help="With `all`: SERVICE=N, may be repeated; 1 by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Run until Ctrl-C or SIGTERM, then finish what is open and leave. A second signal ends it at once."""
    if replicas and service != ALL:
        raise ConfigurationError("--replicas goes with `run all`; start one process per replica of a single service")
    code = _run_all(_counts(replicas or [])) if service == ALL else run_one(service)
    if json:
        show({"service": service, "exit_code": code}, json=json)
    raise typer.Exit(code)


def installed() -> dict[str, Any]:
    """Entry points of the services of this installation, by name."""
    return {entry.name: entry for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name)}


def run_one(name: str) -> int:
    """Runs a service in this process; returns its exit code. Errors of ours are logged and raised."""
    from ai_infra.settings import load_settings
    from ai_infra.telemetry.logs import configure_logging
    from ai_infra.telemetry.traces import close_tracing, configure_tracing

    found = installed()
    if name not in found:
        raise ConfigurationError(f"there is no service {name!r} here; there are {', '.join(found) or 'none'}, and all")
    settings = load_settings()
    configure_logging(settings, name)
    try:
        main = found[name].load()
    except ImportError as error:
        raise ConfigurationError(
            f"{name} can't be loaded ({error}); install what it needs: pip install 'ai-infra[{name}]'"
        ) from None
    configure_tracing(settings, name)
    with stop_on_signal() as stop:
        try:
            return int(main(settings, stop))
        except AiInfraError:
            raise
        except Exception:
            log.exception("service failed", service=name)
            return 1
        finally:
            close_tracing()


@dataclass(slots=True)
class _Child:
    """A replica that `run all` keeps up."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes]
    started: float
    failures: int = 0
    again_at: float | None = field(default=None)


def _counts(replicas: Sequence[str]) -> dict[str, int]:
    counts = dict.fromkeys(installed(), 1)
    if not counts:
        raise ConfigurationError("no service is installed; pip install 'ai-infra[trainer,registry,promoter,indexer]'")
    for text in replicas:
        name, _, number = text.partition("=")
        if name not in counts or not number.isdigit():
            raise ConfigurationError(f"--replicas wants SERVICE=N with one of {', '.join(counts)}; got {text!r}")
        counts[name] = int(number)
    return counts


def _run_all(counts: dict[str, int]) -> int:
    """Starts every replica as a process of its own, starts again what ends, and stops all of them gracefully."""
    children = [_start(name, replica) for name, count in counts.items() for replica in range(count)]
    note(f"running {', '.join(c.name for c in children)}; Ctrl-C stops them")
    with stop_on_signal(slow=KILL_SECONDS + 5) as stop:
        # A wait of its own for each child would be a thread each; looking five times a second is cheap.
        while not stop.wait(0.2):
            for child in children:
                _keep_up(child)
        return _stop_all(children)


def _start(name: str, replica: int) -> _Child:
    # Ports: only the first replica may have the configured one, and only when one service runs. 0 takes any free one.
    environment = {**os.environ, "AI_INFRA_HTTP_PORT": "0", "AI_INFRA_REPLICA": str(replica)}
    command = [sys.executable, "-m", "ai_infra.cli.main", "run", name]

    def start() -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C reaches us alone, and we tell the children once.
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)

    return _Child(f"{name}-{replica}", start, start(), time.monotonic())


def _keep_up(child: _Child) -> None:
    now = time.monotonic()
    if child.again_at is not None:
        if now >= child.again_at:
            child.process, child.started, child.again_at = child.start(), now, None
        return
    code = child.process.poll()
    if code is None:
        return
    child.failures = 1 if now - child.started > _HEALTHY_SECONDS else child.failures + 1
    pause = min(RESTART_AT_MOST, RESTART_AFTER * 2 ** (child.failures - 1))
    child.again_at = now + pause
    note(f"{child.name} ended with exit code {code}; starting it again in {pause:.0f} s")


def _stop_all(children: Sequence[_Child]) -> int:
    note("stopping …")
    for child in children:
        if child.process.poll() is None:
            child.process.terminate()
    deadline = time.monotonic() + KILL_SECONDS
    worst = 0
    for child in children:
        try:
            code = child.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
            note(f"{child.name} did not stop within {KILL_SECONDS:.0f} s and was ended")
            worst = 1
            continue
        if code != 0 and child.again_at is None:
            note(f"{child.name} stopped with exit code {code}")
            worst = 1
    note("all stopped")
    return worst
