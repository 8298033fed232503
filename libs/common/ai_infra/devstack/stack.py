"""A whole stack on one machine: real Kafka, Postgres and S3, and our services beside them.

Any command may be repeated, and any process, ours included, may die at any moment: what runs is found again by what was
recorded. Two stacks (a test run beside a demo) share downloads and nothing else.
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ai_infra.devstack import environment, hooks
from ai_infra.devstack.backend import Backend, PartStatus, Programs
from ai_infra.devstack.cache import locked
from ai_infra.devstack.containers import Containers, engine_answers
from ai_infra.devstack.exceptions import StackError, StackNotRunning, ToolMissing
from ai_infra.devstack.kafka import SESSION_MS, Kafka
from ai_infra.devstack.part import Part, Tool
from ai_infra.devstack.postgres import Postgres
from ai_infra.devstack.processes import Process
from ai_infra.devstack.progress import Progress, silent, tail
from ai_infra.devstack.s3 import S3
from ai_infra.devstack.services import Services, installed_services, replica_name
from ai_infra.devstack.state import StackState, StateFile, write_private
from ai_infra.settings import Settings
from ai_infra.telemetry.logs import log_as_a_library

HOME: Final = ".ai-infra"
COMPOSE_FILE: Final = "compose.yaml"
PARTS: Final = ("kafka", "postgres", "s3")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class StackInfo:
    """A stack that is up. `urls` by part; `seconds` is how long the set-up took."""

    name: str
    directory: Path
    backend: str
    urls: Mapping[str, str]
    seconds: float


class Stack:
    """One stack, by name, under `<root>/.ai-infra/<name>/`. Making the object starts nothing.

    `lanes` counts only until the stack's first start; later it is what it was. `fsync=False` is for tests alone: a
    crash of the machine (not of a process) may then lose what Postgres had confirmed. `session_ms` is how long a killed
    replica keeps its lanes. Only the stack `dev` tries the well-known ports first.
    """

    def __init__(
        self,
        name: str = "dev",
        root: Path | None = None,
        lanes: int = 8,
        *,
        fsync: bool = True,
        session_ms: int = SESSION_MS,
        backend: str = "auto",
    ) -> None:
        if not _NAME.fullmatch(name):
            raise StackError(f"a stack's name is up to 31 of a-z, 0-9 and -, beginning with no -; this is {name!r}")
        self.name = name
        self.root = (root or Path.cwd()).resolve()
        self.directory = self.root / HOME / name
        self._lanes = lanes
        self._fsync = fsync
        self._session_ms = session_ms
        self._wanted = backend
        self._logs = self.directory / "logs"
        self._state = StateFile(self.directory / "state.json")
        # Only the stack that people work with reads the `.env` of this directory: a test must not depend on it.
        self._services = Services(self.root if name == "dev" else self.directory, self._state, self._logs)

    # The stack as a whole

    def fetch(self, progress: Progress = silent) -> None:
        """Fetch Kafka and build the S3 server, and start nothing. Does nothing where that was done before.

        Postgres is the system's, or came with the packages.
        """
        parts = self._parts(self._state.read())
        backend = self._backend(parts)
        _all_at_once(lambda part: backend.prepare(part, progress), ("kafka", "s3"))

    def up(self, progress: Progress = silent) -> StackInfo:
        """Start what doesn't run and furnish it (keys, topics, keyring, buckets, tables); returns when it serves."""
        log_as_a_library()
        started = time.monotonic()
        with self._alone(progress):
            state = self._state.change(self._initialise)
            parts = self._parts(state)
            backend = self._backend(parts)
            self._state.change(lambda state: setattr(state, "backend", backend.name))

            def bring(part: str) -> None:
                if backend.status(part).state != "running":
                    progress(f"starting {part} …")
                backend.prepare(part, progress)
                backend.start(part, progress)

            _all_at_once(bring, parts)
            hooks.initialise_keys(self.directory / "keys", progress)
            hooks.furnish(self.settings(), progress)
            if self.name == "dev":
                write_private(self.root / HOME / "dev.env", environment.as_dotenv(self.env()).encode())
        return StackInfo(self.name, self.directory, backend.name, self.urls(), time.monotonic() - started)

    def down(self, progress: Progress = silent) -> None:
        """Stop services, then parts; data stays. Does nothing where nothing runs."""
        if not self._state.path.exists():
            return
        with self._alone(progress):
            self._stop_all(progress)

    def reset(self, progress: Progress = silent) -> None:
        """Stop everything and delete all data of this stack, keys included. Downloads are kept."""
        if not self.directory.exists():
            return
        with self._alone(progress):
            self._stop_all(progress)
            parts = self._parts(self._state.read())
            for part in parts:
                self._backend(parts).reset(part)
            progress(f"deleting {self.directory} …")
            if self.name == "dev":
                (self.root / HOME / "dev.env").unlink(missing_ok=True)
            shutil.rmtree(self.directory)

    def status(self) -> list[PartStatus]:
        """Every part, and every service that was started beside the stack."""
        if not self._state.path.exists():
            return [PartStatus(part, "stopped", "", None, "") for part in PARTS]
        parts = self._parts(self._state.read())
        backend = self._backend(parts)
        return [backend.status(part) for part in parts] + [self._services.status(name) for name in self.services()]

    def running(self) -> bool:
        """Whether every part runs (not whether it is well)."""
        if not self._state.path.exists():
            return False
        parts = self._parts(self._state.read())
        backend = self._backend(parts)
        return all(backend.status(part).state == "running" for part in parts)

    def urls(self) -> dict[str, str]:
        """Where everything listens, without passwords."""
        ports = self._started().ports
        addresses = {
            "kafka": f"127.0.0.1:{ports.get('kafka')}",
            "postgres": f"postgresql://127.0.0.1:{ports.get('postgres')}/ai_infra",
            "s3": f"http://127.0.0.1:{ports.get('s3')}",
        }
        return addresses | {name: self._services.status(name).address for name in self.services()}

    def env(self) -> dict[str, str]:
        """Variables for an orchestrator beside this stack: where everything is, and its key. Holds secrets."""
        shared = environment.stack_environment(self.name, self.directory, self._started())
        return shared | environment.orchestrator_environment(self.directory)

    def settings(self, **overrides: object) -> Settings:
        """Settings that hold for this stack, whatever the caller's environment says."""
        env = self.env() | {name: str(value) for name, value in overrides.items()}
        return hooks.settings_for(env, self.directory)

    # One part

    def start(self, name: str, progress: Progress = silent) -> None:
        """Start a part that is down, at the ports that it had."""
        self._part_backend(name).start(name, progress)

    def stop(self, name: str) -> None:
        """Stop a part or a replica (`trainer-0`) gracefully."""
        if name in PARTS:
            self._part_backend(name).stop(name)
        else:
            self._services.stop(name)

    def restart(self, name: str, progress: Progress = silent) -> None:
        """Stop and start a part or a replica."""
        self.stop(name)
        if name in PARTS:
            self.start(name, progress)
        else:
            service, _, replica = name.rpartition("-")
            self.start_service(service, int(replica))

    def kill(self, name: str, signum: int = signal.SIGKILL) -> None:
        """Send a signal to a part, SIGKILL by default. Returns once a killed part is gone."""
        self._part_backend(name).kill(name, signum)

    def logs(self, name: str, lines: int = 100) -> str:
        """The last lines of a part or a replica."""
        if name in PARTS:
            return self._part_backend(name).log(name, lines)
        return tail(self._services.log_path(name), lines)

    def log_path(self, name: str) -> Path:
        """The log file of a part that is a program, or of a replica."""
        return self._logs / f"{name}.log"

    # Services

    def start_service(
        self, service: str, replica: int = 0, env: Mapping[str, str] | None = None, *, wait: bool = True
    ) -> Process:
        """Start a replica of a service as a process of its own; `env` comes on top. Returns once it answers."""
        shared = environment.stack_environment(self.name, self.directory, self._started())
        whole = environment.service_environment(service, self.directory, shared)
        return self._services.start(service, replica, {**whole, **(env or {})}, wait=wait)

    def start_services(self, progress: Progress = silent) -> None:
        """One replica of every service that is installed."""

        def begin(service: str) -> None:
            progress(f"starting {service} …")
            self.start_service(service)

        _all_at_once(begin, installed_services())

    def stop_service(self, service: str, replica: int = 0) -> bool:
        """Graceful stop; False when it had to be killed."""
        return self._services.stop(replica_name(service, replica))

    def kill_service(self, service: str, replica: int = 0, signum: int = signal.SIGKILL) -> None:
        """Send a signal, SIGKILL by default, to the service's process and to no child of it."""
        self._services.kill(replica_name(service, replica), signum)

    def service_url(self, service: str, replica: int = 0) -> str:
        """Where the replica serves /metrics and health."""
        return self._services.status(replica_name(service, replica)).address

    def services(self) -> list[str]:
        """The replicas that were started beside this stack and not stopped since, by name."""
        return self._services.names()

    # Databases beside the stack's own, for rebuilds and tests

    def create_database(self, name: str) -> str:
        """A new, empty database; returns its URL. Raises StackError where there is one already."""
        import psycopg
        from psycopg import sql

        own = self.env()["AI_INFRA_DATABASE_URL"]
        try:
            with psycopg.connect(own, autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.errors.DuplicateDatabase:
            raise StackError(f"there is a database {name} already") from None
        return own.rpartition("/")[0] + f"/{name}"

    def drop_database(self, name: str) -> None:
        """Delete a database, its connections included."""
        import psycopg
        from psycopg import sql

        with psycopg.connect(self.env()["AI_INFRA_DATABASE_URL"], autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def compose_variables(self) -> dict[str, str]:
        """What `compose.yaml` has to be told to be this stack. Holds passwords."""
        parts = self._parts(self._state.change(self._initialise))
        return self._containers(parts).variables()

    def missing_tools(self) -> list[Tool]:
        """What this machine lacks to run the parts as programs."""
        parts = self._parts(self._state.read()).values()
        return [tool for part in parts for tool in part.tools() if tool.missing]

    def _initialise(self, state: StackState) -> StackState:
        if not state.credentials:
            state.credentials = {
                "postgres": secrets.token_hex(16),
                "s3_access": secrets.token_hex(10),
                "s3_secret": secrets.token_hex(20),
            }
        state.lanes = state.lanes or self._lanes
        return state

    def _parts(self, state: StackState) -> dict[str, Part]:
        made_up = state.credentials
        return {
            "kafka": Kafka(self.directory, session_ms=self._session_ms),
            "postgres": Postgres(self.directory, made_up.get("postgres", ""), fsync=self._fsync),
            "s3": S3(self.directory, made_up.get("s3_access", ""), made_up.get("s3_secret", "")),
        }

    def _backend(self, parts: Mapping[str, Part]) -> Backend:
        """As programs where that is possible, else as containers; a stack that exists stays what it is."""
        kind = self._state.read().backend or self._wanted
        if kind == "auto":
            missing = [tool for part in parts.values() for tool in part.tools() if tool.missing]
            kind = "programs"
            if missing:
                if not ((self.root / COMPOSE_FILE).exists() and engine_answers()):
                    raise ToolMissing(
                        "this machine lacks something to run the stack, and no Docker engine answers either:\n"
                        + "\n".join(f"  {tool.name}: {tool.advice}" for tool in missing)
                    )
                kind = "containers"
        if kind == "containers":
            return self._containers(parts)
        return Programs(parts, self._state, self._logs, usual_ports=self.name == "dev")

    def _containers(self, parts: Mapping[str, Part]) -> Containers:
        return Containers(
            parts,
            self._state,
            self._logs,
            compose_file=self.root / COMPOSE_FILE,
            project=f"ai-infra-{self.name}",
            usual_ports=self.name == "dev",
        )

    def _part_backend(self, name: str) -> Backend:
        if name not in PARTS:
            raise StackError(f"{name} is no part of the stack; the parts are {', '.join(PARTS)}")
        return self._backend(self._parts(self._started()))

    def _started(self) -> StackState:
        if not self._state.path.exists():
            raise StackNotRunning(f"the stack {self.name} was never started here: `ai-infra dev up`")
        return self._state.read()

    def _stop_all(self, progress: Progress) -> None:
        services = self.services()
        if services:
            progress(f"stopping {', '.join(services)} …")
            _all_at_once(self._services.stop, services)
        parts = self._parts(self._state.read())
        backend = self._backend(parts)
        progress(f"stopping {', '.join(parts)} …")
        _all_at_once(backend.stop, parts)

    def _alone(self, progress: Progress) -> AbstractContextManager[None]:
        return locked(
            self.root / HOME / f"{self.name}.lock",
            progress=progress,
            busy=f"another command starts or stops the stack {self.name}: waiting for it …",
        )


def _all_at_once(action: Callable[[str], object], names: Iterable[str]) -> None:
    """Do it for all names side by side; when some fail, the others still finish, and the first failure is raised."""
    names = list(names)
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
        for outcome in [pool.submit(action, name) for name in names]:
            outcome.result()
