"""What is final is said once, whatever fails around the transaction that says it. Fakes: to fail at one moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import psycopg
import pytest

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.topics import PLAIN
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint
from ai_infra.tlog.growth import RightEdge
from ai_infra_indexer import finality as module
from ai_infra_indexer.finality import Finality, FinalLane
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.publish import Position, Publication

PATIENCE = 60.0


class Database:
    """Has nothing new to archive. `fail_once`: what the next update of a lane's progress finds."""

    closed = False
    fail_once: psycopg.Error | None = None

    def __init__(self) -> None:
        self.published: dict[int, int] = {}

    def execute(self, query: str, params: Any = None) -> Database:
        if query.startswith("UPDATE lane_progress SET published_size"):
            if self.fail_once and params[0] > 0:
                error, self.fail_once = self.fail_once, None
                raise error
            self.published[params[1]] = params[0]
        return self

    def transaction(self) -> AbstractContextManager[None]:
        return nullcontext()

    def fetchall(self) -> list[Any]:
        return []

    def fetchone(self) -> None:
        return None

    def close(self) -> None:
        return


class Kafka:
    """Keeps what was said of each lane, and by which membership. `close` is the producer's."""

    def __init__(self) -> None:
        self.said: list[tuple[int, int]] = []
        self.memberships: list[Any] = []

    def transact(self, records: list[Outgoing], _: Any, group_metadata: Any) -> None:
        self.said += [(record.partition, int(record.value or b"")) for record in records]
        self.memberships.append(group_metadata)

    def close(self) -> None:
        return


class Composer:
    """Composes one message for each position. In the middle of those of lane `hold` it waits until it may go on."""

    def __init__(self) -> None:
        self.hold = -1
        self.go_on = threading.Event()
        self.at_it = threading.Event()

    def has_more(self, *_: Any) -> bool:
        return False

    def publication(
        self, _: Any, position: Position, checkpoint: OpenedCheckpoint, lane: int, **__: Any
    ) -> Publication:
        if lane == self.hold:
            self.at_it.set()
            assert self.go_on.wait(PATIENCE)
        size = checkpoint.checkpoint.size
        messages = [Outgoing(PLAIN, lane, None, b"%d" % at, ()) for at in range(position.size, size)]
        return Publication(lane, Position(size), tuple(messages))


@pytest.fixture
def parts() -> Iterator[tuple[Finality, Database, Kafka, Composer]]:
    database, kafka, composer = Database(), Kafka(), Composer()
    finality = Finality(lambda: database, composer, lambda: kafka, interval_s=0.01)  # type: ignore[arg-type,return-value]  # fakes
    yield finality, database, kafka, composer
    composer.go_on.set()
    finality.close(PATIENCE)


def a_lane(number: int, size: int) -> FinalLane:
    checkpoint = Checkpoint(f"example.org/log/lanes/{number}", size, b"\0" * 32)
    opened = OpenedCheckpoint(checkpoint, (), (), b"")
    nothing: Any = None
    handover = Handover(number, checkpoint.origin, 1)
    return FinalLane(number, nothing, RightEdge(), "", opened, Position(0), handover, group_metadata="joined")


def eventually(condition: Callable[[], Any]) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("waited in vain")


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("the server closed the connection unexpectedly"),
        psycopg.errors.IdleInTransactionSessionTimeout("this process was halted in the middle of it"),
    ],
    ids=["gone", "ended"],
)
def test_what_was_said_is_not_said_again_when_postgres_fails_behind_it(parts: Any, error: psycopg.Error) -> None:
    finality, database, kafka, _ = parts
    database.fail_once = error
    lanes = [a_lane(number, size=2) for number in range(3)]
    for lane in lanes:
        finality.add(lane)
    finality.start()
    eventually(lambda: not database.fail_once and finality.problem is None)
    finality.add(a_lane(3, size=1))
    eventually(lambda: (3, 0) in kafka.said)
    eventually(lambda: database.published == {0: 2, 1: 2, 2: 2, 3: 1})  # though nothing is said of three of them since
    assert sorted(kafka.said) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0)]


def test_a_lane_that_moves_while_its_messages_are_made_is_said_by_the_membership_that_it_was_held_with(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By newer metadata, which the lanes that stay bring, the broker would let it through: nobody would be fenced."""
    finality, _, kafka, composer = parts
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.05)
    composer.hold = 1
    for number in (0, 1):
        finality.add(a_lane(number, size=1))
    finality.start()
    assert composer.at_it.wait(PATIENCE)
    finality.remove(1)
    finality.refresh([0], "joined anew, without lane 1")
    composer.go_on.set()
    eventually(lambda: kafka.memberships)
    assert kafka.memberships[0] == "joined" or (1, 0) not in kafka.said


def test_a_lane_is_not_taken_anew_before_what_is_being_said_of_it_is_over(parts: Any) -> None:
    """Where publishing goes on would be read before it moves, and the same be said from there again."""
    finality, _, kafka, composer = parts
    composer.hold = 0
    finality.add(a_lane(0, size=1))
    finality.start()
    assert composer.at_it.wait(PATIENCE)
    with ThreadPoolExecutor(1) as pool:
        removed = pool.submit(finality.remove, 0)
        eventually(lambda: finality.leaving(0))
        composer.go_on.set()
        removed.result(PATIENCE)
    assert kafka.said == [(0, 0)]
    eventually(lambda: not finality.leaving(0))


def test_a_lane_whose_last_step_takes_too_long_to_wait_for_is_not_taken_anew_either(
    parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    finality, _, _, composer = parts
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.05)
    composer.hold = 0
    finality.add(a_lane(0, size=1))
    finality.start()
    assert composer.at_it.wait(PATIENCE)
    finality.remove(0)
    assert finality.leaving(0)
    composer.go_on.set()
    eventually(lambda: not finality.leaving(0))


def test_a_step_that_hangs_is_said_while_it_hangs(parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes the connection and never answers fails its client after minutes only."""
    finality, _, _, composer = parts
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.05)
    composer.hold = 0
    finality.add(a_lane(0, size=1))
    finality.start()
    eventually(lambda: "a step takes" in (finality.problem or ""))
    composer.go_on.set()
    eventually(lambda: finality.problem is None)
