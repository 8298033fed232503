"""What the indexer refuses of known signers, until it has told them: an outbox beside the lane.

A refusal is written in the transaction that moves the lane over the refused record, and is said in a Kafka transaction
which also commits the group's place behind that record. So whether it was said is read from that place alone: after a
crash between the two transactions, and after a restored backup that brings the row back, it is said exactly once.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.bus.judge import sender_of
from ai_infra.bus.refusing import REASON_BYTES, Sender, refusal, refusal_id
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra.events.generated import EventRefused, Reason
from ai_infra.events.text import sayable
from ai_infra_indexer import SERVICE
from ai_infra_indexer.order import Source

RULES: Final = "indexer/v1"
MAX_SAID: Final = 1_000  # in one transaction: each is signed, and it must end well within its time-out

# Nobody waits for an answer to an answer, and two sides that refuse each other's refusals would never end. What has no
# model (a heartbeat, a finding) gets none anyway: its sender is a service, and it asks for nothing.
_UNANSWERED: Final = frozenset({EventRefused.TOPIC})
# Its id belongs to another event, which was accepted: whoever waits would take the refusal for that one's.
_SILENT: Final = frozenset({"reused_id"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that was refused, at its place in the lane, and who is to be told."""

    topic: str
    offset: int
    event_id: str
    event_type: str
    event_hash: str
    signer: str
    model: str
    code: str
    detail: str
    traceparent: str | None

    @property
    def id(self) -> str:
        return refusal_id(self.event_id, SERVICE)

    def body(self) -> EventRefused:
        sender = Sender(self.event_id, self.event_hash, self.signer, self.model, self.traceparent)
        reasons = (Reason(code=self.code, detail=self.detail),)
        return refusal(sender, self.event_type, reasons, service=SERVICE, rules=RULES)


def refusal_of(record: Record, original: Record, error: AiInfraError, lanes: int) -> Refusal | None:
    """Who is to be told of the refusal of `record`, which brought `original`; None where nobody is."""
    sender = sender_of(original, error, lanes)
    if sender is None or not sender.model or original.topic in _UNANSWERED or error.code in _SILENT:
        return None
    return Refusal(
        topic=record.topic,
        offset=record.offset,
        event_id=sender.event_id,
        event_type=original.topic,
        event_hash=sender.event_hash,
        signer=sender.signer,
        model=sender.model,
        code=error.code,
        detail=sayable(str(error), REASON_BYTES),  # what an error quotes may be what Postgres can't hold
        traceparent=sender.traceparent,
    )


def note_refusals(connection: Any, lane: int, refusals: Iterable[Refusal]) -> None:
    """Into the outbox, in the transaction that is open."""
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO unsaid_refusals (lane, topic, kafka_offset, event_id, event_type, event_hash, signer, model, "
            "code, detail, traceparent) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                (
                    lane,
                    r.topic,
                    r.offset,
                    uuid.UUID(r.event_id),
                    r.event_type,
                    r.event_hash,
                    r.signer,
                    r.model,
                    r.code,
                    r.detail,
                    r.traceparent,
                )
                for r in refusals
            ],
        )


def any_unsaid(connection: Any, lane: int) -> bool:
    """Whether the outbox holds anything of this lane."""
    [found] = connection.execute("SELECT EXISTS (SELECT FROM unsaid_refusals WHERE lane = %s)", (lane,)).fetchone()
    return bool(found)


def read_unsaid(
    connection: Any, lane: int, *, said: Mapping[Source, int], reached: Mapping[Source, int]
) -> tuple[list[Refusal], dict[Source, int]]:
    """The refusals at places from `said` on and before `reached`, and where everything before was told with them: up to
    `reached`, but for what is too much for once. Neither is ever behind `said`."""
    places = {source: max(at, said.get(source, 0)) for source, at in reached.items()}
    topics = [topic for topic, _ in places]
    rows = connection.execute(
        "SELECT u.topic, kafka_offset, event_id::text, event_type, event_hash, signer, model, code, detail, "
        "traceparent FROM unsaid_refusals u JOIN unnest(%s::text[], %s::int8[], %s::int8[]) AS w(topic, low, high) "
        "ON u.topic = w.topic AND kafka_offset >= low AND kafka_offset < high WHERE lane = %s "
        'ORDER BY u.topic COLLATE "C", kafka_offset LIMIT %s',
        (topics, [said.get(source, 0) for source in places], list(places.values()), lane, MAX_SAID + 1),
    ).fetchall()
    found = [Refusal(*row) for row in rows]
    if len(found) > MAX_SAID:
        next_one = found.pop()
        places[(next_one.topic, lane)] = next_one.offset
        later = {source for source in places if source[0] > next_one.topic}  # of those none is said yet
        places = {s: said[s] if s in later else at for s, at in places.items() if s not in later or s in said}
    return found, places


def forget_said(connection: Any, lane: int, said: Mapping[Source, int]) -> None:
    """Out of the outbox with what was said: all before these places."""
    connection.execute(
        "DELETE FROM unsaid_refusals u USING unnest(%s::text[], %s::int8[]) AS w(topic, high) "
        "WHERE u.lane = %s AND u.topic = w.topic AND u.kafka_offset < w.high",
        ([topic for topic, _ in said], list(said.values()), lane),
    )
