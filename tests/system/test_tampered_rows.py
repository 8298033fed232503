"""Whatever is done to a lane's rows in Postgres is found, named, placed: by the rows alone, or against the archive."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import sql
from tests.system.test_archive_versions import log  # noqa: F401 - a fixture
from tests.unit.indexer.log_folder import LONG, ORIGIN, LogFolder

from ai_infra.devstack import Stack
from ai_infra.objects.reader import FolderReader
from ai_infra.readmodel import connect
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import audit_postgres
from ai_infra_indexer.rebuild import rebuild

LANES = 4
AT = 7
Rows = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def good(stack: Stack, log: LogFolder) -> Iterator[str]:  # noqa: F811
    """The URL of a database with the whole log."""
    name = f"test_{secrets.token_hex(6)}"
    url = stack.create_database(name)
    rebuild(FolderReader(log.root), url, log_origin=ORIGIN, lanes=LANES, roots=log.worlds[0].roots)
    yield url
    stack.drop_database(name)


@pytest.fixture
def rows(stack: Stack, good: str) -> Iterator[Rows]:
    """A copy of it, to be changed."""
    name, source = f"test_{secrets.token_hex(6)}", str(psycopg.conninfo.conninfo_to_dict(good)["dbname"])
    with psycopg.connect(psycopg.conninfo.make_conninfo(good, dbname="postgres"), autocommit=True) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(source))
        )
    with connect(psycopg.conninfo.make_conninfo(good, dbname=name), autocommit=True) as connection:
        yield connection
    stack.drop_database(name)


def found(log: LogFolder, rows: Rows, *, archive: bool) -> set[tuple[int | None, str]]:  # noqa: F811
    archived = ArchivedLane(FolderReader(log.root), ORIGIN, 0)
    report = audit_postgres(
        rows, 0, archived.origin, log.worlds[0].roots, LANES, archived=archived if archive else None
    )
    return {(problem.position, problem.code) for problem in report.problems}


def test_rows_that_nobody_touched_verify(log: LogFolder, good: str) -> None:  # noqa: F811
    with connect(good, autocommit=True) as connection:
        assert found(log, connection, archive=True) == set()


def row(assignment: str, table: str = "audit_events", position: int = AT) -> Callable[[Rows, LogFolder], None]:
    """One column of one row."""

    def change(rows: Rows, _: LogFolder) -> None:
        done = rows.execute(f"UPDATE {table} SET {assignment} WHERE lane = 0 AND position = {position}".encode())
        assert done.rowcount == 1

    return change


def run(*statements: str) -> Callable[[Rows, LogFolder], None]:
    def change(rows: Rows, _: LogFolder) -> None:
        for statement in statements:
            rows.execute(statement.encode())

    return change


def entry(make: Callable[[LogFolder], bytes]) -> Callable[[Rows, LogFolder], None]:
    """Other bytes in the place of an entry."""

    def change(rows: Rows, log: LogFolder) -> None:  # noqa: F811
        rows.execute("UPDATE entries SET entry = %s WHERE lane = 0 AND position = %s", (make(log), AT))

    return change


def signed_by_a_stranger(log: LogFolder) -> bytes:  # noqa: F811
    """The same row of the chain, by another key under the chain key's name."""
    import base64

    head, _, body = log.raws[0][AT].partition(b"\n")
    header = orjson.loads(head)
    stranger = LocalSigner.fresh("chain-1")
    header["chain"]["signature"] = base64.b64encode(stranger.sign(bytes.fromhex(header["chain"]["hash"]))).decode()
    return orjson.dumps(header, option=orjson.OPT_SORT_KEYS) + b"\n" + body


def said_by_a_stranger(log: LogFolder) -> bytes:  # noqa: F811
    """What it states changed, and signed by nobody who may."""
    import base64

    head, _, body = log.raws[0][AT].partition(b"\n")
    header = orjson.loads(head)
    header["signature"] = base64.b64encode(LocalSigner.fresh("x").sign(b"something else")).decode()
    return orjson.dumps(header, option=orjson.OPT_SORT_KEYS) + b"\n" + body


def copied(table: str, position: int) -> tuple[str, ...]:
    """A row once more, behind the last one."""
    return (
        f"CREATE TEMP TABLE again AS SELECT * FROM {table} WHERE lane = 0 AND position = {position}",
        f"UPDATE again SET position = {LONG}",
        f"INSERT INTO {table} SELECT * FROM again",
    )


CUT = (
    f"DELETE FROM audit_events WHERE lane = 0 AND position >= {LONG - 10}",
    (f"DELETE FROM entries WHERE lane = 0 AND position >= {LONG - 10}"),
)
SWAPPED = (
    "UPDATE {table} SET {column} = CASE position WHEN 7 THEN (SELECT {column} FROM {table} WHERE lane = 0 AND position "
    "= 8) ELSE (SELECT {column} FROM {table} WHERE lane = 0 AND position = 7) END WHERE lane = 0 AND position IN (7, 8)"
)

# What is done; where and how it is named; whether it takes the archive to see it.
CASES: dict[str, tuple[Callable[[Rows, LogFolder], None], int | None, str, bool]] = {
    "a payload": (row("payload = '{}'"), AT, "changed_row", False),
    "a hash": (row("hash = prev_hash"), AT, "changed_row", False),
    "a previous hash": (row("prev_hash = hash"), AT, "changed_row", False),
    "a signature": (row("signature = hash"), AT, "changed_row", False),
    "a signer of the chain": (row("signer_id = 'chain-9'"), AT, "changed_row", False),
    "a time": (row("ts = ts - interval '1 hour'"), AT, "changed_row", False),
    "a time of creation": (row("created_at = created_at + interval '1 us'"), AT, "changed_row", False),
    "an event type": (row("event_type = 'no.such'"), AT, "changed_row", False),
    "where a row is in the log": (row("metadata = '{}'"), AT, "changed_row", False),
    "of whose log it is": (row("metadata = replace(metadata::text, 'exam', 'else')::json"), AT, "changed_row", False),
    "two payloads swapped": (run(SWAPPED.format(table="audit_events", column="payload")), AT, "changed_row", False),
    "a chain row gone": (
        run(f"DELETE FROM audit_events WHERE lane = 0 AND position = {AT}"),
        AT,
        "missing_chain_row",
        False,
    ),
    "a chain row more": (run(*copied("audit_events", AT)), LONG, "stray_chain_row", False),
    "who signed": (row("signer = 'nobody-1'", "entries"), AT, "changed_row", False),
    "of which model": (row("model = 'another'", "entries"), AT, "changed_row", False),
    "when it was appended": (row("append_time = append_time + interval '1 s'", "entries"), AT, "changed_row", False),
    "where it was in Kafka": (row("kafka_offset = kafka_offset + 1", "entries"), AT, "changed_row", False),
    "its causes": (row("causes = '{}'", "entries", 2), 2, "changed_row", False),
    "its number": (row("seq = coalesce(seq, 0) + 1", "entries"), AT, "changed_row", False),
    "one byte of an entry": (row("entry = set_byte(entry, 900, 7)", "entries"), AT, "differs_from_archive", True),
    "two entries swapped": (run(SWAPPED.format(table="entries", column="entry")), AT, "wrong_position", False),
    "an entry of another lane": (entry(lambda made: made.raws[1][5]), AT, "wrong_position", False),
    "an entry that is none": (entry(lambda _: b"junk"), AT, "malformed_entry", False),
    "a chain row signed by a stranger": (entry(signed_by_a_stranger), AT, "bad_chain_signature", False),
    "an event signed by a stranger": (entry(said_by_a_stranger), AT, "bad_signature", False),
    "an entry gone": (
        run(
            f"DELETE FROM audit_events WHERE lane = 0 AND position = {AT}",
            f"DELETE FROM entries WHERE lane = 0 AND position = {AT}",
        ),
        AT,
        "missing_row",
        False,
    ),
    "an entry replayed": (
        run(*copied("entries", AT), f"UPDATE lanes SET size = {LONG + 1} WHERE lane = 0"),
        LONG,
        "wrong_position",
        False,
    ),
    "the end cut off": (run(*CUT), None, "wrong_head", False),
    "the end cut off, and the head put back": (
        run(
            *CUT,
            f"UPDATE lanes SET size = {LONG - 10}, head_hash = (SELECT hash FROM audit_events WHERE lane = 0 AND "
            f"position = {LONG - 11}) WHERE lane = 0",
        ),
        None,
        "behind_archive",
        True,
    ),
    "a verdict": (row("verdict = 'repeated'", "entries"), AT, "changed_row", False),
    "the memory of an event gone": (
        run(f"DELETE FROM event_ids WHERE lane = 0 AND position = {AT}"),
        AT,
        "wrong_history",
        False,
    ),
    "the memory of another content": (row("event_hash = repeat('0', 64)", "event_ids"), AT, "wrong_history", False),
    "the memory of an event that never was": (
        run(f"INSERT INTO event_ids VALUES (0, gen_random_uuid(), {AT}, repeat('0', 64))"),
        AT,
        "wrong_history",
        False,
    ),
    "the memory of a number gone": (
        run(f"DELETE FROM producer_events WHERE lane = 0 AND position = {AT}"),
        AT,
        "wrong_history",
        False,
    ),
    "the memory of a number moved": (row("seq = seq + 9000", "producer_events"), AT, "wrong_history", False),
    "a size": (run("UPDATE lanes SET size = size - 1 WHERE lane = 0"), None, "wrong_head", False),
    "a head": (run("UPDATE lanes SET head_hash = repeat('0', 64) WHERE lane = 0"), None, "wrong_head", False),
}


@pytest.mark.parametrize("what", CASES)
def test_a_changed_row_is_found_and_placed(log: LogFolder, rows: Rows, what: str) -> None:  # noqa: F811
    change, position, code, archive = CASES[what]
    change(rows, log)
    assert (position, code) in found(log, rows, archive=archive)


def test_an_archive_that_shows_less_than_postgres_has_noted_was_rolled_back(
    log: LogFolder,  # noqa: F811
    rows: Rows,
) -> None:
    note = log.note(0, LONG + 5, bytes(32)).decode()
    noted = "UPDATE lane_progress SET checkpoint_size = %s, checkpoint_note = %s WHERE lane = 0"
    rows.execute(noted, (LONG + 5, note))
    assert found(log, rows, archive=True) == {(None, "rolled_back")}
    rows.execute(noted, (LONG + 5, log.note(0, LONG + 5, bytes(32), audit=LocalSigner.fresh("audit-1")).decode()))
    assert found(log, rows, archive=True) == set(), "a stranger's word makes nobody look for what never was"
