"""`event.refused`, composed: who is told that an event was refused, and how much of why. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.bus.fitting import cut_reasons
from ai_infra.events.compose import consequence_id
from ai_infra.events.event import Event
from ai_infra.events.generated import EventRefused, Reason

REASON_BYTES: Final = 1_000  # of the detail of a reason: as many as there may be are far below a body's limit


@dataclass(frozen=True, slots=True)
class Sender:
    """Who is told of a refusal: the event that was refused and its signer. `model` is empty where the key names none:
    then there is no key to answer under."""

    event_id: str
    event_hash: str
    signer: str
    model: str
    traceparent: str | None

    @classmethod
    def of(cls, event: Event[Any]) -> Sender:
        return cls(event.id, event.hash, event.signer, event.model, event.attributes.traceparent)


def refusal(sender: Sender, event_type: str, reasons: Sequence[Reason], *, service: str, rules: str) -> EventRefused:
    """What `service` says of an event that it refuses; reasons that are too many or too long are cut."""
    return EventRefused(
        model=sender.model,
        event_id=sender.event_id,
        event_type=event_type,
        event_hash=sender.event_hash,
        service=service,
        signer=sender.signer,
        reasons=cut_reasons(reasons, REASON_BYTES),
        rules=rules,
    )


def refusal_id(event_id: str, service: str) -> str:
    """Id of the event that says so: the same however often the event is refused."""
    return consequence_id(event_id, f"{EventRefused.TOPIC}/{service}")
