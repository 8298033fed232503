"""Everybody takes in the same policies: the very next version, unchanged, and readable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ai_infra.bus.decision import NO_POLICY
from ai_infra.bus.policy import BadPolicy, successor
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import PolicyChanged


def policy(version: int, text: str) -> PolicyChanged:
    return PolicyChanged(version=version, policy_json=text, policy_sha256=sha256_hex(text.encode()), reason="r")


def test_the_next_version_follows() -> None:
    first = successor(NO_POLICY, policy(1, '{"a": 1}'))
    assert (first.version, first.document) == (1, {"a": 1})
    assert successor(first, policy(2, "{}")).version == 2


@pytest.mark.parametrize(
    "bad",
    [
        policy(2, "{}"),
        policy(0, "{}"),
        policy(1, "no JSON"),
        policy(1, "[]"),
        policy(1, '{"a": NaN}'),
        replace(policy(1, "{}"), policy_json='{"a": 2}'),
    ],
)
def test_what_does_not_follow_leaves_the_one_before_in_force(bad: PolicyChanged) -> None:
    with pytest.raises(BadPolicy):
        successor(NO_POLICY, bad)
