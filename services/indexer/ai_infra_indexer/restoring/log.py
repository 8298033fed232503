"""The log as it goes on after Kafka was lost: read whole, Postgres filled up, and the indexer's places set anew.

Places in the topics of a cluster that is gone mean nothing in another one. Events that are sent again are recognised
by number or id, so the indexer begins at the start of every lane topic; broadcasts that a lane has are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ai_infra.readmodel.connection import connect
from ai_infra.settings import Settings
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.decisions import LaneEvents, read_archived, read_on
from ai_infra_indexer.order import Source
from ai_infra_indexer.store import Connection, ensure_lane, read_head
from ai_infra_indexer.taking import adopt, read_keyrings, restore, same_history


@dataclass(slots=True)
class LaneLog:
    """A lane's log as restoring finds it."""

    lane: int
    archived: int
    """Entries under the archive's checkpoint."""
    size: int
    """With those that Postgres has beyond it."""
    filled_up: int = 0
    """Entries that Postgres lacked."""
    refusals_lost: int = 0
    """Refusals that the indexer had not yet said: their senders wait in vain."""
    events: LaneEvents = field(repr=False, default_factory=lambda: LaneEvents(-1))


def read_lane(
    settings: Settings,
    archived: ArchivedLane,
    roots: Roots,
    wanted: frozenset[type],
    progress: Callable[[int], None],
    *,
    fill_up: bool,
) -> LaneLog:
    """A lane's log, verified: what the archive's checkpoint covers, then what Postgres has beyond it. With `fill_up`
    Postgres has all of it afterwards; for when no indexer works. Raises NotReplayable, Forked."""
    lane, lanes = archived.lane, settings.log.lanes
    events = LaneEvents(lane)
    if archived.note() is not None:
        events = read_archived(archived, roots, lanes, wanted, progress)
    found = LaneLog(lane, archived=events.size, size=events.size, events=events)
    if not settings.database.configured:
        return found
    with connect(settings.database.url, application="ai-infra restore-bus", autocommit=True) as connection:
        if fill_up:
            ensure_lane(connection, lane, archived.origin)
            before = read_head(connection, lane).size
            keyrings = read_keyrings(connection, lane, roots)
            restore(connection, archived, events.size, keyrings, lanes)
            same_history(connection, archived, lane, events.size)
            adopt(connection, archived, keyrings, lanes)
            found.filled_up = read_head(connection, lane).size - before
        read_on(events, connection, archived, roots, lanes, wanted)
    found.size = events.size
    return found


def place(connection: Connection, found: LaneLog, broadcasts: Mapping[Source, int]) -> None:
    """Have the indexer begin at the start of the lane's topics, and at these places of the broadcast topics."""
    lane = found.lane
    with connection.transaction():
        connection.execute("DELETE FROM lane_offsets WHERE lane = %s", (lane,))
        for (topic, partition), offset in broadcasts.items():
            connection.execute(
                "INSERT INTO lane_offsets (lane, topic, partition, next_offset) VALUES (%s, %s, %s, %s)",
                (lane, topic, partition, offset),
            )
        # They stand at places of the old cluster: at the same places of the new one are other records.
        found.refusals_lost = connection.execute("DELETE FROM unsaid_refusals WHERE lane = %s", (lane,)).rowcount
