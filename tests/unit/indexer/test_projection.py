"""The projection is a function of the entry, and has a rule for everything that is sequenced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.properties import examples

from ai_infra.events.event import Event
from ai_infra.events.generated import BODIES, ArtifactRegistered, DeploymentCause, PromotionStatus, SignerChanged
from ai_infra_indexer.exceptions import ProjectionRefused
from ai_infra_indexer.projection import RULES, Mode, project

UNSEQUENCED = {"serving.window", "serving.profile", "audit.checkpoint"}
SEQUENCED = sorted(set(BODIES) - UNSEQUENCED)


def test_there_is_a_rule_for_every_event_that_is_sequenced() -> None:
    assert {body.TOPIC for body in RULES} == set(SEQUENCED)


@pytest.fixture(scope="module")
def heard(make_world: Callable[[], Any]) -> Event[Any]:
    """An event, verified."""
    world = make_world()
    return world.verifier().verify(world.say("orchestrator", world.queued()))  # type: ignore[no-any-return]


@pytest.mark.parametrize("topic", [t for t in SEQUENCED if t != SignerChanged.TOPIC])
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_event_projects_to_the_same_rows_each_time(
    topic: str, any_body: Callable[[str], st.SearchStrategy[Any]], heard: Event[Any], data: st.DataObject
) -> None:
    event = replace(heard, body=data.draw(any_body(topic)))
    first = project(7, event)
    assert first == project(7, event)
    assert first
    for change in first:
        assert "lane" not in change.key
        assert not set(change.key) & set(change.values)
        assert not set(change.values) & set(change.on_insert)


@pytest.mark.parametrize(
    "text",
    ["[" * 201 + "]" * 201, "[1e131071]", '{"a":1E+0001000}', "[" + "9" * 1_000 + "]", "[0." + "1" * 1_000 + "]"],
)
def test_json_that_nobody_could_read_back_costs_an_event_its_rows(world: Any, text: str) -> None:
    event = world.verifier().verify(world.say("orchestrator", world.queued(hyperparams_json=text)))
    with pytest.raises(ProjectionRefused):
        project(0, event)


@pytest.mark.parametrize(
    "text", ['{"a":"[[1e131071"}', "[1e308,-0.5,true,1e-7]", '{"a":"\\"[["}', '"' + '\\"' * 20_000, "{"]
)
def test_other_json_and_what_is_none_is_the_database_s_to_judge(world: Any, text: str) -> None:
    event = world.verifier().verify(world.say("orchestrator", world.queued(hyperparams_json=text)))
    [job] = project(0, event)
    assert job.values["hyperparams"] == text


def test_a_keyring_brings_its_keys(world: Any) -> None:
    event = world.verifier().verify(world.keyring_record())
    keys = {change.key["key_id"] for change in project(0, event) if change.table == "keys"}
    assert {"audit-1", "chain-1", "trainer-1", "orchestrator-1"} <= keys


def test_a_bit_equal_repetition_is_one_more_attestation_and_no_new_version(world: Any) -> None:
    verifier = world.verifier()
    again = verifier.verify(world.say("registry", world.registered(new_version=False, attestation=2)))
    tables = [change.table for change in project(9, again)]
    assert "versions" not in tables
    [attestation] = [c for c in project(9, again) if c.table == "attestations"]
    assert attestation.key["attestation"] == 2
    [artifact] = [c for c in project(9, again) if c.table == "artifacts"]
    assert "manifest_signature_id" not in artifact.values
    assert isinstance(again.body, ArtifactRegistered)


def test_a_deployment_applies_its_promotion_at_its_own_time(world: Any) -> None:
    event = world.verifier().verify(world.say("canary", world.deployed()))
    [promotion] = [c for c in project(3, event) if c.table == "promotions"]
    assert (promotion.mode, promotion.values["status"]) == (Mode.SET, "applied")
    assert promotion.values["applied_at"] == event.time


def test_a_revert_ends_its_promotion_and_a_late_step_does_not_revive_it(world: Any) -> None:
    verifier = world.verifier()
    reverted = world.deployed(cause=DeploymentCause.AUTO_REVERTED, reason="errors")
    [ended] = [c for c in project(3, verifier.verify(world.say("canary", reverted))) if c.table == "promotions"]
    assert ended.values["status"] == "reverted"
    late = verifier.verify(world.say("promoter", world.decided(PromotionStatus.APPROVED)))
    [status] = [c for c in project(4, late) if c.table == "promotions" and "status" in c.values]
    assert status.unless is not None
    assert "reverted" in status.unless[1]
