"""A lane's events for the replay of decisions: verified entry by entry, from Postgres or from the archive.

Of the archive only what a checkpoint covers is believed; of Postgres, what the chain of hashes and every event's own
signature hold together, which is enough to say what was decided, and no proof that nothing is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Final

from ai_infra.bus.decision import NO_POLICY, PolicyView
from ai_infra.bus.policy import BadPolicy, successor
from ai_infra.bus.replay import Known, Placed, Replayer
from ai_infra.events.generated import PolicyChanged
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.replay import BadEntry, Replay
from ai_infra_indexer.sequence import Head
from ai_infra_indexer.store import Connection

SERVICES: Final = "ai_infra.services"
_SELECT: Final = "SELECT entry FROM entries WHERE lane = %s AND position >= %s ORDER BY position"


class NotReplayable(IndexerError):
    """The log itself does not verify, so nothing can be said about what was decided in it."""

    code = "not_replayable"


@dataclass(slots=True)
class LaneEvents:
    """What of a lane the replay needs."""

    lane: int
    size: int = 0
    placed: list[Placed] = field(default_factory=list)
    policies: dict[int, PolicyView] = field(default_factory=lambda: {0: NO_POLICY})
    keyrings: Keyrings | None = None

    @property
    def known(self) -> Known:
        """What the lane's log says to everybody. Raises NotReplayable for a lane without a keyring."""
        if self.keyrings is None:
            raise NotReplayable(f"lane {self.lane} has no keyring, so nobody's signature can be judged")
        return Known(self.keyrings, self.policies)


def replayers() -> dict[str, Replayer]:
    """Those of the installed services that have one: `REPLAYER` in the module `replaying` beside their `service`."""
    found: dict[str, Replayer] = {}
    for entry in sorted(entry_points(group=SERVICES), key=lambda e: e.name):
        name = f"{entry.module.rpartition('.')[0]}.replaying"
        if find_spec(name) is not None:
            found[entry.name] = import_module(name).REPLAYER
    return found


def read_archived(
    archived: ArchivedLane,
    roots: Roots,
    lanes: int,
    wanted: frozenset[type],
    progress: Callable[[int], None],
    *,
    standing: bool = False,
) -> LaneEvents:
    """A lane of an archive, up to its checkpoint; `standing`: of a log key that is not revoked. Raises NotReplayable,
    TlogError."""
    events = LaneEvents(archived.lane)
    note = archived.note()
    if note is None:
        raise NotReplayable(f"{archived.uri} has no checkpoint; is this the archive?")
    size, edge = archived.claimed_size(note), RightEdge()
    if not size:
        raise NotReplayable(
            f"{archived.uri} has a checkpoint of no entries, which no indexer writes: nothing can be verified by it. "
            "Read another copy of the archive"
        )
    replay = Replay(Head(archived.lane, archived.origin), Keyrings(roots), lanes, chain_signatures=False)
    for _, raws in archived.bundles(0, size):
        edge = grow(edge, raws).edge
        _take(events, replay, raws, wanted)
        progress(len(raws))
    if edge.root() != archived.checkpoint(note, replay.keyrings.latest, standing=standing).checkpoint.root:
        raise NotReplayable(f"lane {archived.lane}: the entries do not lead to the checkpoint's root {_LOOK}")
    return events


def read_postgres(
    connection: Connection,
    archived: ArchivedLane,
    roots: Roots,
    lanes: int,
    wanted: frozenset[type],
    progress: Callable[[int], None],
) -> LaneEvents:
    """A lane of the live database; entries that were pruned there come from the archive. Raises NotReplayable."""
    events = LaneEvents(archived.lane)
    replay = Replay(Head(archived.lane, archived.origin), Keyrings(roots), lanes, chain_signatures=False)
    with connection.transaction():
        # One snapshot: what is pruned meanwhile would be in neither part.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        first = connection.execute("SELECT min(position) FROM entries WHERE lane = %s", (archived.lane,)).fetchone()
        pruned = 0 if first is None or first[0] is None else first[0]
        for _, raws in archived.bundles(0, pruned):
            _take(events, replay, raws, wanted)
            progress(len(raws))
        with connection.cursor(name="ai_infra_replay") as cursor:
            cursor.itersize = 1_000
            cursor.execute(_SELECT, (archived.lane, pruned))
            for raws in _chunks(bytes(raw) for (raw,) in cursor):
                _take(events, replay, raws, wanted)
                progress(len(raws))
    return events


def read_on(
    events: LaneEvents,
    connection: Connection,
    archived: ArchivedLane,
    roots: Roots,
    lanes: int,
    wanted: frozenset[type],
) -> int:
    """Go on behind what the archive covers with what Postgres has; how many entries that were. Raises NotReplayable."""
    head = Head(archived.lane, archived.origin)
    for _, raws in archived.bundles(events.size - 1, events.size) if events.size else ():
        link = decode(raws[-1]).link
        head = Head(archived.lane, archived.origin, events.size, link.hash, link.ts_us)
    keyrings = events.keyrings if events.keyrings is not None else Keyrings(roots)
    replay, before = Replay(head, keyrings, lanes, chain_signatures=True), events.size
    with connection.transaction(), connection.cursor(name="ai_infra_read_on") as cursor:
        cursor.execute(_SELECT, (archived.lane, before))
        for raws in _chunks(bytes(raw) for (raw,) in cursor):
            _take(events, replay, raws, wanted)
    return events.size - before


_LOOK: Final = "(`ai-infra audit verify` says where it was changed)"


def _take(events: LaneEvents, replay: Replay, raws: Iterable[bytes], wanted: frozenset[type]) -> None:
    for raw in raws:
        try:
            line = replay.take(raw)
        except BadEntry as error:
            raise NotReplayable(
                f"lane {events.lane}, position {replay.head.size}: {error.message} {_LOOK}", code=error.code
            ) from error
        body = line.event.body
        if isinstance(body, PolicyChanged):
            _policy(events, body)
        if type(body) in wanted:
            events.placed.append(Placed(line.position, line.event))
    events.size = replay.head.size
    events.keyrings = replay.keyrings


def _policy(events: LaneEvents, body: PolicyChanged) -> None:
    with suppress(BadPolicy):  # no service has taken it in
        events.policies[body.version] = successor(events.policies[max(events.policies)], body)


def _chunks(raws: Iterator[bytes]) -> Iterator[list[bytes]]:
    chunk: list[bytes] = []
    for raw in raws:
        chunk.append(raw)
        if len(chunk) == 1_000:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
