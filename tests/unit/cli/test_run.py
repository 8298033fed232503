"""Signals: the first asks, the second ends, SIGUSR1 and a slow stop show stacks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ai_infra.cli.run import _counts
from ai_infra.errors import ConfigurationError
from ai_infra.trust.init import init_keys

WAITS = """
import sys, time
from ai_infra.cli.stopping import stop_on_signal
with stop_on_signal(slow={slow}) as stop:
    print("ready", flush=True)
    stop.wait(60)
    print("asked", flush=True)
    {then}
sys.exit(5)
"""
STUCK = "while True: time.sleep(0.05)"  # a signal just before one long sleep would be heard after it


@contextmanager
def waiting(*, then: str = "pass", slow: float = 30.0) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS.format(then=then, slow=slow)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert line(process) == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


WITHIN_A_WAIT = """
import os, signal, sys
from ai_infra.cli.stopping import stop_on_signal
with stop_on_signal() as stop:
    with stop._cond:  # what stop.wait() holds for a moment, before and after it waits
        os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(5 if stop.wait(60) else 6)
"""
BEFORE_A_WAIT = """
import os, signal, sys, threading
from ai_infra.cli.stopping import stop_on_signal
with stop_on_signal() as stop:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # as one that came too early to interrupt the wait
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    sys.exit(5 if stop.wait(60) else 6)
"""


@pytest.mark.parametrize("program", [WITHIN_A_WAIT, BEFORE_A_WAIT], ids=["within", "before"])
def test_a_signal_that_does_not_interrupt_a_wait_is_heard_too(program: str) -> None:
    assert subprocess.run([sys.executable, "-c", program], timeout=120, check=False).returncode == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_only_asks(number: int) -> None:
    with waiting() as process:
        process.send_signal(number)
        assert line(process) == "asked"
        assert process.wait(20) == 5


def test_the_second_signal_ends_at_once() -> None:
    with waiting(then=STUCK) as process:
        process.send_signal(signal.SIGTERM)
        assert line(process) == "asked"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def test_a_stop_that_takes_too_long_shows_where_it_is_stuck() -> None:
    with waiting(then=STUCK, slow=0.2) as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "Timeout" in process.stderr.readline()
        assert "Thread" in process.stderr.readline()


def test_sigusr1_shows_stacks_and_ends_nothing() -> None:
    with waiting() as process:
        process.send_signal(signal.SIGUSR1)
        assert process.stderr is not None
        assert any("Current thread" in text for text in iter(process.stderr.readline, ""))
        assert process.poll() is None


def test_a_crash_in_native_code_shows_where_it_came_from() -> None:
    with waiting(then="import ctypes; ctypes.string_at(0)") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert "Fatal Python error" in process.stderr.readline()
        assert process.wait(20) == -signal.SIGSEGV


def test_replicas_are_counted_by_service() -> None:
    counts = _counts(["trainer=3", "canary=0"])
    assert (counts["trainer"], counts["canary"], counts["registry"]) == (3, 0, 1)
    for wrong in ("trainer", "trainer=x", "nobody=1"):
        with pytest.raises(ConfigurationError, match="SERVICE=N"):
            _counts([wrong])


def test_a_service_that_waits_for_kafka_at_its_start_obeys_the_first_signal(tmp_path: Path) -> None:
    """While librdkafka waits in the main thread, Python hears no signal."""
    init_keys(tmp_path / "keys")
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(60)
        settings = {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{broker.getsockname()[1]}",
            "AI_INFRA_KEYS_DIR": str(tmp_path / "keys"),
            "AI_INFRA_HTTP_PORT": "0",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "ai_infra_canary"],
            env={**os.environ, **settings},
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            asking, _ = broker.accept()
            with asking:
                assert asking.recv(1)  # its first question, which nobody answers
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
