"""Step 5: what is final is said on `audit-events`, exactly once; and with it what the indexer says as a service.

The messages and the position that they reach are one Kafka transaction: the position is the committed offset of the
indexer's group on the lane's partition of `audit-events` itself, and its metadata holds the count of what the indexer
says as a service (findings, refusals, heartbeats). So after any crash the next publisher reads one position, which has
moved with the messages or not at all; the copy in Postgres (`lane_progress.published_size`) is for people, and for a
Kafka that has lost its offsets. The group's places on the lane's inputs move in the same transaction: up to them
refusals have been told. The group's metadata, taken while the lane was held, fences a publisher that has lost the lane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import orjson
from confluent_kafka import OFFSET_INVALID, Consumer, TopicPartition

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.topics import BROADCAST_TOPICS, PLAIN, input_partitions
from ai_infra.bus.speech import Speech, heartbeat_due
from ai_infra.events.body import Body
from ai_infra.events.compose import Frame, consequence_id, uuid7
from ai_infra.events.event import Cause
from ai_infra.events.generated import AuditCheckpoint, AuditFinding, FindingKind, ProducerHeartbeat
from ai_infra.events.lanes import lane_key
from ai_infra.tlog.checkpoint import OpenedCheckpoint
from ai_infra.trust.session import Session
from ai_infra_indexer import SERVICE, kernel
from ai_infra_indexer.completeness.watch import Withheld
from ai_infra_indexer.entry import Link
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.handover import Handed
from ai_infra_indexer.order import Source
from ai_infra_indexer.refusals import MAX_SAID, Refusal, any_unsaid, read_unsaid
from ai_infra_indexer.store import Connection, read_offsets, read_positions

MAX_MESSAGES: Final = 5_000  # in one transaction: it must end well within its time-out
_JSON: Final = (("content-type", b"application/json"),)


@dataclass(frozen=True, slots=True)
class Position:
    """How far a lane is published, and how far the indexer's own numbering in it has come."""

    size: int
    epoch: int = 1
    seq: int = 0
    prev: str | None = None
    beat_seq: int = 0
    """Number of the last heartbeat."""
    beat_ms: int = 0
    """When that was."""
    inputs: Mapping[Source, int] = field(default_factory=dict)
    """Places of the group on the lane's inputs: what was refused before them has been told."""

    def metadata(self) -> str:
        kept = ("epoch", "prev", "seq", "beat_seq", "beat_ms")
        return orjson.dumps({name: getattr(self, name) for name in kept}).decode()


@dataclass(frozen=True, slots=True)
class Publication:
    """The messages that take a lane from one position to the next."""

    lane: int
    after: Position
    messages: tuple[Outgoing, ...]

    def offsets(self) -> list[TopicPartition]:
        """What commits the new position with the messages."""
        inputs = [TopicPartition(topic, partition, at) for (topic, partition), at in self.after.inputs.items()]
        return [TopicPartition(PLAIN, self.lane, self.after.size, self.after.metadata()), *inputs]


def read_position(consumer: Consumer, connection: Connection, lane: int, lanes: int, *, timeout: float) -> Position:
    """Where publishing goes on. Waits for a transaction of a predecessor that is still pending."""
    places = [(PLAIN, lane), *input_partitions(SERVICE, lanes, lane)]
    found, *others = consumer.committed([TopicPartition(*place) for place in places], timeout=timeout)
    if found.offset != OFFSET_INVALID and found.metadata:
        inputs = {(place.topic, place.partition): place.offset for place in others if place.offset != OFFSET_INVALID}
        return Position(size=found.offset, inputs=inputs, **orjson.loads(found.metadata))
    row = connection.execute("SELECT published_size FROM lane_progress WHERE lane = %s", (lane,)).fetchone()
    size = max(row[0] if row else 0, found.offset if found.offset != OFFSET_INVALID else 0)
    # Kafka has lost the group's offsets, or never had them: the numbering begins a new epoch rather than doubling an
    # old number. The present is beyond an epoch too of which nothing reached the log before Kafka was lost.
    row = connection.execute(
        "SELECT max(epoch) FROM producer_events WHERE lane = %s AND producer = %s", (lane, f"{SERVICE}/{lane}")
    ).fetchone()
    return Position(size, max((row[0] if row and row[0] else 0) + 1, _ms(datetime.now(UTC))))


class Found(Protocol):
    """Findings that follow from no entry alone: somebody watches for them beside the lanes."""

    def unsaid(self, lane: int) -> bool:
        """Whether there is one to say."""
        ...

    def take(self, lane: int) -> Sequence[Withheld]:
        """Those to say now. What does not get into the log is offered again."""
        ...


class Publisher:
    """Composes publications. Pure but for the rows that it reads and the session key that it signs with."""

    def __init__(
        self,
        session: Session,
        frame: Frame | None = None,
        *,
        found: Found | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._speech = Speech(SERVICE, session, frame)
        self._found = found
        self._clock = clock

    def has_more(self, connection: Connection, position: Position, lane: int) -> bool:
        """Whether there may be something to say although nothing has become final since."""
        found = self._found is not None and self._found.unsaid(lane)
        return found or self._beat_due(position) or any_unsaid(connection, lane)

    def publication(
        self,
        connection: Connection,
        position: Position,
        checkpoint: OpenedCheckpoint,
        lane: int,
        *,
        handed: Sequence[Handed] = (),
        announce: bool,
    ) -> Publication:
        """The next messages of a lane, none beyond its checkpoint. `handed`: entries from `position` on, where they are
        at hand; else they are read. `announce`: the checkpoint itself too."""
        messages = [self._outgoing(lane, entry.event_id, entry.message) for entry in handed] or self._read(
            connection, position, checkpoint, lane
        )
        findings = self._findings(connection, lane, position.size, position.size + len(messages))
        if len(findings) > MAX_SAID and (end := findings[MAX_SAID][0]) > position.size:
            findings = [finding for finding in findings if finding[0] < end]
            del messages[end - position.size :]
        after = replace(position, size=position.size + len(messages))
        for finding in findings:
            after, said = self._say_finding(lane, after, finding)
            messages.append(said)
        for withheld in self._found.take(lane) if self._found is not None else ():
            causes = (Cause(withheld.event_id, lane),)
            after, said = self._say(lane, after, withheld.body(), withheld.id, causes=causes)
            messages.append(said)
        # Broadcast topics are entered into every lane; no lane may speak for the group's position there.
        reached = {s: at for s, at in read_offsets(connection, lane).items() if s[0] not in BROADCAST_TOPICS}
        refusals, inputs = read_unsaid(connection, lane, said=position.inputs, reached=reached)
        after = replace(after, inputs={**position.inputs, **inputs})
        # A place that was moved back by an operator brings refusals back that the log has.
        known = read_positions(connection, lane, [refusal.id for refusal in refusals])
        for refusal in refusals:
            if refusal.id not in known:
                after, said = self._say_refusal(lane, after, refusal)
                messages.append(said)
        if self._beat_due(after):
            after, said = self._say_heartbeat(lane, after)
            messages.append(said)
        if announce and after.size == checkpoint.checkpoint.size:
            messages.append(self._checkpoint(lane, checkpoint))
        return Publication(lane, after, tuple(messages))

    def _read(
        self, connection: Connection, position: Position, checkpoint: OpenedCheckpoint, lane: int
    ) -> list[Outgoing]:
        rows = connection.execute(
            "SELECT position, event_type, id, payload::text, prev_hash, hash, signature, signer_id, "
            "(extract(epoch FROM ts) * 1000000)::int8, metadata::text FROM audit_events "
            "WHERE lane = %s AND position >= %s AND position < %s ORDER BY position LIMIT %s",
            (lane, position.size, checkpoint.checkpoint.size, MAX_MESSAGES),
        ).fetchall()
        if rows and rows[0][0] != position.size:
            raise IndexerError(
                f"lane {lane}: Kafka says that audit-events has {position.size} entries of it, but Postgres begins at "
                f"{rows[0][0]}; older rows were pruned after they had been said. Was the group's offset moved back?"
            )
        return [self._audit_event(lane, row) for row in rows]

    @classmethod
    def _audit_event(cls, lane: int, row: Sequence[Any]) -> Outgoing:
        _, event_type, event_id, payload, prev_hash, hash_, signature, signer_id, ts_us, metadata = row
        link = Link(event_id, ts_us, prev_hash, hash_, signature, signer_id)
        value = kernel.audit_event(payload.encode(), link, event_type=event_type, metadata=metadata.encode())
        return cls._outgoing(lane, event_id, value)

    @staticmethod
    def _outgoing(lane: int, event_id: str, value: bytes) -> Outgoing:
        return Outgoing(PLAIN, lane, event_id.encode(), value, _JSON)

    @staticmethod
    def _findings(connection: Connection, lane: int, low: int, high: int) -> list[tuple[Any, ...]]:
        return connection.execute(
            "SELECT position, kind, about, event_id::text, producer, epoch, seq, detail FROM findings "
            "WHERE lane = %s AND position >= %s AND position < %s ORDER BY position, kind, about",
            (lane, low, high),
        ).fetchall()

    def _say_finding(self, lane: int, position: Position, row: tuple[Any, ...]) -> tuple[Position, Outgoing]:
        """A finding as an event of its own, which will be entered into the log in its turn."""
        at, kind, about, event_id, producer, epoch, seq, detail = row
        body = AuditFinding(
            kind=FindingKind(kind),
            lane_of=lane,
            producer=producer,
            epoch=epoch,
            first_seq=seq,
            last_seq=seq,
            position=at,
            event_id=event_id,
            detail=detail,
        )
        event_of = consequence_id(event_id, f"finding/{lane}/{at}/{kind}/{about}")
        return self._say(lane, position, body, event_of, causes=(Cause(event_id, lane),))

    def _say_refusal(self, lane: int, position: Position, refusal: Refusal) -> tuple[Position, Outgoing]:
        """What the sender of a refused event waits for."""
        return self._say(
            lane,
            position,
            refusal.body(),
            refusal.id,
            key=refusal.model,
            subject=refusal.event_id,
            causes=(Cause(refusal.event_id, lane),),
            traceparent=refusal.traceparent,
        )

    def _say_heartbeat(self, lane: int, position: Position) -> tuple[Position, Outgoing]:
        """The last number said, so that it shows where the last event is withheld."""
        body = ProducerHeartbeat(
            producer=f"{SERVICE}/{lane}", epoch=position.epoch, seq=position.seq, event_hash=position.prev or ""
        )
        after, said = self._say(lane, position, body, uuid7())
        return replace(after, beat_seq=after.seq, beat_ms=_ms(self._clock())), said

    def _beat_due(self, position: Position) -> bool:
        now_ms = _ms(self._clock())
        return heartbeat_due(now_ms, seq=position.seq, beat_seq=position.beat_seq, beat_ms=position.beat_ms)

    def _say(
        self,
        lane: int,
        position: Position,
        body: Body,
        event_id: str,
        *,
        key: str | None = None,
        subject: str | None = None,
        causes: tuple[Cause, ...] = (),
        traceparent: str | None = None,
    ) -> tuple[Position, Outgoing]:
        """An event under the next number, and the position after it."""
        said = self._speech.event(
            body,
            key=key if key is not None else lane_key(lane),
            lane=lane,
            event_id=event_id,
            time=self._now(),
            subject=subject,
            epoch=position.epoch,
            seq=position.seq + 1,
            prev=position.prev,
            causes=causes,
            traceparent=traceparent,
        )
        return replace(position, seq=position.seq + 1, prev=said.hash), said.outgoing

    def _checkpoint(self, lane: int, checkpoint: OpenedCheckpoint) -> Outgoing:
        head = checkpoint.checkpoint
        root = checkpoint.checkpoint.text.decode().splitlines()[2]
        note = checkpoint.note.decode()
        body = AuditCheckpoint(log_lane=lane, origin=head.origin, size=head.size, root=root, note=note)
        said = self._speech.event(
            body, key=lane_key(lane), lane=lane, event_id=uuid7(), time=self._now(), subject=head.origin
        )
        return said.outgoing

    def _now(self) -> datetime:
        now = self._clock()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
