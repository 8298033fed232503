"""The log's own keys are rotated and revoked while events flow: nothing is lost, and everything verifies afterwards.

The tests run in this order on one log; the last leaves it with keys that count, for whoever uses the stack next.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from urllib.request import urlopen

from tests.system.town import PATIENCE, Town

from ai_infra.devstack.waiting import wait_until
from ai_infra.events.event import Record
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import ReadModel, connect
from ai_infra.trust.keyring import AUDIT, CHAIN
from ai_infra.trust.keyring_files import load_keyrings


def keys(town: Town, *arguments: str) -> Any:
    code, told = town.cli("keys", *arguments)
    assert code == 0, told
    return told


def topic_problems(town: Town) -> list[Any]:
    """What `audit verify --topic` finds in what subscribers were told, by the indexer."""
    _, found = town.cli("audit", "verify", "--from", "archive", "--topic")
    assert isinstance(found, dict), found
    assert {lane["versions"] for lane in found["lanes"]} == {"checked"}
    # Other tests may have said checkpoints of their own making.
    return [p for p in found["problems"] if p["source"] == "topic" and p["code"] != "foreign_checkpoint"]


def counting(town: Town, use: str) -> list[str]:
    """Keys of that use that are not revoked, the newest last."""
    directory = town.settings.keys.dir
    assert directory is not None
    keyring = load_keyrings(directory).latest
    found = [key for key in keyring.keys.values() if key.use == use and key.id not in keyring.revocations]
    return [key.id for key in sorted(found, key=lambda key: key.deployed_at)]


def certified(town: Town, chain_key: str) -> bool:
    """Whether the archive has the audit key's word for a chain key."""
    archive = f"s3://{town.settings.objects.archive_bucket}"
    with ObjectStore(town.settings) as store:
        return f"{archive}/trust/{chain_key}.certificate.json" in {item.uri for item in store.list(f"{archive}/trust/")}


@contextmanager
def flowing(town: Town, said: list[Record]) -> Iterator[None]:
    """Events of all lanes, one after the other, for as long as the block lasts."""
    worlds = [town.world(model) for model in islice(town.models("rotation"), town.lanes)]
    stop = threading.Event()
    failed: list[BaseException] = []

    def flow() -> None:
        try:
            while not stop.is_set():
                for world in worlds:
                    record = world.say("orchestrator", world.queued(f"job-{len(said)}"))
                    town.send(record)
                    said.append(record)
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=flow, name="flow")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not failed


def more(said: list[Record], count: int) -> None:
    goal = len(said) + count
    assert wait_until(lambda: len(said) >= goal, PATIENCE), "events do not flow"


def test_keys_are_rotated_and_revoked_under_load_and_nothing_is_lost(town: Town) -> None:
    said: list[Record] = []
    [*_, audit], [*_, chain] = counting(town, AUDIT), counting(town, CHAIN)
    with flowing(town, said):
        more(said, 20)
        for key in (audit, chain):
            keys(town, "rotate", key)
            more(said, 20)
        for key in (audit, chain):
            keys(town, "revoke", key, "--reason", "a test")
            more(said, 20)
        assert wait_until(lambda: certified(town, counting(town, CHAIN)[-1]), PATIENCE), "no certificate in the archive"
        town.start(replica=1)
        more(said, 20)
        town.stop()
        town.start()
    town.await_final(*said)
    town.stack.stop_service("indexer", replica=1)
    assert town.problems() == []
    assert topic_problems(town) == []
    ids = [dict(record.headers)["ce_id"].decode() for record in said]
    with connect(town.settings.database.url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT e.event_id::text, a.signer_id FROM entries e JOIN audit_events a USING (lane, position) "
            "WHERE e.event_id = ANY(%s::uuid[])",
            (ids,),
        ).fetchall()
        revoked = connection.execute("SELECT DISTINCT lane FROM keys WHERE key_id = %s", (chain,)).fetchall()
    assert sorted(row[0] for row in rows) == sorted(ids), "each event is in the log once"
    assert len(revoked) == town.lanes
    assert {row[1] for row in rows} >= {chain}
    assert dict(rows)[ids[-1]] != chain


def test_without_an_audit_key_that_counts_nothing_becomes_final_until_one_is_made(town: Town) -> None:
    for key in counting(town, AUDIT):
        keys(town, "revoke", key, "--reason", "stolen")
    assert wait_until(lambda: "the audit key" in town.readiness(), PATIENCE), town.readiness()
    world = town.world("no-audit-key")
    record = world.say("orchestrator", world.queued("job-no-audit-key"))
    town.send(record)
    event_id = dict(record.headers)["ce_id"].decode()

    def projected() -> bool:
        with ReadModel(town.settings.database.url) as model:
            return model.event(event_id) is not None

    assert wait_until(projected, PATIENCE), "what is said is entered all the same"
    with urlopen(f"{town.stack.service_url('indexer')}/metrics", timeout=10) as answer:
        assert 'ai_infra_indexer_key_stands{use="audit"} 0.0' in answer.read().decode()
    with ReadModel(town.settings.database.url) as model:
        entry = model.event(event_id)
        assert entry is not None
        assert all(row.checkpoint_size <= entry.position for row in model.lanes() if row.lane == entry.lane)

    keys(town, "new", "audit-of-the-test", "--use", "audit")
    town.await_final(record)

    def known() -> bool:
        """In every lane: a checkpoint by the new key verifies by a keyring that has it."""
        with connect(town.settings.database.url, autocommit=True) as connection:
            found = connection.execute("SELECT DISTINCT lane FROM keys WHERE key_id = 'audit-of-the-test'").fetchall()
        return len(found) == town.lanes

    assert wait_until(known, PATIENCE), "waited in vain for every lane to enter the keyring with the new key"
    sizes = town.sizes()
    assert wait_until(lambda: town.covers(sizes), PATIENCE), "waited in vain for the archive to cover that keyring"
    assert town.problems() == []
