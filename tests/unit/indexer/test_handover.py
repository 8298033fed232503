"""What was sequenced is handed on from memory, without a gap, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from ai_infra_indexer import kernel
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.sequence import Line, sequence

ORIGIN = "example.org/log/lanes/0"


@pytest.fixture
def lines(world: Any) -> list[Line]:
    verifier = world.verifier()
    return sequence(world.head(), [verifier.verify(record) for record in world.story()], world.chain())[0]


def positions(handover: Handover, position: int, limit: int = 100) -> list[int]:
    return [entry.position for entry in handover.take(position, limit)]


def test_what_was_offered_is_taken_in_order_until_it_is_forgotten(lines: list[Line]) -> None:
    handover = Handover(0, ORIGIN, 1 << 20)
    handover.offer(lines[:3])
    handover.offer(lines[3:])
    assert positions(handover, 0, 2) == [0, 1]
    assert positions(handover, 2) == list(range(2, len(lines)))
    assert positions(handover, len(lines)) == []
    handover.forget(4)
    assert positions(handover, 3) == []  # that one has to be read now
    assert positions(handover, 4) == list(range(4, len(lines)))


def test_an_entry_says_the_same_as_its_rows(lines: list[Line]) -> None:
    handover = Handover(0, ORIGIN, 1 << 20)
    handover.offer(lines)
    for line, handed in zip(lines, handover.take(0, 100), strict=True):
        metadata = kernel.metadata(0, line.position, ORIGIN, line.event.type)
        assert handed.message == kernel.audit_event(
            line.payload, line.link, event_type=line.event.type, metadata=metadata
        )
        assert (handed.raw, handed.hash, handed.prev_hash) == (line.raw, line.link.hash, line.link.prev_hash or "")


def test_what_does_not_fit_leaves_a_gap_that_nothing_jumps_over(lines: list[Line]) -> None:
    handover = Handover(0, ORIGIN, len(lines[0].raw))
    handover.offer(lines[:4])
    assert positions(handover, 0) == [0]
    handover.forget(1)
    handover.offer(lines[4:6])
    assert positions(handover, 1) == []  # 1 to 3 have to be read
    assert positions(handover, 4) == [4]
    handover.offer(lines[6:])
    assert positions(handover, 4) == [4]
