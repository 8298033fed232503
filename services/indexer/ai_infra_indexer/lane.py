"""One lane at work: from raw records to the transaction in Postgres.

A lane is disposable: whatever goes wrong with it (Postgres away, head lost), it is dropped and taken anew from what is
durable. It reads no clock and talks to nobody but Postgres and those it was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.telemetry import metrics
from ai_infra.trust.exceptions import AwaitKeyring, KeyringError, TrustError
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer import SERVICE
from ai_infra_indexer.exceptions import EntryTooLarge
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.history import Finding, Heard
from ai_infra_indexer.kernel import ChainSigner
from ai_infra_indexer.order import Arrival, CauseOrder, Placed, Source
from ai_infra_indexer.refusals import Refusal, refusal_of
from ai_infra_indexer.replay import LaneVerifier
from ai_infra_indexer.sequence import Head, sequence
from ai_infra_indexer.store import Connection, append, read_known

log = structlog.get_logger(__name__)

BROADCAST: Final = ("signer.changed", "policy.changed")
MAX_BATCH: Final = 2_000  # entries in one transaction: some megabytes, some hundred milliseconds

_Item = tuple[Event[Any], int]  # an event and the keyring version that it was verified by
_Arrival = Arrival[_Item]


class Surroundings(Protocol):
    """What a lane needs from the process around it."""

    def broadcasts(self, after: Mapping[str, int]) -> list[Record]:
        """Accepted broadcast records from these offsets on, by topic, in the order of their append."""
        ...

    def catch_up(self) -> None:
        """Read the broadcast topics to their ends as of now, or as of any moment after the newest record was read."""
        ...

    def ends(self, lane: int) -> Mapping[Source, int]:
        """Where the lane's inputs end now, for readers of committed records."""
        ...

    def dead_letter(self, record: Record, error: AiInfraError) -> None:
        """Put a record aside. Durable before `flush_dead_letters` returns."""
        ...

    def flush_dead_letters(self) -> None:
        """Wait until all dead letters are written; raises where they can't be."""
        ...


class Lane:
    """Sequences one lane. `offer` takes what was read; `turn` sequences what can be."""

    def __init__(
        self,
        connection: Connection,
        head: Head,
        offsets: Mapping[Source, int],
        verifier: LaneVerifier,
        chain: Callable[[Keyring], ChainSigner],
        around: Surroundings,
        handover: Handover,
    ) -> None:
        """`chain`: the key that signs rows where this keyring is in force."""
        self.number = head.lane
        self.head = head
        self.read_to = dict(offsets)
        self._connection = connection
        self._verifier = verifier
        self._chain = chain
        self._around = around
        self._handover = handover
        self._order: CauseOrder[_Item] = CauseOrder()
        self._backlog: list[tuple[Source, int, Record]] = []
        self._written = dict(offsets)
        self._touched: set[Source] = set()
        self._held_back: set[Source] = set()  # sources of which something that was read was waiting at the last write
        self._gate: tuple[Record, Mapping[Source, int]] | None = None
        self._refusals: list[Refusal] = []

    @property
    def waiting(self) -> int:
        """Records that are read and not sequenced: held for a cause, or for a keyring that is being entered."""
        return len(self._backlog) + len(self._order)

    @property
    def severed(self) -> bool:
        """Whether its connection to Postgres, which lanes share, has turned out to be gone."""
        return self._connection.closed

    @property
    def full(self) -> frozenset[Source]:
        """Sources of which no more should be read for now: much of them is held for causes."""
        return self._order.full

    def offer(self, record: Record) -> None:
        """A record from one of the lane's inputs, in the order of its partition."""
        source = (record.topic, record.partition)
        if record.offset < self.read_to.get(source, 0):
            return
        self.read_to[source] = record.offset + 1
        self._touched.add(source)
        self._backlog.append((source, record.offset, record))

    def reached(self, source: Source, offset: int) -> None:
        """A source was read to its end, which is at this offset (behind the last marker)."""
        self.read_to[source] = max(offset, self.read_to.get(source, 0))

    def turn(self) -> int:
        """Sequence what can be; returns the number of entries. Raises LaneLost, or what Postgres raises."""
        entered = 0
        while True:
            gate = self._next_broadcast()
            if gate is None:
                ready, self._backlog = self._backlog, []
                return entered + self._sequence(ready)
            # What was appended before a keyring or policy is judged by the one before: it is read to the end first.
            record, barrier = gate
            ready = [item for item in self._backlog if item[2].append_time_ms <= record.append_time_ms]
            self._backlog = [item for item in self._backlog if item[2].append_time_ms > record.append_time_ms]
            entered += self._sequence(ready)
            if any(self.read_to.get(source, 0) < end for source, end in barrier.items()):
                return entered
            self._gate = None
            entered += self._enter(record)

    # --- broadcasts -----------------------------------------------------------------------------------------------

    def _next_broadcast(self) -> tuple[Record, Mapping[Source, int]] | None:
        if self._gate is None:
            found = self._around.broadcasts({topic: self.read_to.get((topic, 0), 0) for topic in BROADCAST})
            if found:
                first = self._verifier.keyrings.latest_version == 0
                self._gate = (found[0], {} if first else dict(self._around.ends(self.number)))
        return self._gate

    def _enter(self, record: Record) -> int:
        source = (record.topic, record.partition)
        self.read_to[source] = record.offset + 1
        self._touched.add(source)
        return self._sequence([(source, record.offset, record)])

    # --- from records to entries ----------------------------------------------------------------------------------

    def _sequence(self, records: Iterable[tuple[Source, int, Record]]) -> int:
        entered = 0
        items = list(records)
        for at in range(0, max(1, len(items)), MAX_BATCH):
            entered += self._batch(items[at : at + MAX_BATCH], last=at + MAX_BATCH >= len(items))
        return entered

    def _batch(self, items: list[tuple[Source, int, Record]], *, last: bool) -> int:
        with metrics.INDEXER_STAGE.labels("verify").time():
            arrivals = [found for item in items if (found := self._arrival(*item)) is not None]
        if not arrivals and not self._order.waits and not self._touched:
            return 0
        known = read_known(self._connection, self.number, [a.item[0] for a in arrivals])
        fresh = self._fresh(arrivals, known.heard, {event.hash for event, _ in self._order.items()})
        placed = self._order.place(
            fresh,
            known=known.ids.keys(),
            read_to=self.read_to if last else {},  # what the next part brings is read and not looked at yet
            ends=lambda: self._around.ends(self.number),
        )
        arrived = {arrival.item[0].hash for arrival in fresh}
        if late := [item.item[0] for item in placed if item.item[0].hash not in arrived]:
            # Asked for now and not while they were held, again with each batch: whoever may say one event can have
            # thousands held, with 32 causes each.
            known.learn(read_known(self._connection, self.number, late))
        events = [event for item in placed if (event := self._still_valid(item)) is not None]
        lines, after = self._lines(events)
        offsets = self._offsets() if last else {}
        if not lines and not offsets:
            return 0
        self._around.flush_dead_letters()
        with metrics.INDEXER_STAGE.labels("project").time():
            done = append(
                self._connection, self.head, lines, after, known=known, offsets=offsets, refusals=self._refusals
            )
        self.head = done.head
        self._refusals.clear()
        self._handover.offer(lines)
        self._written.update(offsets)
        if last:
            self._held_back = self._holding()
            self._touched.clear()
        metrics.INDEXER_ENTRIES.labels(str(self.number)).inc(len(lines))
        metrics.INDEXER_POSITION.labels(str(self.number), "projected").set(after.size)
        self._tell(done.findings)
        return len(lines)

    def _tell(self, findings: Sequence[Finding]) -> None:
        """A line for each kind: each finding is in the log, and a batch can have thousands."""
        first: dict[str, Finding] = {}
        counts = Counter(finding.kind for finding in findings)
        for finding in findings:
            first.setdefault(finding.kind, finding)
        for kind, f in first.items():
            metrics.INDEXER_FINDINGS.labels(kind).inc(counts[kind])
            log.warning("finding", lane=self.number, kind=kind, count=counts[kind], position=f.position, what=f.detail)

    def _arrival(self, source: Source, offset: int, record: Record) -> _Arrival | None:
        original = record
        try:
            original = self._verifier.original(record)
            event = self._verify(original)
        except AwaitKeyring:
            # The keyring that it names is about to be entered.
            self._backlog.append((source, offset, record))
            return None
        except (EventError, TrustError, KeyringError) as error:
            self._refuse(record, error, original)
            return None
        lane = self.number
        causes = () if record.topic in BROADCAST else tuple([c.id for c in event.causes if c.lane == lane])
        version = self._verifier.keyrings.latest_version
        return Arrival(event.id, causes, source, offset, (event, version))

    def _verify(self, record: Record) -> Event[Any]:
        try:
            return self._verifier.verify(record, caught_up=False)
        except AwaitKeyring:
            # Whoever signed with a keyring had read it: it is on the broadcast topic by now, or nowhere.
            self._around.catch_up()
            if self._next_broadcast() is not None:
                raise
            return self._verifier.verify(record)

    def _fresh(self, arrivals: list[_Arrival], heard: Callable[[Event[Any]], Heard], held: set[str]) -> list[_Arrival]:
        """What the lane has not heard yet, nor twice in this batch. `held`: hashes of events that wait."""
        fresh: list[_Arrival] = []
        uncounted = {event.id: event.hash for event, _ in self._order.items() if event.producer is None}
        for arrival in arrivals:
            event = arrival.item[0]
            found = heard(event)
            if event.producer is None and uncounted.setdefault(event.id, event.hash) != event.hash:
                found = Heard.REUSED_ID
            if found is Heard.REUSED_ID:
                why = f"the id {event.id} is taken by an event with another content"
                error = TrustError(why, code="reused_id", signer_known=True)
                self._refuse(event.record, error)
            elif found is Heard.NEW and event.hash not in held:
                held.add(event.hash)
                fresh.append(arrival)
        return fresh

    def _still_valid(self, placed: Placed[_Item]) -> Event[Any] | None:
        """An event that waited is judged by the keyring at the position where it is entered, as every replay will."""
        event, version = placed.item
        if version == self._verifier.keyrings.latest_version:
            return event
        try:
            return self._verifier.verify(event.record)
        except (EventError, TrustError) as error:
            self._refuse(event.record, error)
            return None

    def _lines(self, events: list[Event[Any]]) -> tuple[list[Any], Head]:
        if not events:
            return [], self.head
        chain = self._chain(self._verifier.keyrings.latest)
        try:
            return sequence(self.head, events, chain)
        except EntryTooLarge:
            small = []
            for event in events:
                try:
                    sequence(self.head, [event], chain)
                except EntryTooLarge as error:
                    self._refuse(event.record, error)
                else:
                    small.append(event)
            return sequence(self.head, small, chain)

    def _refuse(self, record: Record, error: AiInfraError, original: Record | None = None) -> None:
        metrics.TRUST_VERIFY_FAILURES.labels(SERVICE, error.code).inc()
        self._around.dead_letter(record, error)
        refusal = refusal_of(record, original or record, error, self._verifier.lanes)
        if refusal is not None:
            self._refusals.append(refusal)

    def _holding(self) -> set[Source]:
        """Sources of which something that was read waits: for a keyring that is being entered, or for a cause."""
        return {source for source, _, _ in self._backlog} | self._order.sources()

    def _offsets(self) -> dict[Source, int]:
        """Where reading must go on after a restart, where that has changed."""
        offsets: dict[Source, int] = {}
        for source in self._touched | self._held_back | self._holding():
            held = [offset for s, offset, _ in self._backlog if s == source]
            lowest = self._order.lowest_held(source)
            if lowest is not None:
                held.append(lowest)
            offset = min(held, default=self.read_to[source])
            if offset > self._written.get(source, -1):
                offsets[source] = offset
        return offsets
