"""The registry's state is its log: lost, it comes back from there as it was."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st
from tests.properties import examples
from tests.unit.bus.restored import restored
from tests.unit.registry.test_registrations_replayed import Registry

from ai_infra.settings import load_settings
from ai_infra_registry.restoring import RESTORER
from ai_infra_registry.service import build
from ai_infra_registry.state import Artifact, Attestation, Versions


def happen(seed: int, steps: int) -> Registry:
    chance, registry = random.Random(seed), Registry()
    registry.produce("digits", 0, 0)
    for run in range(steps):
        model = chance.choice(("digits", "letters"))
        match chance.randrange(7):
            case 0 | 1:
                registry.produce(model, chance.randrange(3), chance.choice((run, 0)))
            case 2:
                registry.produce(model, chance.randrange(3), run, provenance="forged")
            case 3:
                registry.revoke(model, chance.randrange(3))
            case _:
                registry.finish(chance.randrange(9))
    return registry


def known(state: Any) -> dict[str, Any]:
    versions = {i: record.next for i, record in state.all(Versions) if record.next > 1}
    return {"versions": versions, "artifacts": dict(state.all(Artifact)), "attested": dict(state.all(Attestation))}


@given(st.integers(0, 10**9), st.integers(1, 25))
@how(max_examples=examples(100))
def test_what_the_registry_has_answered_is_restored_as_it_was_and_said_no_second_time(seed: int, steps: int) -> None:
    registry = happen(seed, steps)
    registry.settle()
    lane = restored(build(load_settings(environ={})), RESTORER, 3, registry.log)
    assert known(lane.state) == known(registry.state)
    assert (lane.restored.said, lane.restored.again, lane.restored.pending) == (0, (), ())


@given(st.integers(0, 10**9), st.integers(1, 25))
@how(max_examples=examples(100))
def test_what_waited_for_its_verification_or_signature_is_verified_again_and_nothing_else(
    seed: int, steps: int
) -> None:
    registry = happen(seed, steps)
    lane = restored(build(load_settings(environ={})), RESTORER, 3, registry.log)
    waiting = {work.id for work, _ in registry.pending}
    before = known(registry.state)
    attested = {e.id for e in registry.log if getattr(e.body, "manifest_sha256", None) in before["attested"]}
    again = {key.removeprefix("verify/") for key in lane.restored.pending}
    # Of two claims with one manifest the second is told so at once, where it would have been after its verification.
    assert waiting - attested <= again
    assert not again & attested
    assert known(lane.state) == before
