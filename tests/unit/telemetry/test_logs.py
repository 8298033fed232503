"""Log lines: their form, and what must never be in them."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from ai_infra.telemetry.logs import configure_logging, log_as_a_library, without_secrets


def settings(log_format: str = "json", log_level: str = "INFO", replica: int = 0) -> Any:
    return SimpleNamespace(
        telemetry=SimpleNamespace(log_format=log_format, log_level=log_level), service=SimpleNamespace(replica=replica)
    )


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_is_one_json_object_with_service_and_time() -> None:
    out = io.StringIO()
    configure_logging(settings(replica=1), "trainer", stream=out)
    structlog.get_logger("ai_infra.bus").info("lane taken", lane=3)
    line = json.loads(out.getvalue())
    assert line["event"] == "lane taken"
    assert (line["service"], line["replica"], line["lane"], line["level"]) == ("trainer", 1, 3, "info")
    assert line["timestamp"].endswith("Z")


def test_lines_of_libraries_come_out_the_same_way() -> None:
    out = io.StringIO()
    configure_logging(settings(), "trainer", stream=out)
    logging.getLogger("some.library").warning("retrying %d", 2)
    assert json.loads(out.getvalue())["event"] == "retrying 2"


def test_below_the_level_nothing_is_written() -> None:
    out = io.StringIO()
    configure_logging(settings(log_level="warning"), "trainer", stream=out)
    structlog.get_logger().info("quiet")
    assert out.getvalue() == ""


def test_a_secret_never_reaches_a_line_by_name_or_by_form() -> None:
    out = io.StringIO()
    for form in ("json", "text"):
        configure_logging(settings(log_format=form), "trainer", stream=out)
        structlog.get_logger().info(
            "connecting to postgres://ai:hunter2@db/x",
            password="hunter2",
            nested={"AWS_SECRET_ACCESS_KEY": "hunter2", "list": ["Bearer hunter2hunter2"]},
            url="https://u:hunter2@host/",
        )
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count("[removed]") >= 8


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_secret_in_the_text_of_an_error_never_reaches_a_line(log_format: str) -> None:
    """Errors of libraries may quote what they were given."""
    out = io.StringIO()
    configure_logging(settings(log_format), "trainer", stream=out)
    key = "-----BEGIN PRIVATE " + "KEY-----\nhunter2\n-----END PRIVATE KEY-----"
    for text in (
        "cannot connect to postgres://ai:hunter2@db/x",
        "invalid: host=db password=hunter2 user=ai",
        "invalid: password='hunter2 hunter2'",
        f"cannot read {key} as a key",
    ):
        try:
            raise RuntimeError(text)
        except RuntimeError:
            structlog.get_logger("ai_infra.bus").exception("it failed", value=text.encode())
    assert "hunter2" not in out.getvalue()
    assert out.getvalue().count("RuntimeError") >= 4


def test_names_of_keys_are_not_secrets() -> None:
    assert without_secrets({"key_id": "trainer-1", "public_key": "abc", "key": "digits"}) == {
        "key_id": "trainer-1",
        "public_key": "abc",
        "key": "digits",
    }


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_shows_no_local_variables(log_format: str) -> None:
    out = io.StringIO()
    configure_logging(settings(log_format), "trainer", stream=out)
    held = "local-value-" + "of-a-frame"
    try:
        raise RuntimeError(f"{len(held)} characters are not shown")
    except RuntimeError:
        structlog.get_logger("ai_infra.bus").exception("it failed")
    assert "characters are not shown" in out.getvalue()
    assert held not in out.getvalue()


def test_a_program_that_uses_the_sdk_gets_warnings_on_stderr_and_nothing_on_stdout() -> None:
    code = (
        "import structlog\n"
        "from ai_infra.telemetry.logs import log_as_a_library\n"
        "log_as_a_library()\n"
        "log = structlog.get_logger('ai_infra.somewhere')\n"
        "log.debug('quiet', detail=1)\n"
        "log.warning('loud', password='p')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "event='loud' password='[removed]'\n"


def test_a_program_that_configured_its_own_logging_keeps_it() -> None:
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    log_as_a_library()
    assert len(structlog.get_config()["processors"]) == 1
