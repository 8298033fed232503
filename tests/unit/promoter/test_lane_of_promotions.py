"""Promoter and canary together, with events heard in any order between topics, delayed work, outages and duplicates."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.events.generated import Environment

ARTIFACTS = ("A", "B", "C")
ENVIRONMENTS = (Environment.STAGING, Environment.PROD)
artifacts, environments = st.sampled_from(ARTIFACTS), st.sampled_from(ENVIRONMENTS)
promotion_ids = st.sampled_from([f"p{i}" for i in range(8)])
expectations = st.sampled_from([None, "", *ARTIFACTS])

happenings = st.one_of(
    st.tuples(st.just("register"), artifacts),
    st.tuples(st.just("evaluate"), artifacts, st.sampled_from([100_000, 849_999, 850_000, 990_000])),
    st.tuples(st.just("revoke"), artifacts),
    st.tuples(st.just("request"), promotion_ids, artifacts, environments, expectations, st.sampled_from([None, 20])),
    st.tuples(st.just("request"), promotion_ids, artifacts, st.just(Environment.PROD), st.none(), st.none()),
    st.tuples(st.just("rollback"), promotion_ids, st.sampled_from([None, *ARTIFACTS]), environments, expectations),
    st.tuples(st.just("rollback"), promotion_ids, st.none(), st.just(Environment.PROD), st.none()),
    st.tuples(st.just("again"), st.integers(0, 30)),
    # most of the time the lane just goes on: which of what it could do next is chosen by number
    st.tuples(st.just("go on"), st.lists(st.integers(0, 99), min_size=1, max_size=12)),
    st.tuples(st.just("go on"), st.lists(st.integers(0, 99), min_size=1, max_size=12)),
    st.tuples(st.just("settle")),
    st.tuples(st.just("tick"), st.integers(0, 99)),
    st.tuples(st.just("time"), st.integers(1, 40)),
    st.tuples(st.just("signing"), st.booleans()),
    st.tuples(st.just("signature"), artifacts),
)
good = st.sampled_from([(), ("A",), ("A", "B"), ARTIFACTS])
stories = st.tuples(good, st.lists(happenings, max_size=25)).map(
    lambda both: [
        *(("register", a) for a in both[0]),
        *(("evaluate", a, 950_000) for a in both[0]),
        *both[1],
    ]
)


def happen(world: Any, what: tuple[Any, ...]) -> None:
    match what:
        case ("register", artifact):
            world.register(artifact)
        case ("evaluate", artifact, score):
            world.evaluate(artifact, score)
        case ("revoke", artifact):
            world.revoke(artifact)
        case ("request", promotion, artifact, env, expected, lapse):
            not_after = None if lapse is None else world.now + timedelta(seconds=lapse)
            world.request(
                promotion, artifact, target_env=env, expected_current_artifact_id=expected, not_after=not_after
            )
        case ("rollback", promotion, to, env, expected):
            world.rollback(promotion, to, target_env=env, expected_current_artifact_id=expected)
        case ("again", number):
            asked = [e for t in ("promotion.requested", "rollback.requested") for e in world.topics.get(t, [])]
            if asked:
                world.say(asked[number % len(asked)].body)
        case ("go on", numbers):
            for number in numbers:
                go_on(world, number)
        case ("settle",):
            world.settle()
        case ("tick", number) if world.promoter.timers:
            world.tick(world.promoter, list(world.promoter.timers)[number % len(world.promoter.timers)])
        case ("time", seconds):
            world.pass_time(seconds)
        case ("signing", works):
            world.signing_works = works
        case ("signature", artifact):
            world.bad_signatures ^= {artifact}


def go_on(world: Any, number: int) -> None:
    could: list[tuple[Any, ...]] = [
        (world.hear, part, topic)
        for part in (world.promoter, world.canary)
        for topic in part.hears
        if part.read.get(topic, 0) < len(world.topics.get(topic, []))
    ]
    could += [(world.finish, world.promoter, key) for key in world.promoter.work]
    if could:
        do, *args = could[number % len(could)]
        do(*args)


def causes(world: Any, event: Any, topic: str) -> list[Any]:
    ids = {cause.id for cause in event.causes}
    return [e for e in world.topics.get(topic, []) if e.id in ids]


def check(world: Any) -> None:
    decided = [e.body for e in world.topics.get("promotion.decided", [])]
    changes = [e.body for e in world.topics.get("deployment.changed", [])]
    approved = {d.promotion_id: d for d in decided if d.status == "approved"}

    # nothing serves that was not approved, signed, and for that environment; and each approval applies at most once
    for change in changes:
        approval = approved[change.promotion_id]
        assert (approval.artifact_id, approval.target_env) == (change.stable_artifact_id, change.env)
        assert approval.decision_envelope  # the canary has verified it
        assert approval.expected_current_artifact_id in {None, change.previous_stable_artifact_id or ""}
    assert len({c.promotion_id for c in changes}) == len(changes)

    # no service lets serve what it knows to be revoked
    assert not world.knew_better

    # what was heard in silence is named by what rests on it: so it can be decided again from the log alone
    said: list[Any] = []
    for event in (e for topic in ("promotion.decided", "canary.status") for e in world.topics.get(topic, [])):
        if event.body in said:
            continue  # the answer to a request that was sent again
        said.append(event.body)
        named = {e.body.artifact_id for e in causes(world, event, "artifact.revoked")}
        reasons = [r.code for r in getattr(event.body, "reasons", ())] or [getattr(event.body, "reason", "")]
        if any(reason.startswith("artifact_revoked") for reason in reasons):
            assert named == {event.body.artifact_id}
        if event.type == "promotion.decided" and (event.body.kind, event.body.status) == ("rollback", "approved"):
            assert {e.body.env for e in causes(world, event, "deployment.changed")} == {event.body.target_env}

    # revisions of an environment count strictly by one, and each names what served before it
    for env in ENVIRONMENTS:
        mine = [c for c in changes if c.env == env]
        assert [c.revision for c in mine] == list(range(1, len(mine) + 1))
        befores = [None, *(c.stable_artifact_id for c in mine)]
        assert [c.previous_stable_artifact_id for c in mine] == befores[: len(mine)]

    # an approval rests on an evaluation over the threshold (or the artifact served there before), on a good signature
    for approval in approved.values():
        served = {c.stable_artifact_id for c in changes if c.env == approval.target_env}
        if approval.kind == "rollback" and approval.artifact_id in served:
            continue  # judged when it was promoted: going back does not wait for a new evaluation, or for a better one
        assert approval.score_e6 is not None
        assert approval.score_e6 >= approval.threshold_e6

    # each promotion goes one way: its distinct statuses follow one another as they may, and an end is an end
    may = {
        "pending": {"approved", "rejected", "expired"},
        "approved": {"applied", "rejected", "revoked"},
        "applied": {"revoked"},
    }
    for promotion_id in {d.promotion_id for d in decided}:
        statuses = [d.status.value for d in decided if d.promotion_id == promotion_id]
        assert statuses[0] in {"pending", "rejected", "expired"}
        for before, after in itertools.pairwise(statuses):
            assert before == after or after in may.get(before, set())
        same = {(d.artifact_id, d.target_env) for d in decided if d.promotion_id == promotion_id and d.artifact_id}
        assert len(same) <= 1 or all(d.kind == "rollback" for d in decided if d.promotion_id == promotion_id)


@given(stories)
@settings(max_examples=examples(150))
def test_whatever_happens_only_what_was_approved_serves_and_only_once(
    new_world: Any, story: list[tuple[Any, ...]]
) -> None:
    world = new_world()
    for what in story:
        happen(world, what)
    check(world)
    world.signing_works = True
    world.settle(timers=True)
    check(world)

    # in the end nobody waits: each promotion that was heard has its answer, and what was approved is no longer open
    for _, promotion in world.promotions():
        assert promotion.status not in {"pending", "approved"}
        assert not promotion.waiting
    assert not world.promoter.work
    # and the canary knows what it said
    for record_id, deployment in world.deployments():
        env = record_id.split("/")[1]
        last = [e.body for e in world.topics["deployment.changed"] if e.body.env == env][-1]
        assert (deployment.revision, deployment.stable_artifact_id) == (last.revision, last.stable_artifact_id)


@given(stories)
@settings(max_examples=examples(60))
def test_deciding_the_same_triggers_twice_decides_the_same(new_world: Any, story: list[tuple[Any, ...]]) -> None:
    def said() -> list[Any]:
        world = new_world()
        for what in story:
            happen(world, what)
        world.signing_works = True
        world.settle(timers=True)
        return [e.body for topic in sorted(world.topics) for e in world.topics[topic]]

    assert said() == said()
