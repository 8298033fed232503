"""Lanes of a process are entered in one transaction, and what is wrong with one of them costs no other its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from tests.system.surroundings import Around
from tests.unit.indexer.voices import LANES, World, worlds

from ai_infra.bus.redrive import compose_redrive
from ai_infra.events.event import Cause, Record
from ai_infra.readmodel import connect, migrate
from ai_infra.settings import Settings
from ai_infra_indexer.exceptions import LaneLost
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.lane import Lane
from ai_infra_indexer.store import ensure_lane, read_head
from ai_infra_indexer.together import work


@pytest.fixture
def connection(database: str) -> Iterator[Any]:
    migrate(database)
    with connect(database, autocommit=True) as connection:
        connection.execute("SET lock_timeout = 200")
        yield connection


@pytest.fixture
def speakers(settings: Settings) -> dict[int, World]:
    """Of a model each, in all lanes."""
    make: Callable[..., World] = worlds(settings.keys.dir)
    found: dict[int, World] = {}
    for number in range(100):
        world = make(model=f"digits-{number}")
        found.setdefault(world.lane, world)
    assert len(found) == LANES
    return found


@pytest.fixture
def around() -> Around:
    return Around()


@pytest.fixture
def lanes(speakers: Mapping[int, World], connection: Any, around: Around) -> dict[int, Lane]:
    """With a story each that was read and is not entered."""
    found: dict[int, Lane] = {}
    for number, world in speakers.items():
        head, verifier = world.head(), world.verifier()
        ensure_lane(connection, number, head.origin)
        handover = Handover(number, head.origin, 1 << 20)
        found[number] = Lane(head, {}, verifier, lambda _, w=world: w.chain(), around, handover)  # type: ignore[misc]
        for record in world.story():
            found[number].offer(record)
    return found


def sizes(connection: Any) -> dict[int, int]:
    return {lane: read_head(connection, lane).size for lane in range(LANES)}


def test_what_came_for_all_lanes_is_one_transaction(lanes: dict[int, Lane], connection: Any) -> None:
    outcomes = work(connection, lanes)
    assert sizes(connection) == outcomes == {lane: lanes[lane].head.size for lane in range(LANES)}
    assert min(outcomes.values()) > 0  # type: ignore[type-var]  # they are numbers
    for table in ("lanes", "entries", "audit_events", "event_ids", "producer_events"):
        [transactions, found] = connection.execute(
            f"SELECT count(DISTINCT xmin::text), count(DISTINCT lane) FROM {table}"
        ).fetchone()
        assert (transactions, found) == (1, LANES), table
    assert work(connection, lanes) == dict.fromkeys(lanes, 0)


def test_a_lane_that_somebody_else_has_is_lost_and_the_others_are_entered(
    lanes: dict[int, Lane], connection: Any
) -> None:
    connection.execute("UPDATE lanes SET size = 7, head_hash = 'another' WHERE lane = 2")
    outcomes = work(connection, lanes)
    assert isinstance(outcomes.pop(2), LaneLost)
    assert sizes(connection) == {**outcomes, 2: 7}
    assert connection.execute("SELECT count(*) FROM entries WHERE lane = 2").fetchone() == (0,)


def test_a_lane_whose_row_is_held_waits_alone(lanes: dict[int, Lane], connection: Any, database: str) -> None:
    with connect(database) as other:
        other.execute("SELECT FROM lanes WHERE lane = 1 FOR UPDATE")
        outcomes = work(connection, lanes)
    assert isinstance(outcomes.pop(1), psycopg.errors.LockNotAvailable)
    assert sizes(connection) == {**outcomes, 1: 0}
    assert min(outcomes.values()) > 0  # type: ignore[type-var]


def test_what_fails_together_is_judged_anew_alone(lanes: dict[int, Lane], connection: Any, database: str) -> None:
    """The first attempt has judged all of it before it fails, at what somebody else is about to write of one lane."""
    event_id = dict(lanes[1]._backlog[0][2].headers)["ce_id"].decode()
    with connect(database) as other:
        other.execute("INSERT INTO event_ids VALUES (1, %s, 0, 'x')", (event_id,))
        outcomes = work(connection, lanes)
    assert isinstance(outcomes.pop(1), psycopg.errors.LockNotAvailable)
    assert sizes(connection) == {**outcomes, 1: 0}
    assert connection.execute("SELECT DISTINCT verdict FROM entries").fetchall() == [("projected",)]
    assert connection.execute("SELECT kind, detail FROM findings").fetchall() == []


def test_an_entry_that_no_table_takes_keeps_no_other_lane_from_its_rows(
    lanes: dict[int, Lane], speakers: Mapping[int, World], connection: Any
) -> None:
    speaker = speakers[3]
    lanes[3].offer(speaker.say("orchestrator", speaker.queued("bad", hyperparams_json="{")))
    outcomes = work(connection, lanes)
    assert sizes(connection) == outcomes
    refused = connection.execute("SELECT lane, position FROM entries WHERE verdict = 'refused'").fetchall()
    assert refused == [(3, lanes[3].head.size - 1)]
    jobs = connection.execute("SELECT lane, count(*) FROM jobs GROUP BY lane ORDER BY lane").fetchall()
    assert jobs == [(lane, 1) for lane in range(LANES)]


def test_a_keyring_is_not_redriven_in_the_middle_of_a_batch(
    lanes: dict[int, Lane], speakers: Mapping[int, World], connection: Any, around: Around
) -> None:
    """It would be in force for events before it, and a replay would judge those by another one."""
    speaker, first = speakers[0], speakers[0].keyring_record()
    redrive = compose_redrive(first, "indexer", speaker.signers["operator-1"])
    at = first.append_time_ms
    lanes[0].offer(Record(redrive.topic, 0, 0, at, redrive.key, redrive.value, tuple(redrive.headers)))
    outcomes = work(connection, lanes)
    assert sizes(connection) == outcomes
    assert around.dead == ["broadcast_redriven"]
    assert connection.execute("SELECT count(*) FROM entries WHERE type = 'signer.changed'").fetchone() == (0,)


def test_an_effect_waits_for_a_cause_that_was_read_and_must_wait_for_a_keyring(
    lanes: dict[int, Lane], speakers: Mapping[int, World], connection: Any, around: Around
) -> None:
    """Brokers' clocks differ: by one a cause was appended behind a keyring, and by another its effect before."""
    lane, speaker = lanes[2], speakers[2]
    work(connection, {2: lane})
    keyring = speaker.keyring_record()
    cause = speaker.say("orchestrator", speaker.queued("cause"))
    cause_id = dict(cause.headers)["ce_id"].decode()
    effect = speaker.say("orchestrator", speaker.queued("effect"), causes=[Cause(cause_id, 2)])
    around.broadcast, around.end = [keyring], {(cause.topic, 2): effect.offset + 1}
    lane.offer(replace(cause, append_time_ms=keyring.append_time_ms + 10))
    lane.offer(replace(effect, append_time_ms=keyring.append_time_ms - 10))
    work(connection, {2: lane})
    rows = connection.execute("SELECT model, causes::text[] FROM entries WHERE lane = 2 ORDER BY position DESC LIMIT 2")
    assert rows.fetchall() == [(speaker.model, [cause_id]), (speaker.model, [])]
    assert connection.execute("SELECT kind FROM findings").fetchall() == []


def test_a_connection_that_breaks_is_every_lane_s_failure(lanes: dict[int, Lane], connection: Any) -> None:
    pid = connection.info.backend_pid
    with connect(connection.info.dsn, password=connection.info.password, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", (pid,))
    outcomes = work(connection, lanes)
    assert all(isinstance(outcome, psycopg.OperationalError) for outcome in outcomes.values())
    assert connection.closed
