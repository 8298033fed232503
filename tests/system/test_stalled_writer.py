"""A process that was halted in the middle of a transaction does not keep its lane from who has been given it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from ai_infra.devstack.waiting import wait_until
from ai_infra.readmodel import connect, migrate
from ai_infra_indexer.store import end_stalled, ensure_lane

_MOVE = "UPDATE lanes SET size = size WHERE lane = 0"


def in_a_copy(halted: Any) -> None:
    halted.pgconn.exec_(b"COPY event_ids (lane, event_id, position, event_hash) FROM STDIN")


def in_a_pipeline(halted: Any) -> None:
    halted.pgconn.enter_pipeline_mode()
    halted.pgconn.send_query_params(b"SELECT 1", None)
    halted.pgconn.send_flush_request()
    halted.pgconn.flush()


@pytest.fixture
def successor(database: str) -> Iterator[Any]:
    migrate(database)
    with connect(database, autocommit=True) as connection:
        ensure_lane(connection, 0, "example.org/log/lanes/0")
        connection.execute("SET lock_timeout = 200")
        yield connection


@pytest.mark.parametrize("halt", [in_a_copy, in_a_pipeline])
def test_who_is_given_a_lane_ends_the_transaction_that_stands_still_on_it(
    database: str, successor: Any, halt: Callable[[Any], None]
) -> None:
    halted = connect(database, autocommit=True)
    halted.execute("SET idle_in_transaction_session_timeout = 100")  # the server's own way out, which is none here
    halted.execute("BEGIN").execute(_MOVE)
    halt(halted)
    with pytest.raises(psycopg.errors.LockNotAvailable):
        successor.execute(_MOVE)
    assert end_stalled(successor, 60_000) == 0, "it may still be at it"

    def is_free() -> bool:
        try:
            return bool(successor.execute(_MOVE))
        except psycopg.errors.LockNotAvailable:
            return False

    assert wait_until(lambda: end_stalled(successor, 100) == 1, 60)
    assert wait_until(is_free, 60)
    halted.close()
