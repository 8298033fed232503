"""The batch that an entry came in decides nothing: not its rows, not whether it is refused, nor with which words."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from tests.unit.indexer.voices import worlds

from ai_infra.devstack import Stack
from ai_infra.events.event import Record
from ai_infra.events.generated import JobStatusKind
from ai_infra.readmodel import connect
from ai_infra.readmodel.migrations import migrate
from ai_infra.settings import Settings
from ai_infra_indexer import parity
from ai_infra_indexer.appending import append
from ai_infra_indexer.sequence import Head, Line, head_after, sequence
from ai_infra_indexer.store import ensure_lane, read_known


@pytest.fixture(scope="module")
def world(settings: Settings) -> Any:
    return worlds(settings.keys.dir)()


def lines_of(world: Any, records: list[Record]) -> list[Line]:
    verifier = world.verifier()
    return sequence(world.head(), [verifier.verify(record) for record in records], world.chain())[0]


def entered(url: str, world: Any, lines: list[Line], size: int) -> dict[int, str]:
    """Enters the lines in batches of this size; returns what was refused, by position."""
    migrate(url)
    refused: dict[int, str] = {}
    head: Head = world.head()
    with connect(url, application="test", autocommit=True) as connection:
        ensure_lane(connection, head.lane, head.origin)
        for at in range(0, len(lines), size):
            batch = lines[at : at + size]
            known = read_known(connection, head.lane, [line.event for line in batch])
            after = head_after(head, batch)
            done = append(connection, head, batch, after, known=known, offsets={})
            refused |= {f.position: f.detail for f in done.findings if f.kind == "projection_refused"}
            head = after
    return refused


@pytest.fixture
def records(world: Any) -> list[Record]:
    """Stories of some jobs, among them what no table takes: JSON that is none, a name that no index takes."""
    chance = random.Random(4)
    long = "".join(chance.choices("0123456789abcdef", k=9_000))
    said = [world.keyring_record(), *world.story()]
    for name in ("a", "b", "c", long):
        said.append(world.say("orchestrator", world.queued(name, hyperparams_json="{" if name == "b" else "{}")))
        said += [
            world.say("trainer", world.status(kind, name, attempt=attempt))
            for attempt in (1, 2)
            for kind in (JobStatusKind.RUNNING, JobStatusKind.FAILED)
        ]
        said.append(world.say("orchestrator", world.queued(name, hyperparams_json='{"again":')))
        said.append(world.say("registry", world.registered(f"art-{name}", version=len(said), job_id=name)))
        said.append(world.say("registry", world.registered(f"art-{name}", version=len(said), attestation=2)))
    return said


@pytest.fixture
def databases(stack: Stack) -> Iterator[list[str]]:
    names = [f"test_{secrets.token_hex(6)}" for _ in range(3)]
    yield [stack.create_database(name) for name in names]
    for name in names:
        stack.drop_database(name)


def test_batches_of_any_size_leave_the_same_rows_and_the_same_findings(
    world: Any, records: list[Record], databases: list[str]
) -> None:
    lines = lines_of(world, records)
    one_by_one, at_once, some = databases
    refused = entered(one_by_one, world, lines, 1)
    assert len(refused) == 12
    assert entered(at_once, world, lines, len(lines)) == refused
    assert entered(some, world, lines, 7) == refused
    for other in (at_once, some):
        with parity.snapshot(one_by_one) as left, parity.snapshot(other) as right:
            comparisons, differences = parity.compare(left, right)
        assert differences == []
        assert all(comparison.equal for comparison in comparisons)
