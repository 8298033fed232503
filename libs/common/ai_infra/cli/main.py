"""The `ai-infra` program: finds the command that was asked for, runs it, and turns failures into one clear line.

Commands are found late: `ai-infra --help` and `ai-infra dev up` import nothing of the others. Built-in groups are the
modules of this package, each with a Typer `app` (or `commands`: name to Typer or function); services add theirs by the
entry point group `ai_infra.commands`, whose values are such dicts too. Where two bring the same group, it has the
commands of both.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

import structlog
import typer
from typer.core import TyperCommand, TyperGroup

from ai_infra.cli.output import print_error
from ai_infra.errors import AiInfraError

ENTRY_POINTS: Final = "ai_infra.commands"

Command = TyperCommand | TyperGroup
# Typer brings a click of its own from some version on; its exceptions are found through one that it has always had.
_UsageError: Final[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")
_ClickError: Final[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

# Name, where it lives in this package (None: in a service), and its line in --help. The order is that of --help.
_KNOWN: Final[tuple[tuple[str, str, str], ...]] = (
    ("status", "status", "Health of everything, and what to do next."),
    ("doctor", "doctor", "Is this machine and this configuration sound?"),
    ("dev", "dev", "Real Kafka, Postgres and S3 on this machine."),
    ("run", "run", "Run a service, or all of them, in the foreground."),
    ("events", "events", "List, show, follow, trace and publish events."),
    ("topics", "topics", "Create and check topics; print the broker's ACLs."),
    ("schemas", "schemas", "Check schemas against what has shipped; generate types."),
    ("groups", "groups", "Consumer groups: show, move, resume after a halt."),
    ("lag", "lag", "How far each service is behind."),
    ("dlq", "dlq", "Dead letters: list, show, redrive, discard."),
    ("db", "db", "The projection's database: migrate, status, reproject, prune."),
    ("keys", "keys", "Keys, roles and the keyring."),
    ("job", "job", "Submit and follow trainings."),
    ("train", "train", "Train here and record it."),
    ("reproduce", "reproduce", "Train an artifact again and compare."),
    ("artifact", "artifact", "Artifacts: where they came from and whether they are what they claim."),
    ("verify-manifest", "verify_manifest", "Verify a manifest and its signature."),
    ("export-lineage", "export_lineage", "Write down where an artifact came from."),
    ("promote", "promote", "Ask for a promotion, follow it, take it back."),
    ("policy", "policy", "The policy in force."),
    ("what-ran", "what_ran", "What served in an environment at a time."),
    ("canary", "canary", "Canaries: how a rollout goes."),
    ("drift", "drift", "Drift: has the world moved?"),
    ("audit", "audit", "Verify, prove, export and replay the log."),
    ("rebuild", "rebuild", "Rebuild the registry from the archive; prove parity."),
)
_SUMMARY: Final = "ai_infra.summary"
# What an installation without extras does not have, and the extra that brings it.
_EXTRA_OF: Final[Mapping[str, str]] = {"boto3": "cli", "botocore": "cli", "psycopg": "cli", "psutil": "trainer"}
_HELP: Final = {name: text for name, _, text in _KNOWN}
_MODULES: Final = {name: f"{__package__}.{module}" for name, module, _ in _KNOWN}
# Of these there is one source, so nothing else has to be loaded to run them.
_OWN: Final = frozenset(
    "status doctor dev run events topics schemas groups lag dlq keys".split()  # noqa: SIM905 - a line of words
)


class Commands(TyperGroup):
    """The top level: knows the names, imports a command only when it is run or when its help is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        plugged = {name for source in _plugged().values() for name in source}
        known = [name for name in _HELP if name in plugged or _built_in_exists(name)]
        return known + sorted(plugged - set(_HELP))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if ctx.meta.get(_SUMMARY) and cmd_name in _HELP:
            return TyperCommand(cmd_name, help=_HELP[cmd_name])  # for the list in --help a name and a line are enough
        return _find(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        ctx.meta[_SUMMARY] = True
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except _UsageError:
            if not args or args[0].startswith("-") or not _broken:
                raise
            why = "; ".join(f"{service}: {error}" for service, error in _broken.items())
        raise _UsageError(f"no command {args[0]!r} here; these services' commands can't be loaded: {why}", ctx=ctx)


def _find(name: str) -> Command | None:
    found: list[Command] = []
    if _built_in_exists(name):
        module = importlib.import_module(_MODULES[name])
        commands: Mapping[str, Any] = getattr(module, "commands", {})
        found.append(_as_command(name, commands.get(name, getattr(module, "app", None))))
    if name not in _OWN:
        found += [_as_command(name, source[name]) for source in _plugged().values() if name in source]
    if not found:
        return None
    first = found[0]
    for other in found[1:]:
        if isinstance(first, TyperGroup) and isinstance(other, TyperGroup):
            for sub in other.commands.values():
                first.add_command(sub)
    if not first.help:
        first.help = _HELP.get(name)
    return first


def _as_command(name: str, source: Any) -> Command:
    if not isinstance(source, typer.Typer):
        if not callable(source):
            raise AiInfraError(f"the command {name} is neither a Typer app nor a function: {source!r}")
        function, source = source, typer.Typer()
        source.command()(function)
    source._add_completion = False  # offered once, at the top
    command = cast(Command, typer.main.get_command(source))
    command.name = name
    return command


def _built_in_exists(name: str) -> bool:
    return name in _MODULES and importlib.util.find_spec(_MODULES[name]) is not None


_broken: dict[str, str] = {}
_loaded: dict[str, Mapping[str, Any]] = {}


def _plugged() -> Mapping[str, Mapping[str, Any]]:
    """The commands that each installed service brings. One that can't be loaded brings none; `_broken` says why."""
    if not _loaded:
        entry: EntryPoint
        for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda e: e.name):
            try:
                _loaded[entry.name] = dict(entry.load())
            except Exception as error:  # noqa: BLE001 - one service that can't be loaded must not take all others along
                _loaded[entry.name] = {}
                _broken[entry.name] = _missing(error) or f"{type(error).__name__}: {error}"
    return _loaded


def _missing(error: BaseException) -> str | None:
    """What to install, where an error says that a part of an extra isn't there."""
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = _EXTRA_OF.get(module)
    return None if extra is None else f"{module} is not installed: pip install 'ai-infra[{extra}]'"


def program() -> Any:
    """The whole command line as a click command."""
    app = typer.Typer(
        cls=Commands,
        name="ai-infra",
        help="One signed log is the truth: trainings, artifacts, promotions and what runs where.",
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    @app.callback()
    def top() -> None: ...

    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command and exits: 0 when all is well, 1 on a failure, 2 on wrong usage, 130 on Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in arguments
    _quiet_logging()
    try:
        status = program().main(args=arguments, prog_name="ai-infra", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(status if isinstance(status, int) else 0)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except _ClickError as wrong:
        if as_json:
            print_error(AiInfraError(wrong.format_message(), code="usage"), json=True)
        else:
            _show_usage(wrong)
        sys.exit(wrong.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Who reads our output has seen enough (`| head`). Python would complain again when it closes stdout.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except AiInfraError as error:
        print_error(error, json=as_json)
        sys.exit(1)
    except Exception as error:  # the last net: a line for people, the trace for who asks for it
        if (missing := _missing(error)) is not None:
            print_error(AiInfraError(f"for this command {missing}", code="extra_missing"), json=as_json)
            sys.exit(1)
        if os.environ.get("AI_INFRA_LOG_LEVEL", "").lower() == "debug":
            raise
        print_error(error, json=as_json)
        if not as_json:
            sys.stderr.write("This is a fault of ours. AI_INFRA_LOG_LEVEL=debug shows where.\n")
        sys.exit(1)


def _show_usage(wrong: Any) -> None:
    """One line for wrong usage, and where the right one is; a group without a command shows its help."""
    context = getattr(wrong, "ctx", None)
    message = wrong.format_message().rstrip()
    if context is None or type(wrong).__name__ == "NoArgsIsHelpError":
        wrong.show()
        return
    stop = "" if message.endswith((".", "?", "!")) else "."
    print_error(AiInfraError(f"{message}{stop} See: {context.command_path} --help", code="usage"), json=False)


def _quiet_logging() -> None:
    """A command's result isn't mixed with log lines; AI_INFRA_LOG_LEVEL=debug shows them. `run` sets up its own."""
    debug = os.environ.get("AI_INFRA_LOG_LEVEL", "").lower() == "debug"
    level = logging.DEBUG if debug else logging.CRITICAL
    logging.basicConfig(level=level, stream=sys.stderr, force=True)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


if __name__ == "__main__":
    main()
