"""The pure parts of projecting a lane anew: what became of an entry is told from what is never pruned."""

from __future__ import annotations

from typing import Any

import pytest

from ai_infra.events.event import Event
from ai_infra.events.generated import JobStatusKind
from ai_infra_indexer.history import Known, Verdict
from ai_infra_indexer.projection.version import PROJECTION
from ai_infra_indexer.reprojection import LaneProjection, verdict_of
from ai_infra_indexer.sequence import sequence


def test_an_entrys_verdict_is_the_one_that_it_was_entered_with(world: Any) -> None:
    verifier = world.verifier()
    said = [world.say("trainer", world.status(JobStatusKind.QUEUED)), world.say("orchestrator", world.queued())]
    counters = dict(world.counters)
    said.append(world.say("trainer", world.status(JobStatusKind.RUNNING)))
    world.counters = counters
    said.append(world.say("trainer", world.status(JobStatusKind.FAILED)))  # another event under the same number
    again = dict(said[0].headers)["ce_id"].decode()
    said.append(world.say("trainer", world.status(JobStatusKind.QUEUED), event_id=again))
    events: list[Event[Any]] = [verifier.verify(record) for record in said]
    lines, _ = sequence(world.head(), events, world.chain())

    history = Known(world.lane)
    entered = [history.judge(line.event, line.position).verdict for line in lines]
    assert entered == [
        Verdict.PROJECTED,
        Verdict.PROJECTED,
        Verdict.PROJECTED,
        Verdict.EQUIVOCATION,
        Verdict.REPEATED,
    ]
    assert [verdict_of(line, history) for line in lines] == entered


@pytest.mark.parametrize(
    ("size", "projection", "current"),
    [
        (0, 0, True),
        (5, PROJECTION, True),
        (5, 0, False),
        (5, PROJECTION - 1, False),
        (5, PROJECTION + 1, False),
        (5, -PROJECTION, False),
    ],
)
def test_a_lane_is_current_where_all_its_rows_are_of_this_projection(size: int, projection: int, current: bool) -> None:
    assert LaneProjection(0, size, projection).current is current


def test_an_unfinished_or_mixed_lane_is_said_to_be_of_no_single_projection() -> None:
    for projection in (0, -PROJECTION):
        assert LaneProjection(0, 5, projection).told == "an unknown or more than one projection"
    assert LaneProjection(0, 5, 1).told == "projection 1"
