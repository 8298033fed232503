"""`ai-infra dev`: a real Kafka, Postgres and S3 on this machine, and our services beside them.

Results go to standard output, progress to standard error, so that `eval "$(ai-infra dev env)"` and `--json` work while
people still see what happens.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ai_infra.devstack import PartStatus, Stack, StackError, StackNotRunning
from ai_infra.devstack.environment import as_exports
from ai_infra.devstack.waiting import wait_until
from ai_infra.errors import ConfigurationError

app = typer.Typer(help="Real Kafka, Postgres and S3 on this machine.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="Which stack; two live side by side under different names.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
WELL = ("running", "stopped")


@app.command()
def up(
    name: Name = "dev",
    lanes: Annotated[int, typer.Option(help="Partitions of every lane topic; counts at the first start only.")] = 8,
    services: Annotated[bool, typer.Option("--services", help="Start every installed service too.")] = False,
    as_json: Json = False,
) -> None:
    """Start what doesn't run: servers, keys, topics, buckets, tables. May be repeated."""
    stack = Stack(name, lanes=lanes)
    say = _progress()
    info = stack.up(say)
    if services:
        stack.start_services(say)
    if as_json:
        _print_json({**dataclasses.asdict(info), "urls": stack.urls()})
        return
    _print_urls(stack.urls())
    print(f"\nThe stack {name} is up ({info.seconds:.0f} s). Programs started in this directory find it by themselves;")
    print("others with: " + _command("env", name, before='eval "$(', after=')"'))
    print(f"Stop it: {_command('down', name)}   Look at it: {_command('status', name)}")


@app.command()
def down(
    name: Name = "dev",
    every: Annotated[bool, typer.Option("--all", help="Every stack of this directory.")] = False,
) -> None:
    """Stop services and servers. Data stays."""
    for stack in [Stack(found) for found in _names()] if every else [Stack(name)]:
        stack.down(_progress())


@app.command()
def status(name: Name = "dev", as_json: Json = False) -> None:
    """What runs, and where. Exits with 1 when something that should run doesn't."""
    stack = Stack(name)
    parts = stack.status()
    if as_json:
        _print_json([dataclasses.asdict(part) for part in parts])
    else:
        _print_status(parts)
        if any(part.state == "crashed" for part in parts):
            print(
                f"\nSomething ended by itself. `{_command('logs', name)} <part>` says why, "
                f"`{_command('up', name)}` starts it again."
            )
        elif all(part.state == "stopped" for part in parts):
            print(f"\nNothing runs. Start it: {_command('up', name)}")
    if any(part.state not in WELL for part in parts):
        raise typer.Exit(1)


@app.command()
def logs(
    part: Annotated[str, typer.Argument(help="kafka, postgres, s3, or a replica such as trainer-0.")],
    name: Name = "dev",
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines.")] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """The last lines of a part or a service."""
    stack = Stack(name)
    known = [status.name for status in stack.status()]
    if part not in known and f"{part}-0" in known:
        part = f"{part}-0"
    if part not in known:
        raise StackError(f"{part} is no part of the stack {name}; there are {', '.join(known)}")
    print(stack.logs(part, lines))
    if follow:
        _follow(stack.log_path(part))


@app.command()
def restart(
    part: Annotated[
        str, typer.Argument(help="kafka, postgres, s3, a replica such as trainer-0; all when left out.")
    ] = "",
    name: Name = "dev",
) -> None:
    """Stop and start a part, or all."""
    stack = Stack(name)
    if part:
        stack.restart(part, _progress())
        return
    replicas = stack.services()
    stack.down(_progress())
    stack.up(_progress())
    for replica in replicas:
        service, _, number = replica.rpartition("-")
        stack.start_service(service, int(number))


@app.command()
def reset(
    name: Name = "dev",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop everything and delete its data: log, registry, buckets, keys. Downloads are kept."""
    stack = Stack(name)
    if not stack.directory.exists():
        print(f"There is no stack {name} here, so there is nothing to delete.")
        return
    if not yes:
        typer.confirm(f"Delete all data of the stack {name} in {stack.directory}?", abort=True)
    stack.reset(_progress())


@app.command()
def urls(name: Name = "dev", as_json: Json = False) -> None:
    """Where everything listens."""
    found = Stack(name).urls()
    if as_json:
        _print_json(found)
    else:
        _print_urls(found)


@app.command()
def env(name: Name = "dev", as_json: Json = False) -> None:
    """Variables for programs beside the running stack, an orchestrator's key among them."""
    stack = Stack(name)
    if not stack.running():
        raise StackNotRunning(f"the stack {name} does not run: {_command('up', name)}")
    if as_json:
        _print_json(stack.env())
    else:
        print(as_exports(stack.env()), end="")


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
    return sorted(path.parent.name for path in (Path.cwd() / ".ai-infra").glob("*/state.json"))


def _command(command: str, name: str, *, before: str = "", after: str = "") -> str:
    return f"{before}ai-infra dev {command}{'' if name == 'dev' else f' --name {name}'}{after}"


def _progress() -> Any:
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {line}", file=sys.stderr, flush=True)

    return say


def _print_json(data: object) -> None:
    print(json.dumps(data, indent=2, default=str))


def _print_urls(found: dict[str, str]) -> None:
    width = max(len(name) for name in found)
    for name, url in found.items():
        print(f"{name:<{width}}  {url}")


def _print_status(parts: list[PartStatus]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("part", "state", "address", "pid", "log"):
        table.add_column(heading, overflow="fold")
    for part in parts:
        table.add_row(part.name, part.state, part.address, str(part.pid or ""), part.log)
    Console().print(table)


def _follow(path: Path) -> None:
    """Print what is added to a file until Ctrl-C."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while wait_until(lambda: path.stat().st_size > file.tell(), float("inf")):
            print(file.read(), end="", flush=True)
