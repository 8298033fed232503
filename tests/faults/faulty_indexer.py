"""The indexer in a process of its own, in which chosen writes fail. Each is counted, wherever it goes: a commit or a
statement of its own in Postgres, each object, offsets and commit of a Kafka transaction, dead letters.

The code of the indexer is the real one, and so are the servers: what is wrapped is only the call that writes. A process
is forked from a server that has imported everything already, so that dozens of deaths take no minute.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from ai_infra.bus import process
from ai_infra.bus.kafka.config import KafkaUnavailableError
from ai_infra.bus.kafka.consume import RestartNeededError
from ai_infra.bus.transactions import AbortNeededError, TransactionalProducer
from ai_infra.cli.run import run_one
from ai_infra.objects import store
from ai_infra.objects.exceptions import ObjectsUnavailable
from ai_infra_indexer import heads, inputs, service

T = TypeVar("T")

NAME = "tests.faults.faulty_indexer"
STALLED_MS = 2_000  # how long one that stands still in a transaction in Postgres holds up its successor
PENDING_MS = 1_500  # how long the open transaction of a dead process holds back its successor


class How(Enum):
    """What happens at a chosen write."""

    DIE = "the process is killed after the write, before its caller hears of it"
    REFUSE = "nothing is written, and the caller gets an error"
    LOSE = "it is written, and the caller gets an error all the same: the answer was lost"
    HALT = "the process stands still before the write, and does it once somebody wakes it (SIGCONT)"


@dataclass(frozen=True)
class Plan:
    """Which writes fail, and how: by number, from 1 at the start of the process, or the first one of a kind; `behind`:
    only once there was one of that kind."""

    how: How = How.DIE
    at: frozenset[int] = frozenset()
    first: str = ""
    behind: str = ""


def start(
    plan: Plan, env: Mapping[str, str], directory: Path, log: Path, writes: Path, clock: Path | None = None
) -> ForkServerProcess:
    """An indexer with the environment `env`, in `directory`. For every write a line goes to the file `writes`, its
    name once it is done, and what it says to `log`. Its clock is wrong by the seconds in the file `clock`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([NAME])
    started = context.Process(target=_run, args=(plan, dict(env), directory, log, writes, clock), daemon=True)
    started.start()
    return started


def _run(plan: Plan, env: dict[str, str], directory: Path, log: Path, writes: Path, clock: Path | None) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    with log.open("ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    _wrap(Faults(plan, writes))
    if clock is not None:
        _shift(clock)
    sys.exit(run_one("indexer"))


def kind_of(write: str) -> str:
    """What a write is, wherever it goes: `put tile, full` of any tile of any lane."""
    if not write.startswith("put "):
        return write
    path = write.split("/")[2:] or [write.removeprefix("put ")]
    if path[0] != "tile":
        return f"put {path[0]}"
    part = "partial" if path[-2].endswith(".p") else "full"
    return f"put tile{'/entries' if path[1] == 'entries' else ''}, {part}"


class Faults:
    """Counts writes, and lets the chosen ones fail."""

    def __init__(self, plan: Plan, writes: Path) -> None:
        self._plan = plan
        self._writes = os.open(writes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._count = 0
        self._guard = threading.Lock()

    def write(
        self,
        what: str,
        do: Callable[[], T],
        refused: Callable[[str], BaseException],
        lost: Callable[[str], BaseException] | None = None,
    ) -> T:
        """Does one write, or not. `refused` and `lost` make the errors that its caller would get."""
        with self._guard:
            self._count += 1
            plan = self._plan
            fails = self._plan.how if self._count in self._plan.at or self._chosen(what) else None
        if fails is How.REFUSE:
            os.write(self._writes, f"refused {what}\n".encode())
            raise refused(f"refused by a test: {what}")
        if fails is How.HALT:
            return self._halted(what, do)
        try:
            result = do()
        except BaseException:
            os.write(self._writes, f"failed {what}\n".encode())  # a put where the same bytes are, for one
            if fails is How.DIE:
                self._plan = plan  # it was no write: the next one of its kind is meant
            raise
        os.write(self._writes, f"{what}\n".encode())
        if fails is How.DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if fails is How.LOSE:
            raise (lost or refused)(f"answer lost by a test: {what}")
        return result

    def _chosen(self, what: str) -> bool:
        plan, kind = self._plan, kind_of(what)
        if plan.behind:
            if kind == plan.behind:
                self._plan = replace(plan, behind="")
            return False
        found = kind == plan.first
        if found:
            self._plan = replace(plan, first="")
        return found

    def _halted(self, what: str, do: Callable[[], T]) -> T:
        os.write(self._writes, f"halted {what}\n".encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            result = do()
        except BaseException as error:
            os.write(self._writes, f"in vain: {what} ({type(error).__name__})\n".encode())
            raise
        os.write(self._writes, f"woken: {what}\n".encode())
        return result


def _wrap(faults: Faults) -> None:
    put = store.put

    def faulty_put(client: Any, target: Any, data: bytes) -> tuple[str, str | None]:
        return faults.write(f"put {target.location.key}", lambda: put(client, target, data), ObjectsUnavailable)

    class FaultyConnection(psycopg.Connection[Any]):
        """Fails as one does whose server is gone: it is of no use afterwards."""

        def execute(self, query: Any, params: Any = None, **kwargs: Any) -> psycopg.Cursor[Any]:
            def do() -> psycopg.Cursor[Any]:
                return super(FaultyConnection, self).execute(query, params, **kwargs)

            alone = self.info.transaction_status is TransactionStatus.IDLE
            if alone and isinstance(query, str) and query.startswith(("UPDATE", "INSERT", "DELETE")):
                return faults.write(query.split("WHERE")[0].strip()[:60], do, self._gone)
            return do()

        @contextmanager
        def transaction(self, *args: Any, **kwargs: Any) -> Iterator[psycopg.Transaction]:
            outermost = self.info.transaction_status is TransactionStatus.IDLE
            transaction = super().transaction(*args, **kwargs)
            entered = transaction.__enter__()
            try:
                yield entered
            except BaseException:
                if not transaction.__exit__(*sys.exc_info()):
                    raise
                return

            def commit() -> Any:
                return transaction.__exit__(None, None, None)

            if outermost and super().execute("SELECT pg_current_xact_id_if_assigned()").fetchone() != (None,):
                notes = threading.current_thread().name == "finality"
                faults.write("commit of notes" if notes else "commit", commit, self._gone)
            else:
                commit()

        def _gone(self, why: str) -> psycopg.OperationalError:
            self.close()
            return psycopg.OperationalError(why)

    class FaultyProducer(TransactionalProducer):
        """Aborted where it is refused; of unknown outcome where the answer is lost."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            timeouts = {"transaction.timeout.ms": PENDING_MS, "message.timeout.ms": PENDING_MS}
            super().__init__(*args, **{**kwargs, **timeouts})

        def _call(self, what: str, call: Callable[[float], Any]) -> None:
            def do() -> None:
                super(FaultyProducer, self)._call(what, call)

            if what in ("send_offsets_to_transaction", "commit_transaction"):
                faults.write(what, do, AbortNeededError, RestartNeededError)
            else:
                do()

    class FaultyAround(inputs.Around):
        def flush_dead_letters(self, lane: int) -> None:
            def do() -> None:
                super(FaultyAround, self).flush_dead_letters(lane)

            if len(self._producer):
                faults.write("dead letters", do, KafkaUnavailableError)
            else:
                do()

    # In this process alone, and before anything of it runs.
    vars(store).update(put=faulty_put)
    vars(psycopg).update(connect=FaultyConnection.connect)
    vars(service).update(TransactionalProducer=FaultyProducer, Around=FaultyAround, STALLED_MS=STALLED_MS)
    vars(service).update(PARALLEL_PUTS=1)  # so that the order of puts is the same in each run
    vars(process).update(FIRST_WAIT_SECONDS=0.1, LONGEST_WAIT_SECONDS=0.1)  # what restarts it here is not settled soon


def _shift(clock: Path) -> None:
    """From now on the wall clock of this process is wrong by as many seconds as the file says at each moment. What
    librdkafka and libpq do goes by the monotonic clock, or is done by the servers."""
    right, right_ns, real = time.time, time.time_ns, datetime.datetime

    def shift() -> int:
        return int(clock.read_text() or 0)

    class Asked(type):
        def __instancecheck__(cls, it: object) -> bool:
            return isinstance(it, real)

    class Shifted(real, metaclass=Asked):  # type: ignore[misc,valid-type]  # it makes real ones, and is none itself
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return real(*args, **kwargs)

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            return real.now(tz) + datetime.timedelta(seconds=shift())

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    vars(time).update(time=lambda: right() + shift(), time_ns=lambda: right_ns() + shift() * 1_000_000_000)
    vars(datetime).update(datetime=Shifted)
    for module in list(sys.modules.values()):
        if vars(module).get("datetime") is real and "datetime.now(" in _source(module):
            vars(module).update(datetime=Shifted)
    heads.HeadsWriter.__init__.__kwdefaults__ = {"clock": time.time}


def _source(module: ModuleType) -> str:
    path = module.__file__ or ""
    return Path(path).read_text() if path.endswith(".py") else ""
