"""The verdict about a record before anybody decides on it: a verified event or a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import structlog

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.redrive import read_redrive
from ai_infra.bus.refusing import Sender
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.parse import read
from ai_infra.trust.exceptions import AwaitKeyring, TrustError, Unverifiable
from ai_infra.trust.verify import Verifier

log = structlog.get_logger(__name__)

CATCH_UP_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Either `event`, or `error` with `sender` where the signature was good."""

    event: Event[Any] | None = None
    redriven: bool = False
    error: AiInfraError | None = None
    sender: Sender | None = None


class Judge:
    """Verifies records for one service. Not thread-safe."""

    def __init__(self, service: str, verifier: Verifier, broadcast: Broadcast, lanes: int) -> None:
        self._retry_topic = f"{service}.retry"
        self._service = service
        self._verifier = verifier
        self._broadcast = broadcast
        self._lanes = lanes
        self._caught_up = False

    def taken(self) -> None:
        """To be called when a batch was taken: its records may name a newer keyring than the last look has shown."""
        self._caught_up = False

    def judge(self, record: Record) -> Verdict:
        original, redriven = record, record.topic == self._retry_topic
        try:
            if redriven:
                original = read_redrive(record, self._verifier)
            try:
                event = self._verifier.verify(original)
            except AwaitKeyring:
                # Whoever signed with a keyring had read it: it is on the broadcast topic by now, or nowhere. One look
                # for a whole batch, so that junk that names none that exists cannot slow a lane down.
                if not self._caught_up:
                    self._broadcast.catch_up(CATCH_UP_SECONDS)
                    self._caught_up = True
                event = self._verifier.verify(original, caught_up=True)
        except (EventError, TrustError) as error:
            return Verdict(error=error, sender=sender_of(original, error, self._lanes))
        except AiInfraError:
            raise  # not the record's: the broker or the schema registry is away
        except Exception as error:
            # A fault of ours, yet it must be this record's end and not the lane's: anybody could send it again.
            log.exception("a record cannot be judged", topic=record.topic, offset=record.offset)
            return Verdict(error=Unverifiable(f"it cannot be judged: {type(error).__name__}", code="unreadable"))
        return Verdict(event=event, redriven=redriven)


def sender_of(record: Record, error: AiInfraError, lanes: int) -> Sender | None:
    """Who to tell that a record was refused for this error. None for writers whose signature is not known to be good:
    they could make us say anything."""
    if not getattr(error, "signer_known", False):
        return None
    try:
        unverified = read(record, lanes, any_schema=True)
    except EventError:
        return None
    attributes = unverified.attributes
    return Sender(attributes.id, unverified.hash, attributes.signer, unverified.model, attributes.traceparent)
