"""One lane at work: from raw records to what is to be appended to its log.

A lane is disposable: whatever goes wrong with it (Postgres away, head lost), it is dropped and taken anew from what is
durable. It reads no clock and talks to nobody but those it was given; what it needs of Postgres it asks for, step by
step, so that lanes of one process are answered together (`together.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar, cast

import structlog

from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.telemetry import metrics
from ai_infra.trust.exceptions import AwaitKeyring, KeyringError, TrustError
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer import SERVICE
from ai_infra_indexer.appending import Appended, Batch
from ai_infra_indexer.exceptions import EntryTooLarge
from ai_infra_indexer.handover import Handover
from ai_infra_indexer.history import Finding, Heard, Known
from ai_infra_indexer.kernel import ChainSigner
from ai_infra_indexer.order import Arrival, CauseOrder, Placed, Source
from ai_infra_indexer.refusals import Refusal, refusal_of
from ai_infra_indexer.replay import RETRY, LaneVerifier
from ai_infra_indexer.sequence import Head, sequence

log = structlog.get_logger(__name__)

BROADCAST: Final = ("signer.changed", "policy.changed")
MAX_BATCH: Final = 2_000  # entries in one transaction: some megabytes, some hundred milliseconds

_ALONE: Final = frozenset({*BROADCAST, RETRY})  # topics whose records are verified one by one

_Item = tuple[Event[Any], int]  # an event and the keyring version that it was verified by
_Arrival = Arrival[_Item]
_Read = tuple[Source, int, Record]
A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Recall:
    """Asks what the lane's history says about these events and their causes (`Known`)."""

    lane: int
    events: Sequence[Event[Any]]


Steps = Generator[Recall | Batch, Known | Appended, A]
"""What a lane asks for, one after the other, and comes to. A Recall is answered by what is Known, a Batch by what was
Appended, once that is committed."""


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

    def flush_dead_letters(self, lane: int) -> None:
        """Wait until all dead letters of this lane are written; raises where one of them can't be."""
        ...


class Lane:
    """Sequences one lane. `offer` takes what was read; `turn` sequences what can be."""

    def __init__(
        self,
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
        self._verifier = verifier
        self._chain = chain
        self._around = around
        self._handover = handover
        self._order: CauseOrder[_Item] = CauseOrder()
        self._backlog: list[_Read] = []
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

    def turn(self) -> Steps[int]:
        """Sequence what can be; comes to the number of entries."""
        entered = 0
        while True:
            gate = self._next_broadcast()
            if gate is None:
                ready, self._backlog = self._backlog, []
                return entered + (yield from self._sequence(ready))
            # What was appended before a keyring or policy is judged by the one before: it is read to the end first.
            record, barrier = gate
            ready = [item for item in self._backlog if item[2].append_time_ms <= record.append_time_ms]
            self._backlog = [item for item in self._backlog if item[2].append_time_ms > record.append_time_ms]
            entered += yield from self._sequence(ready)
            if any(self.read_to.get(source, 0) < end for source, end in barrier.items()):
                return entered
            self._gate = None
            entered += yield from self._enter(record)

    # --- broadcasts -----------------------------------------------------------------------------------------------

    def _next_broadcast(self) -> tuple[Record, Mapping[Source, int]] | None:
        if self._gate is None:
            found = self._around.broadcasts({topic: self.read_to.get((topic, 0), 0) for topic in BROADCAST})
            if found:
                first = self._verifier.keyrings.latest_version == 0
                self._gate = (found[0], {} if first else dict(self._around.ends(self.number)))
        return self._gate

    def _enter(self, record: Record) -> Steps[int]:
        source = (record.topic, record.partition)
        self.read_to[source] = record.offset + 1
        self._touched.add(source)
        return (yield from self._sequence([(source, record.offset, record)]))

    # --- from records to entries ----------------------------------------------------------------------------------

    def _sequence(self, records: Iterable[_Read]) -> Steps[int]:
        entered = 0
        items = list(records)
        for at in range(0, max(1, len(items)), MAX_BATCH):
            entered += yield from self._batch(items[at : at + MAX_BATCH], last=at + MAX_BATCH >= len(items))
        return entered

    def _batch(self, items: list[_Read], *, last: bool) -> Steps[int]:
        with metrics.INDEXER_STAGE.labels("verify").time():
            arrivals = self._arrivals(items)
        if not arrivals and not self._order.waits and not self._touched:
            return 0
        known = yield from self._recall([a.item[0] for a in arrivals])
        fresh = self._fresh(arrivals, known.heard, {event.hash for event, _ in self._order.items()})
        placed = self._order.place(
            fresh,
            known=known.ids.keys(),
            read_to=self._looked_at() if last else {},  # what the next part brings is read and not looked at yet
            ends=lambda: self._around.ends(self.number),
        )
        arrived = {arrival.item[0].hash for arrival in fresh}
        if late := [item.item[0] for item in placed if item.item[0].hash not in arrived]:
            # Asked for now and not while they were held, again with each batch: whoever may say one event can have
            # thousands held, with 32 causes each.
            known.learn((yield from self._recall(late)))
        events = [event for item in placed if (event := self._still_valid(item)) is not None]
        lines, after = self._lines(events)
        offsets = self._offsets() if last else {}
        if not lines and not offsets:
            return 0
        self._around.flush_dead_letters(self.number)
        done = cast("Appended", (yield Batch(self.head, lines, after, known, offsets, tuple(self._refusals))))
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

    def _recall(self, events: Sequence[Event[Any]]) -> Steps[Known]:
        return cast("Known", (yield Recall(self.number, events)))

    def _tell(self, findings: Sequence[Finding]) -> None:
        """A line for each kind: each finding is in the log, and a batch can have thousands."""
        first: dict[str, Finding] = {}
        counts = Counter(finding.kind for finding in findings)
        for finding in findings:
            first.setdefault(finding.kind, finding)
        for kind, f in first.items():
            metrics.INDEXER_FINDINGS.labels(kind).inc(counts[kind])
            log.warning("finding", lane=self.number, kind=kind, count=counts[kind], position=f.position, what=f.detail)

    def _arrivals(self, items: list[_Read]) -> list[_Arrival]:
        """What of these is accepted. The rest is refused, or waits for a keyring."""
        together = [record for _, _, record in items if record.topic not in _ALONE]
        outcomes = iter(self._verifier.verify_each(together, caught_up=False))
        arrivals: list[_Arrival] = []
        for source, offset, record in items:
            outcome = next(outcomes) if record.topic not in _ALONE else None
            if outcome is None or isinstance(outcome, AwaitKeyring):
                outcome = self._verify(source, offset, record)
            elif isinstance(outcome, TrustError):
                self._refuse(record, outcome)
                outcome = None
            if outcome is not None:
                arrivals.append(self._arrival(source, offset, outcome, record.topic))
        return arrivals

    def _arrival(self, source: Source, offset: int, event: Event[Any], topic: str) -> _Arrival:
        lane = self.number
        causes = () if topic in BROADCAST else tuple([c.id for c in event.causes if c.lane == lane])
        return Arrival(event.id, causes, source, offset, (event, self._verifier.keyrings.latest_version))

    def _verify(self, source: Source, offset: int, record: Record) -> Event[Any] | None:
        """The event in a record that may be redriven, bring a keyring, or name one that is newer; None where it does
        not verify, or the keyring that it names is about to be entered."""
        original = record
        try:
            original = self._verifier.original(record)
            if original is not record and original.topic in BROADCAST:
                # It would be in force for what stands before it in the batch too, as no replay has it.
                why = f"a {original.topic} is not redriven: publish it anew, and every lane enters it at its place"
                raise TrustError(why, code="broadcast_redriven", signer_known=True)
            return self._caught_up(original)
        except AwaitKeyring:
            self._backlog.append((source, offset, record))
        except (EventError, TrustError, KeyringError) as error:
            self._refuse(record, error, original)
        return None

    def _caught_up(self, record: Record) -> Event[Any]:
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

    def _looked_at(self) -> Mapping[Source, int]:
        """Up to where each source was read, but for what waits for a keyring: that may be the cause of what came."""
        places = dict(self.read_to)
        for source, offset, _ in self._backlog:
            places[source] = min(places[source], offset)
        return places

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
