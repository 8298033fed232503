"""`ai-infra dev`: a real Kafka, Postgres and S3 on this machine, and our services beside them.

Results go to standard output, progress to standard error, so that `eval "$(ai-infra dev env)"` and `--json` work while
people still see what happens.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ai_infra.cli.output import Json, note, rows, show
from ai_infra.devstack import PartStatus, Stack, StackError, StackNotRunning
from ai_infra.devstack.claims import is_claimed
from ai_infra.devstack.environment import as_exports
from ai_infra.devstack.progress import Progress
from ai_infra.devstack.stack import HOME
from ai_infra.devstack.waiting import wait_until
from ai_infra.errors import ConfigurationError

app = typer.Typer(help="Real Kafka, Postgres and S3 on this machine.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="Which stack; two live side by side under different names.")]
WELL = ("running", "stopped")


@app.command()
def up(
    name: Name = "dev",
    lanes: Annotated[int, typer.Option(help="Partitions of every lane topic; counts at the first start only.")] = 8,
    services: Annotated[bool, typer.Option("--services", help="Start every installed service too.")] = False,
    json: Json = False,
) -> None:
    """Start what doesn't run: servers, keys, topics, buckets, tables. May be repeated."""
    stack = Stack(name, lanes=lanes)
    say = _progress()
    with _explained(json):
        info = stack.up(say)
        if services:
            stack.start_services(say)
    found = stack.urls()
    data = {"name": name, "directory": info.directory, "backend": info.backend, "seconds": info.seconds, "urls": found}
    show(data, json=json, table=lambda: rows(("part", "address"), found.items()))
    note(f"\nThe stack {name} is up ({info.seconds:.0f} s).")
    if name == "dev":
        note('Commands in this directory find it by themselves; other programs by: eval "$(ai-infra dev env)"')
    else:
        note(f'Programs find it by: eval "$({_command("env", name)})"')
    note(f"Look at it: {_command('status', name)}   Stop it: {_command('down', name)}")


@app.command()
def down(
    name: Name = "dev",
    every: Annotated[
        bool, typer.Option("--all", help="Every stack of this directory, but those that a test run holds.")
    ] = False,
    json: Json = False,
) -> None:
    """Stop services and servers. Data stays."""
    names = _names() if every else [name]
    with _explained(json):
        for found in names:
            Stack(found).down(_progress())
    show({"stopped": names}, json=json, table=f"stopped: {', '.join(names) or 'nothing, there is no stack here'}")


@app.command()
def status(name: Name = "dev", json: Json = False) -> None:
    """What runs, and where. Exits with 1 when something that should run doesn't."""
    parts = Stack(name).status()
    show(parts, json=json, table=lambda: rows(("part", "state", "address", "pid", "log"), map(_row, parts)))
    if any(part.state == "crashed" for part in parts):
        note("\nSomething ended by itself:")
        note(f"  {_command('logs', name)} PART  says why")
        note(f"  {_command('up', name)}  starts it again (with --services the services too)")
    elif all(part.state == "stopped" for part in parts):
        note(f"\nNothing runs. Start it: {_command('up', name)}")
    if any(part.state not in WELL for part in parts):
        raise typer.Exit(1)


@app.command()
def logs(
    part: Annotated[str, typer.Argument(help="kafka, postgres, s3, or a service or one replica of it (trainer-0).")],
    name: Name = "dev",
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    json: Json = False,
) -> None:
    """The last lines of a part or a service."""
    stack = Stack(name)
    known = [status.name for status in stack.status()]
    if part not in known and f"{part}-0" in known:
        part = f"{part}-0"
    if part not in known:
        raise StackError(f"{part} is no part of the stack {name}; there are {', '.join(known)}")
    found = stack.logs(part, lines)
    show({"part": part, "lines": found.splitlines()}, json=json, table=found)
    if follow:
        _follow(stack.log_path(part))


@app.command()
def fetch(json: Json = False) -> None:
    """Fetch Kafka and build the S3 server, once for all stacks of this machine; start nothing."""
    with _explained(json):
        Stack("dev").fetch(_progress())
    fetched = ("kafka", "s3")
    show({"fetched": fetched}, json=json, table=f"here: {', '.join(fetched)}")


@app.command()
def restart(
    part: Annotated[str, typer.Argument(help="kafka, postgres, s3, a replica such as trainer-0; or all.")] = "all",
    name: Name = "dev",
    json: Json = False,
) -> None:
    """Stop and start a part, or all."""
    stack = Stack(name)
    say = _progress()
    with _explained(json):
        if part != "all":
            stack.restart(part, say)
        else:
            replicas = stack.services()
            stack.down(say)
            stack.up(say)
            for replica in replicas:
                service, _, number = replica.rpartition("-")
                stack.start_service(service, int(number))
    status(name, json)


@app.command()
def reset(
    name: Name = "dev",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Stop everything and delete its data: log, registry, buckets, keys. Downloads are kept."""
    stack = Stack(name)
    there = stack.directory.exists()
    if there:
        if not yes:
            typer.confirm(f"Delete all data of the stack {name} in {stack.directory}?", abort=True, err=True)
        stack.reset(_progress())
    deleted = [stack.directory] if there else []
    show(
        {"deleted": deleted}, json=json, table=f"deleted: {stack.directory if there else 'nothing, there was no stack'}"
    )


@app.command()
def urls(name: Name = "dev", json: Json = False) -> None:
    """Where everything listens."""
    found = Stack(name).urls()
    show(found, json=json, table=lambda: rows(("part", "address"), found.items()))


@app.command()
def env(name: Name = "dev", json: Json = False) -> None:
    """Variables for programs beside the running stack, an orchestrator's key among them."""
    stack = Stack(name)
    if not stack.running():
        raise StackNotRunning(f"the stack {name} does not run: {_command('up', name)}")
    show(stack.env(), json=json, table=as_exports(stack.env()))


@app.command(hidden=True)
def furnish() -> None:
    """Keys, topics, keyring, buckets and tables for servers that somebody else has started: what compose.yaml runs."""
    from ai_infra.devstack import hooks
    from ai_infra.settings import load_settings

    settings = load_settings()
    if settings.keys.dir is None:
        raise ConfigurationError("AI_INFRA_KEYS_DIR is not set: it says where the keys of this stack are kept")
    hooks.initialise_keys(settings.keys.dir, _progress())
    hooks.furnish(settings, _progress())


def _names() -> list[str]:
    here = Path.cwd()
    known = sorted(path.parent.name for path in (here / HOME).glob("*/state.json"))
    return [name for name in known if not is_claimed(here, name)]


def _command(command: str, name: str) -> str:
    return f"ai-infra dev {command}{'' if name == 'dev' else f' --name {name}'}"


def _row(part: PartStatus) -> tuple[object, ...]:
    return part.name, part.state, part.address, part.pid, part.log


def _progress() -> Progress:
    started = time.monotonic()

    def say(line: str) -> None:
        note(f"{time.monotonic() - started:5.0f} s  {line}")

    return say


@contextmanager
def _explained(json: bool) -> Iterator[None]:
    """Errors of a stack keep their lines: what to install tool by tool, the end of a log."""
    try:
        yield
    except StackError as error:
        if json:
            raise
        note(f"error: {error}")
        raise typer.Exit(1) from None


def _follow(path: Path) -> None:
    """Print what is added to a file until Ctrl-C."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while wait_until(lambda: path.stat().st_size > file.tell(), float("inf")):
            print(file.read(), end="", flush=True)
