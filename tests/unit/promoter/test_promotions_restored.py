"""Promoter and canary come back from their log as they were, in whatever order they had heard what they were told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import given, settings
from tests.properties import examples
from tests.unit.bus.restored import Restored, restored
from tests.unit.promoter.conftest import PROMOTION_KEY
from tests.unit.promoter.test_lane_of_promotions import happen, stories

from ai_infra.events.generated import PromotionStatus
from ai_infra.settings import load_settings
from ai_infra_canary import decide as canary_decide
from ai_infra_canary import restoring as canary_restoring
from ai_infra_canary import service as canary_service
from ai_infra_canary import state as canary_state
from ai_infra_promoter import restoring, service
from ai_infra_promoter import state as promoter_state

NOTHING = load_settings(environ={})
KEYS = {PROMOTION_KEY.key_id: PROMOTION_KEY.public_key}


def both(world: Any) -> tuple[Restored, Restored]:
    """Promoter and canary of the world, restored from its log."""
    real = canary_service.build(NOTHING)
    canary = replace(real, decide=partial(canary_decide.decide, promotion_keys=lambda _version, _now: KEYS))
    now = world.now
    return (
        restored(service.build(NOTHING), restoring.RESTORER, 0, world.log, now),
        restored(canary, canary_restoring.RESTORER, 0, world.log, now),
    )


def records(part: Any, types: tuple[type, ...]) -> dict[tuple[type, str], Any]:
    """Of an index only what it holds counts: the live one has it in the order of hearing, between topics by chance."""
    found = {(kind, i): record for kind in types for i, record in part.state.all(kind)}
    return {
        i: sorted(record.promotion_ids) if isinstance(record, promoter_state.PromotionsAbout) else record
        for i, record in found.items()
    }


@given(stories)
@settings(max_examples=examples(150))
def test_what_is_settled_is_restored_as_it_was_and_nothing_is_said_again(
    new_world: Any, story: list[tuple[Any, ...]]
) -> None:
    world = new_world()
    world.register("A")
    for what in story:
        happen(world, what)
    world.signing_works = True
    world.settle(timers=True)
    if not world.topics.get("promotion.decided"):
        return
    promoter, canary = both(world)
    assert records(promoter, promoter_state.RECORDS) == records(world.promoter, promoter_state.RECORDS)
    types = (canary_state.Deployment, canary_state.RevokedArtifact, canary_state.Rollout)
    assert records(canary, types) == records(world.canary, types)
    for lane in (promoter, canary):
        assert (lane.restored.said, lane.restored.again, lane.restored.pending) == (0, (), ())


@given(stories)
@settings(max_examples=examples(100))
def test_restored_at_any_moment_every_promotion_ends_and_nothing_is_applied_twice(
    new_world: Any, story: list[tuple[Any, ...]]
) -> None:
    world = new_world()
    world.register("A")
    world.evaluate("A", 950_000)
    world.request("first", "A")
    world.settle()
    for what in story:
        happen(world, what)
    decided = {p.promotion_id: p.status for _, p in world.promotions() if p.status != PromotionStatus.PENDING}
    promoter, canary = both(world)
    found = {p.promotion_id: p.status for _, p in promoter.state.all(promoter_state.Promotion)}
    assert decided.items() <= found.items()
    asked = {key.split("/", 1)[1].split("/")[1] for key in promoter.restored.pending}
    waiting = {p.promotion_id for _, p in promoter.state.all(promoter_state.Promotion) if p.waiting}
    open_ = {i for i, status in found.items() if status == PromotionStatus.PENDING}
    assert open_ <= asked | waiting  # each is examined again, or waits for a fact with a timer
    for i, deployment in canary.state.all(canary_state.Deployment):
        live = world.canary.state.get(canary_state.Deployment, i)
        # It goes on from where it was, by what it had not answered yet; it never goes back.
        assert live is None or deployment.revision >= live.revision
