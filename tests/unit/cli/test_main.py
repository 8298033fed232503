"""The program: commands are found late, failures are one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from ai_infra.cli import main as program
from ai_infra.errors import AiInfraError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in this process with the given plugged-in commands; returns exit code, stdout, stderr."""

    def call(*arguments: str, plugged: dict[str, dict[str, Any]] | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(program, "_loaded", plugged if plugged is not None else {"none": {}})
        with pytest.raises(SystemExit) as ended:
            program.main(list(arguments))
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


def failing(as_json: bool = typer.Option(False, "--json")) -> None:
    raise AiInfraError("expected a fish, got a bird;\nfeed it", code="no_fish")


def broken(as_json: bool = typer.Option(False, "--json")) -> None:
    raise RuntimeError("boom")


def test_help_imports_no_command() -> None:
    code = (
        "import sys\nfrom ai_infra.cli import main\n"
        "main._loaded['x'] = {}\n"
        "try: main.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('confluent_kafka', 'boto3', 'psycopg', 'httpx')\n"
        "print(*sorted(m for m in sys.modules if m.startswith('ai_infra.cli.') or m in heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "ai_infra.cli.main ai_infra.cli.output"


def test_help_lists_the_commands_that_are_there(run: Run) -> None:
    code, out, _ = run("--help", plugged={"trainer": {"job": typer.Typer(help="Jobs.")}})
    assert code == 0
    for name in ("status", "events", "topics", "groups", "lag", "dlq", "run", "job"):
        assert f" {name} " in out
    assert "drift" not in out  # nobody brings it


def test_a_failure_is_one_line_on_stderr_and_exit_1(run: Run) -> None:
    code, out, err = run("fails", plugged={"x": {"fails": failing}})
    assert (code, out, err) == (1, "", "error: expected a fish, got a bird; feed it\n")


def test_with_json_a_failure_is_an_object(run: Run) -> None:
    code, out, err = run("fails", "--json", plugged={"x": {"fails": failing}})
    assert (code, out) == (1, "")
    assert json.loads(err) == {"error": {"code": "no_fish", "message": "expected a fish, got a bird;\nfeed it"}}


def test_a_fault_of_ours_is_no_stack_trace_either(run: Run) -> None:
    code, _, err = run("breaks", plugged={"x": {"breaks": broken}})
    assert code == 1
    assert err.startswith("error: RuntimeError: boom\n")
    assert "Traceback" not in err


def test_an_unknown_command_and_a_wrong_option_are_usage_errors(run: Run) -> None:
    assert run("nope")[0] == 2
    code, _, err = run("lag", "--nope", "--json")
    assert code == 2
    assert json.loads(err)["error"]["code"] == "usage"


def test_wrong_usage_is_one_line_that_says_where_the_right_one_is(run: Run) -> None:
    code, out, err = run("lag", "--nope")
    assert (code, out) == (2, "")
    assert err == "error: No such option: --nope. See: ai-infra lag --help\n"


def test_a_command_that_needs_an_extra_says_which_one_to_install(run: Run) -> None:
    def asks_postgres() -> None:
        raise ModuleNotFoundError("No module named 'psycopg.rows'", name="psycopg.rows")

    code, _, err = run("asks", plugged={"x": {"asks": asks_postgres}})
    assert code == 1
    assert err == "error: for this command psycopg is not installed: pip install 'ai-infra[cli]'\n"


def test_what_cannot_be_loaded_is_named_where_it_is_missed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_broken", {"trainer": "ImportError: no psutil"})
    _, _, err = run("jobs")
    assert "trainer: ImportError: no psutil" in err


def test_two_rooms_may_share_a_group(run: Run) -> None:
    first, second = typer.Typer(), typer.Typer()

    @first.command()
    def show() -> None:
        print("shown")

    @first.command()
    def other() -> None: ...

    @second.command()
    def verify() -> None:
        print("verified")

    @second.command()
    def another() -> None: ...

    plugged = {"a": {"artifact": first}, "b": {"artifact": second}}
    assert run("artifact", "show", plugged=plugged)[:2] == (0, "shown\n")
    assert run("artifact", "verify", plugged=plugged)[:2] == (0, "verified\n")


def test_an_exit_code_goes_through(run: Run) -> None:
    def unwell() -> None:
        raise typer.Exit(3)

    assert run("unwell", plugged={"x": {"unwell": unwell}})[0] == 3


def test_a_reader_that_has_seen_enough_gets_no_complaint() -> None:
    code = (
        "from ai_infra.cli import main\n"
        "def much():\n    [print('x' * 1000) for _ in range(10000)]\n"
        "main._loaded['x'] = {'much': much}\nmain.main(['much'])"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(30)


def test_every_command_that_is_shown_has_json() -> None:
    whole = program.program()
    context = whole.make_context("ai-infra", ["status"], resilient_parsing=True)

    def without(command: Any, name: str) -> Iterator[str]:
        if hasattr(command, "list_commands"):
            for inner in command.list_commands(context):
                yield from without(command.get_command(context, inner), f"{name} {inner}")
        elif not command.hidden and not any("--json" in option.opts for option in command.params):
            yield name

    assert list(without(whole, "ai-infra")) == []
