"""The projection: from an event at its position to the rows that it changes. Pure, and the same for live and rebuild.

What a row becomes depends on its lane's entries alone, in order. A module here must never read a clock, a database or
another lane; where an event contradicts what is there, the change's mode (first wins, only if it exists) decides, not a
query.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ai_infra.events.body import Body
from ai_infra.events.event import Event
from ai_infra_indexer.projection import artifacts, authority, deployments, jobs, promotions
from ai_infra_indexer.projection.rows import Mode, RowChange, Sequenced, Value

Rule = Callable[[Sequenced[Any]], tuple[RowChange, ...]]

RULES: Final[Mapping[type[Body], Rule]] = {
    **jobs.RULES,
    **artifacts.RULES,
    **promotions.RULES,
    **deployments.RULES,
    **authority.RULES,
}


def project(position: int, event: Event[Any]) -> tuple[RowChange, ...]:
    """The row changes that the entry at `position` brings, in order."""
    return RULES[type(event.body)](Sequenced(position, event))


__all__ = ["RULES", "Mode", "RowChange", "Sequenced", "Value", "project"]
