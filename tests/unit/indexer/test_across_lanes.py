"""What everybody must know is in every lane, and the same in all."""

from __future__ import annotations

from ai_infra_indexer.audit.across import WITHHELD_MS, across_lanes
from ai_infra_indexer.audit.report import Broadcasted, LaneReport

RING, POLICY = ("signer.changed", 2), ("policy.changed", 1)


def lane(number: int, newest_ms: int = 1_000, **broadcasts: str) -> LaneReport:
    """`ring` and `policy`: their SHA-256, at position 7."""
    report = LaneReport(number, "archive", newest_ms=newest_ms)
    for name, key in (("ring", RING), ("policy", POLICY)):
        if name in broadcasts:
            report.broadcasts[key] = Broadcasted(broadcasts[name], 1_000, 7)
    return report


def named(*reports: LaneReport) -> list[tuple[int | None, int | None, str]]:
    return [(problem.lane, problem.position, problem.code) for problem in across_lanes(reports)]


def test_lanes_that_have_the_same_agree() -> None:
    assert named(*(lane(n, 10**9, ring="a", policy="p") for n in range(4))) == []


def test_another_keyring_or_policy_of_one_version_is_a_conflict() -> None:
    reports = (lane(0, ring="a", policy="p"), lane(1, ring="b", policy="p"), lane(2, ring="a", policy="q"))
    assert named(*reports) == [(2, 7, "policy_conflict"), (1, 7, "keyring_conflict")]


def test_a_lane_that_goes_on_without_a_keyring_that_others_have_had_it_withheld() -> None:
    has, went_on = lane(0, ring="a"), lane(3, 1_000 + WITHHELD_MS + 1)
    assert named(has, went_on) == [(3, None, "withheld_keyring")]
    assert named(has, lane(3, 1_000 + WITHHELD_MS)) == []


def test_a_lane_that_has_a_newer_keyring_lacks_none() -> None:
    newer = lane(1, 10**9)
    newer.broadcasts["signer.changed", 3] = Broadcasted("c", 10**9, 9)
    assert named(newer, lane(0, 10**6, ring="a")) == []
