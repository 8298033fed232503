"""With a real indexer: an event that its service has numbered and nobody has sent is found, said, and counted once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.system.town import Town

from ai_infra.cli.vitals import examine
from ai_infra.devstack import Stack
from ai_infra.devstack.waiting import wait_until
from ai_infra.events.generated import JobStatusKind
from ai_infra.readmodel import connect
from ai_infra.settings import Settings
from ai_infra_indexer.completeness.watch import CompletenessWatch

PATIENCE = 150.0


@pytest.fixture(scope="module")
def town(stack: Stack, settings: Settings) -> Iterator[Town]:
    town = Town(stack, settings)
    yield town
    town.stop()


def findings(town: Town, producer: str, epoch: int) -> int:
    """How many findings about what a producer withheld in an epoch are in the log."""
    said = f"{producer} epoch {epoch} never came".encode()
    with connect(town.settings.database.url, autocommit=True) as connection:
        rows = connection.execute("SELECT entry FROM entries WHERE type = 'audit.finding'").fetchall()
    return sum(said in bytes(raw) for (raw,) in rows)


def test_a_withheld_event_is_found_said_once_and_gone_when_it_comes_after_all(town: Town) -> None:
    world = town.world("withheld")
    story = world.story()
    trouble = world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=2))
    after = world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=3))
    producer, lane = f"trainer/{world.lane}", world.lane
    town.send(*story, after)
    town.start()
    town.await_final(*story, after)
    assert wait_until(lambda: findings(town, producer, world.epoch) > 0, PATIENCE), "nothing was found"

    def of_ours(told: Any) -> list[tuple[int, int, bool]]:
        return [
            (gap["first"], gap["last"], gap["settled"])
            for found in told["lanes"]
            for gap in found["gaps"]
            if (gap["producer"], gap["epoch"]) == (producer, world.epoch)
        ]

    _, seq, _ = (0, *world.counters[("trainer", lane)])
    code, told = town.cli("audit", "complete", "--lane", str(lane), "--settled", "0")
    assert (code, of_ours(told)) == (1, [(seq - 1, seq - 1, True)])
    _, told = town.cli("audit", "complete", "--lane", str(lane), "--settled", "86400")
    assert of_ours(told) == [(seq - 1, seq - 1, False)]
    bucket = f"s3://{town.settings.objects.archive_bucket}"
    assert wait_until(
        lambda: (
            of_ours(town.cli("audit", "complete", "--lane", str(lane), "--archive", bucket, "--settled", "0")[1])
            == [(seq - 1, seq - 1, True)]
        ),
        PATIENCE,
    )

    told = examine(town.settings).findings
    assert [f.next for f in told if f.subject == f"lane {lane}" and "withheld" in f.what] == [
        f"ai-infra audit complete --lane {lane}"
    ]

    # Another that watches finds the same, and sees that it is said already.
    watch = CompletenessWatch(town.settings, lambda: connect(town.settings.database.url, autocommit=True))
    for _ in range(2):
        found = [w for w in watch.look([lane]) if w.missing.producer == producer and w.missing.epoch == world.epoch]
    assert [(w.missing.first, w.missing.last) for w in found] == [(seq - 1, seq - 1)]
    assert found[0].id not in {w.id for w in watch.take(lane)}
    assert findings(town, producer, world.epoch) == 1

    town.send(trouble)
    town.await_final(trouble)
    assert of_ours(town.cli("audit", "complete", "--lane", str(lane), "--settled", "0")[1]) == []
    assert not [w for w in watch.look([lane]) if w.missing.epoch == world.epoch and w.missing.producer == producer]


def test_what_is_still_unread_is_no_finding(town: Town) -> None:
    """The indexer stands still with the missing event before its nose: nobody may say that it was withheld."""
    world = town.world("unread")
    first = world.story()
    town.start()
    town.send(*first)
    town.await_final(*first)
    town.stop()
    watch = CompletenessWatch(town.settings, lambda: connect(town.settings.database.url, autocommit=True))
    late = world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=2))
    last = world.say("registry", world.registered("art-2", 2))
    producers = {f"trainer/{world.lane}", f"registry/{world.lane}"}

    def ours() -> list[Any]:
        return [
            w for w in watch.look([world.lane]) if w.missing.epoch == world.epoch and w.missing.producer in producers
        ]

    with connect(town.settings.database.url, autocommit=True) as connection:
        # As if the later of two had been read first: from another topic, which an indexer may.
        seq = world.counters[("trainer", world.lane)][0]
        connection.execute(
            "INSERT INTO producer_events (lane, producer, epoch, seq, position, event_hash) "
            "SELECT lane, producer, epoch, %s, position, event_hash FROM producer_events "
            "WHERE lane = %s AND producer = %s AND epoch = %s AND seq = 1",
            (seq + 1, world.lane, f"trainer/{world.lane}", world.epoch),
        )
        town.send(late, last)
        assert ours() == []
        assert ours() == []
        connection.execute(
            "DELETE FROM producer_events WHERE lane = %s AND producer = %s AND epoch = %s AND seq = %s",
            (world.lane, f"trainer/{world.lane}", world.epoch, seq + 1),
        )
    town.start()
    town.await_final(late, last)
