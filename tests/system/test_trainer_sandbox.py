"""A training runs with nothing but what the contract gives it, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ai_infra_trainer import sandbox
from ai_infra_trainer.exceptions import Cancelled, RunnerUnfit
from ai_infra_trainer.sandbox import Ended, Identity, Limits
from ai_infra_trainer.workspaces import Workspace

Run = Callable[..., tuple[Ended, str]]
NEVER = threading.Event()
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a training a user of its own")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    place = Workspace(tmp_path / "workspace")
    place.make()
    place.code.mkdir()
    place.hyperparams.write_text("{}")
    return place


@pytest.fixture
def who(tmp_path: Path) -> Iterator[Identity]:
    with sandbox.identity(None, tmp_path, NEVER) as found:
        yield found


@pytest.fixture
def run(workspace: Workspace, who: Identity) -> Run:
    workspace.hand_over(who)

    def run(
        *command: str,
        time_limit_s: int = 20,
        memory_mib: int = 512,
        disk_mib: int = 1024,
        cancelled: threading.Event | None = None,
    ) -> tuple[Ended, str]:
        log = workspace.private / "log"
        ended = sandbox.run(
            command,
            cwd=workspace.code,
            workspace=workspace.open,
            env=sandbox.environment(
                home=workspace.home,
                output=workspace.output,
                datasets=workspace.datasets,
                hyperparams=workspace.hyperparams,
                seed=7,
                threads=1,
            ),
            limits=Limits(time_limit_s=time_limit_s, memory_mib=memory_mib, cpu_millis=1000, disk_mib=disk_mib),
            who=who,
            log=log,
            cancelled=cancelled or threading.Event(),
        )
        return ended, log.read_text()

    return run


def test_the_environment_holds_what_the_contract_says_and_no_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AI_INFRA_SIGNER_KEY_B64", "c2VjcmV0")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    ended, log = run("python", "-c", "import json,os; print(json.dumps(dict(os.environ)))")
    seen = json.loads(log)
    assert ended.exit_code == 0
    assert "secret" not in log
    assert "c2VjcmV0" not in log
    assert seen["AI_INFRA_SEED"] == seen["PYTHONHASHSEED"] == "7"
    assert seen["OMP_NUM_THREADS"] == "1"
    assert {name for name in seen if name.startswith("AI_INFRA_")} == {
        "AI_INFRA_DATASETS_DIR",
        "AI_INFRA_HYPERPARAMS",
        "AI_INFRA_OUTPUT_DIR",
        "AI_INFRA_SEED",
    }


def test_its_exit_code_and_its_last_words_are_told(run: Run) -> None:
    ended, log = run("python", "-c", "raise SystemExit('no such column: age')")
    assert (ended.exit_code, ended.stopped, ended.last_line) == (1, None, "no such column: age")
    assert log == "no such column: age\n"


@root_only
def test_it_runs_as_a_user_of_its_own_that_can_read_no_key(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("secret")
    key.chmod(0o600)
    ended, log = run("python", "-c", f"import os; print(os.getuid(), os.getgroups()); open({str(key)!r})")
    assert log.startswith(f"{sandbox.FIRST_UID} []\n") or log.startswith("62")
    assert ended.exit_code == 1
    assert "secret" not in log


@root_only
def test_it_has_no_network(run: Run) -> None:
    ended, log = run("python", "-c", "import socket; socket.create_connection(('127.0.0.1', 9), 1)")
    if "network" not in ended.isolation:
        pytest.skip("this kernel permits no network namespace")
    listed = run("python", "-c", "import socket; print(socket.if_nameindex())")[1]
    assert "ConnectionRefusedError" in log
    assert listed.count("(") == 1
    assert "'lo'" in listed


@root_only
def test_what_one_training_leaves_in_tmp_the_next_does_not_see(run: Run) -> None:
    first, _ = run("python", "-c", "open('/tmp/left', 'w'); open('/dev/shm/left', 'w')")
    if "mounts" not in first.isolation:
        pytest.skip("this kernel permits no mount namespace")
    _, log = run("python", "-c", "import os; print(os.path.exists('/tmp/left'), os.path.exists('/dev/shm/left'))")
    assert log == "False False\n"
    assert not Path("/tmp/left").exists()


@root_only
def test_of_the_machine_s_files_it_sees_programs_and_its_own(run: Run, workspace: Workspace) -> None:
    """What all users may read is not meant for foreign code: /run/secrets of a container, homes, our own stack."""
    program = "import os; print(*sorted(e.path for d in ('/', '/run', '/home', '/srv') for e in os.scandir(d)))"
    ended, log = run("python", "-c", program)
    if "mounts" not in ended.isolation:
        pytest.skip("this kernel permits no mount namespace")
    seen = set(log.split())
    assert {"/usr", "/etc", "/run", "/home"} <= seen
    assert not {path for path in seen if path.startswith(("/run/", "/home/", "/srv/"))}
    _, log = run("python", "-c", f"import os; print(*os.listdir({str(Path(__file__).parents[2])!r}))")
    assert log.split() == [".venv"] or "No such file" in log
    if "processes" in ended.isolation:
        assert "No such file" in run("python", "-c", "print(open('/proc/1/cmdline').read())")[1]


def test_a_training_over_its_time_is_ended_with_all_that_it_started(run: Run) -> None:
    begin = time.monotonic()
    ended, log = run("sh", "-c", "setsid sleep 300 & echo $!; sleep 300", time_limit_s=1)
    assert ended.stopped == "time_limit"
    assert time.monotonic() - begin < 10
    assert not psutil.pid_exists(int(log))


def test_a_daemon_that_a_training_leaves_is_ended(run: Run) -> None:
    ended, log = run("sh", "-c", "setsid sh -c 'echo $$; exec sleep 300' & sleep 0.2; exit 0")
    assert (ended.exit_code, ended.stopped) == (0, None)
    assert not psutil.pid_exists(int(log))


def test_a_training_that_ignores_its_end_is_killed(run: Run) -> None:
    ended, _ = run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", time_limit_s=1)
    assert ended.stopped == "time_limit"
    assert ended.exit_code is not None
    assert ended.exit_code != 0


def test_a_cancelled_training_ends_soon(run: Run) -> None:
    cancelled = threading.Event()
    threading.Timer(0.5, cancelled.set).start()
    begin = time.monotonic()
    ended, _ = run("sleep", "300", cancelled=cancelled)
    assert ended.stopped == "cancelled"
    assert time.monotonic() - begin < 10


def test_memory_over_the_limit_ends_it(run: Run) -> None:
    alone, log = run("python", "-c", "x = bytearray(600 << 20)", memory_mib=256)
    assert alone.exit_code == 1
    assert "MemoryError" in log
    fork = "import os, time\nfor _ in range(3):\n  if os.fork() == 0: break\n"
    fork += "x = bytearray(b'x') * (150 << 20)\ntime.sleep(60)"
    together, _ = run("python", "-c", fork, memory_mib=256)
    assert together.stopped == "memory_limit"


@root_only
@pytest.mark.parametrize(
    "hoard",
    [
        "[open(f'/{d}/x', 'wb').write(bytes(90 << 20)) for d in ('tmp', 'var/tmp', 'dev/shm')]",
        "f = [os.memfd_create(str(i)) for i in range(3)]; [os.write(i, bytes(90 << 20)) for i in f]; time.sleep(60)",
    ],
)
def test_files_in_memory_are_memory(run: Run, hoard: str) -> None:
    ended, log = run("python", "-c", f"import os, time; {hoard}", memory_mib=200)
    if "mounts" not in ended.isolation:
        pytest.skip("this kernel permits no mount namespace")
    assert ended.stopped == "memory_limit" or "No space left on device" in log


@pytest.mark.parametrize(
    "hoard",
    [
        "[open(f'x{i}', 'wb').write(bytes(30 << 20)) for i in range(4)]",
        "[open(f'x{i}', 'wb').close() for i in range(20000)]",
        "f = [(open(f'x{i}', 'wb'), os.unlink(f'x{i}')) for i in range(4)]; [o.write(bytes(30 << 20)) for o, _ in f]",
    ],
    ids=["many large files", "very many empty files", "files without a name"],
)
def test_a_training_that_fills_the_disk_is_ended(run: Run, hoard: str) -> None:
    program = f"import os, time; os.chdir(os.environ['AI_INFRA_OUTPUT_DIR']); {hoard}; time.sleep(60)"
    ended, log = run("python", "-c", program, disk_mib=64, time_limit_s=30)
    assert ended.stopped == "disk_limit", log


def test_a_flood_of_output_is_kept_to_a_bound(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MAX_LOG_BYTES", 1000)
    ended, log = run("python", "-c", "print('x' * 5000)\nprint('the end')")
    assert len(log) < 1100
    assert "4009 more bytes of output were not kept" in log
    assert ended.last_line == "the end"


def test_a_program_that_is_not_there_is_named(run: Run) -> None:
    ended, _ = run("./missing.sh")
    assert ended.stopped == "not_started"
    assert "No such file" in ended.error


def test_when_the_trainer_dies_its_trainings_die(tmp_path: Path, workspace: Workspace, who: Identity) -> None:
    """The launcher's lifeline is a pipe that the trainer holds: this plays a trainer that is killed."""
    workspace.hand_over(who)
    pid_file = workspace.output / "pid"
    child = os.fork()
    if child == 0:
        env = sandbox.environment(
            home=workspace.home,
            output=workspace.output,
            datasets=workspace.datasets,
            hyperparams=workspace.hyperparams,
            seed=1,
            threads=1,
        )
        sandbox.run(
            ["sh", "-c", f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; sleep 300"],
            cwd=workspace.code,
            workspace=workspace.open,
            env=env,
            limits=Limits(time_limit_s=300, memory_mib=256, cpu_millis=1000, disk_mib=1024),
            who=who,
            log=tmp_path / "log",
            cancelled=threading.Event(),
        )
        os._exit(0)
    wait_until(pid_file.exists)
    pid = int(pid_file.read_text())
    assert psutil.pid_exists(pid)
    os.kill(child, 9)
    os.waitpid(child, 0)
    wait_until(lambda: not psutil.pid_exists(pid))


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    poll = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        poll.wait(0.02)


@root_only
def test_two_trainings_at_once_have_two_users(tmp_path: Path) -> None:
    with sandbox.identity(None, tmp_path, NEVER) as one, sandbox.identity(None, tmp_path, NEVER) as two:
        assert one.uid != two.uid


@root_only
def test_a_user_that_is_named_has_one_training_at_a_time(tmp_path: Path) -> None:
    """Two of one user could change each other's outputs before they are packed."""
    cancelled = threading.Event()
    with sandbox.identity("nobody", tmp_path, NEVER):
        threading.Timer(0.5, cancelled.set).start()
        with pytest.raises(Cancelled), sandbox.identity("nobody", tmp_path, cancelled):
            pass
    with sandbox.identity("nobody", tmp_path, NEVER):
        pass


@root_only
def test_no_training_runs_as_root(tmp_path: Path) -> None:
    with pytest.raises(RunnerUnfit, match="do not run as root"), sandbox.identity("root", tmp_path, NEVER):
        pass
