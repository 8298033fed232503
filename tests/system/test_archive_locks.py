"""Legal holds and longer retention, by command, on a real store with Object Lock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.system.test_archive_versions import BUNDLE, Bucket, bucket, log  # noqa: F401 - fixtures
from tests.system.town import PATIENCE, Town
from tests.unit.indexer.log_folder import LONG, ORIGIN

from ai_infra.devstack.waiting import wait_until
from ai_infra.events.lanes import lane_of
from ai_infra.objects.exceptions import AccessDenied
from ai_infra.objects.model import Lock, LockMode
from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import ReadModel, connect
from ai_infra.tlog.tiles import entries_path
from ai_infra_indexer import locks

FAR = (datetime.now(UTC) + timedelta(days=900)).replace(microsecond=0)
FOR_GOOD = {BUNDLE, "tile/0/000", f"checkpoints/{256:020d}"}
EDGE = {"checkpoint", "tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"}


def objects(bucket: Bucket, *, past: bool = False) -> list[locks.Kept]:  # noqa: F811
    return locks.kept_of_lane(BucketReader(bucket.store, bucket.uri), ORIGIN, 0, past=past)


def paths(bucket: Bucket, found: list[locks.Kept]) -> set[str]:  # noqa: F811
    return {kept.uri.removeprefix(f"{bucket.uri}/lanes/0/") for kept in found}


def test_what_is_kept_for_good_is_locked_for_longer_and_never_for_less(bucket: Bucket) -> None:  # noqa: F811
    def todo(until: datetime) -> list[tuple[locks.Kept, Lock]]:
        return locks.to_extend(locks.look(bucket.store, objects(bucket)), until, LockMode.COMPLIANCE)

    assert paths(bucket, [kept for kept, _ in todo(FAR)]) == FOR_GOOD
    assert locks.extend(bucket.store, todo(FAR)) == []
    assert todo(FAR) == todo(FAR - timedelta(days=300)) == []
    told = locks.summary("lane 0", locks.look(bucket.store, objects(bucket)))
    assert (told.objects, told.first, told.last, told.unlocked) == (len(FOR_GOOD | EDGE), FAR, FAR, 0)
    with pytest.raises(AccessDenied):
        bucket.store.delete(bucket.place(BUNDLE), version_id=bucket.version(BUNDLE, 0), bypass_governance=True)


def test_a_hold_takes_what_shows_the_lane_as_it_is_and_its_release_what_did(bucket: Bucket) -> None:  # noqa: F811
    bucket.cover(f"{BUNDLE}.p/9", b"superseded")
    bucket.cover(BUNDLE, b"junk of somebody else")
    before = locks.look(bucket.store, objects(bucket))
    assert locks.hold(bucket.store, locks.to_hold(before, True), True) == []
    held = [item for item in locks.look(bucket.store, objects(bucket)) if item.held]
    assert paths(bucket, [item.kept for item in held]) == FOR_GOOD | EDGE
    assert locks.to_hold(locks.look(bucket.store, objects(bucket)), True) == []
    assert not bucket.store.locked(bucket.place(BUNDLE))[1], "the log's own version is held, not what covers it"

    bucket.cover("checkpoint", bucket.head(LONG))
    assert paths(bucket, locks.to_hold(locks.look(bucket.store, objects(bucket)), True)) == {"checkpoint"}
    past = locks.look(bucket.store, objects(bucket, past=True))
    assert paths(bucket, locks.to_hold(past, False)) == FOR_GOOD | EDGE
    assert locks.hold(bucket.store, locks.to_hold(past, False), False) == []
    assert not any(item.held for item in locks.look(bucket.store, objects(bucket, past=True)))


# --- by command, on the real log --------------------------------------------------------------------------------------


def acts(town: Town, target: str) -> list[tuple[str, str, str]]:
    with connect(town.settings.database.url, autocommit=True) as connection:
        return connection.execute(
            "SELECT action, reason, operator FROM operator_actions WHERE target = %s ORDER BY at, position", (target,)
        ).fetchall()


def test_a_model_and_its_lane_are_held_and_locked_for_longer_by_acts_that_are_in_the_log(town: Town) -> None:
    lane = lane_of("held", town.lanes)
    artifact, manifest = town.register("held")
    with ObjectStore(town.settings) as store:
        code, told = town.cli("audit", "hold", "set", "--model", "held", "--reason", "a lawsuit")
        assert code == 0, told
        state = {item["of"]: item for item in told["state"]}
        assert set(state) == {"model held", f"lane {lane}", locks.SHARED}
        assert all(item["held"] == item["objects"] > 0 for of, item in state.items() if not of.startswith("lane"))
        assert [store.head(uri).legal_hold for uri in (artifact, manifest)] == [True, True]
        kept = store.list(f"s3://{town.settings.objects.archive_bucket}/lanes/{lane}/")
        assert any(store.head(item.uri).legal_hold for item in kept)

        code, told = town.cli(
            "audit", "retention", "extend", "--model", "held", "--days", "900", "--yes", "--reason", "the policy"
        )
        assert code == 0, told
        locked = store.head(artifact).lock
        assert locked is not None
        assert (locked.mode, locked.until.date()) == (
            LockMode.GOVERNANCE,
            (datetime.now(UTC) + timedelta(days=900)).date(),
        )
        code, told = town.cli(
            "audit", "retention", "extend", "--model", "held", "--days", "500", "--yes", "--reason", "by mistake"
        )
        assert (code, told["changed"]) == (0, 0), "nothing is ever locked for less"
        assert store.head(artifact).lock == locked

        code, told = town.cli("audit", "hold", "release", "--model", "held", "--reason", "settled")
        assert code == 0, told
        assert told["changed"] == 2
        assert not store.head(artifact).legal_hold
        assert town.cli("audit", "hold", "release", "--model", "held", "--reason", "again")[1]["changed"] == 0

    def in_the_log() -> bool:
        return [(action, why) for action, why, _ in acts(town, "models/held")] == [
            ("archive.hold", "a lawsuit"),
            ("archive.retention", "the policy"),
            ("archive.release", "settled"),
        ]

    assert wait_until(in_the_log, PATIENCE), acts(town, "models/held")


def test_all_lanes_are_held_each_knows_of_it_and_all_are_released(town: Town) -> None:
    records = [town.world(f"all-{n}").story()[0] for n in range(8)]
    town.send(*records)
    town.await_final(*records)
    assert town.cli("audit", "hold", "set", "--all", "--reason", "everything")[0] == 0
    targets = [f"lanes/{lane}" for lane in range(town.lanes)]
    assert wait_until(lambda: all(("archive.hold" in {a[0] for a in acts(town, t)}) for t in targets), PATIENCE)
    assert town.cli("audit", "hold", "release", "--all", "--reason", "enough")[0] == 0
    code, told = town.cli("audit", "hold", "show")
    assert code == 0, told
    assert {item["held"] for item in told} == {0}


def test_a_lane_whose_archive_is_covered_stands_still_and_says_so_until_it_can_be_read(town: Town) -> None:
    """The process lives on, and so do its other lanes."""
    world = town.world("covered")
    first = world.say("orchestrator", world.queued("job-covered"))
    town.send(first)
    town.await_final(first)
    town.stop()
    with ReadModel(town.settings.database.url) as model:
        size = next(row.checkpoint_size for row in model.lanes() if row.lane == world.lane)
    place = f"s3://{town.settings.objects.archive_bucket}/lanes/{world.lane}/"
    edge = place + entries_path((size - 1) // 256, (size - 1) % 256 + 1)
    with ObjectStore(town.settings) as store:
        store.delete(edge, bypass_governance=True)
        town.start()
        said = f"the archive of lane {world.lane} can't be read"
        assert wait_until(lambda: said in town.readiness(), PATIENCE), town.readiness()
        [marker] = [v for v in store.versions(edge) if v.delete_marker]
        store.delete(edge, version_id=marker.version_id)
    more = world.say("orchestrator", world.queued("job-uncovered"))
    town.send(more)
    town.await_final(more)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("hold", "set", "--reason", "x"), "say of what"),
        (("hold", "set", "--lane", "0", "--all", "--reason", "x"), "say of what"),
        (("hold", "set", "--lane", "99", "--reason", "x"), "there are lanes"),
        (("retention", "extend", "--lane", "0", "--reason", "x"), "say until when"),
        (("retention", "extend", "--lane", "0", "--until", "2001-01-01", "--reason", "x"), "is past"),
        (("retention", "extend", "--lane", "0", "--until", "soon", "--reason", "x"), "expected a day"),
    ],
)
def test_what_can_not_be_meant_is_refused(ai_infra: Callable[..., Any], arguments: tuple[str, ...], what: str) -> None:
    assert what in ai_infra("audit", *arguments, code=1)
