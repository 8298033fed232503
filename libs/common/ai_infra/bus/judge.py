"""The verdict about a record before anybody decides on it: a verified event, a refusal, or 'wait for a keyring'."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.lane import Sender
from ai_infra.bus.redrive import read_redrive
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.lanes import lane_of
from ai_infra.events.parse import read
from ai_infra.events.statement import event_hash
from ai_infra.trust.exceptions import AwaitKeyring, TrustError
from ai_infra.trust.verify import Verifier

KEYRING_WAIT_SECONDS: Final = 30.0  # a keyring that nobody has published by then is a false claim


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of: `event`; `error` (with `sender` where the signature was good); or `wait`."""

    event: Event[Any] | None = None
    redriven: bool = False
    error: AiInfraError | None = None
    sender: Sender | None = None
    wait: bool = False


class Judge:
    """Verifies records for one service. Not thread-safe."""

    def __init__(self, service: str, verifier: Verifier, broadcast: Broadcast, lanes: int) -> None:
        self._retry_topic = f"{service}.retry"
        self._service = service
        self._verifier = verifier
        self._broadcast = broadcast
        self._lanes = lanes
        self._waiting: dict[tuple[str, int, int], float] = {}

    def judge(self, record: Record) -> Verdict:
        original, redriven = record, False
        try:
            if record.topic == self._retry_topic:
                original, redriven = read_redrive(record, self._verifier), True
            event = self._verifier.verify(original)
        except AwaitKeyring as newer:
            return self._wait(record, original, newer)
        except (EventError, TrustError) as error:
            self._forget(record)
            return Verdict(error=error, sender=self._sender(original, error))
        self._forget(record)
        return Verdict(event=event, redriven=redriven)

    def _wait(self, record: Record, original: Record, newer: AwaitKeyring) -> Verdict:
        """The event names a keyring that we have not read yet: that is no failure, until nobody brings it."""
        self._broadcast.poll()
        key = (record.topic, record.partition, record.offset)
        since = self._waiting.setdefault(key, time.monotonic())
        if time.monotonic() - since < KEYRING_WAIT_SECONDS:
            return Verdict(wait=True)
        self._forget(record)
        return Verdict(error=newer, sender=self._sender(original, newer))

    def _forget(self, record: Record) -> None:
        if self._waiting:
            self._waiting.pop((record.topic, record.partition, record.offset), None)

    def _sender(self, record: Record, error: AiInfraError) -> Sender | None:
        """Who to tell. None for writers whose signature is not known to be good: they could make us say anything."""
        if not getattr(error, "signer_known", False):
            return None
        try:
            unverified = read(record, self._lanes)
        except EventError:
            return None
        model: str | None = None
        try:
            key = (record.key or b"").decode()
            if not key.startswith("_") and lane_of(key, self._lanes) == record.partition:
                model = key
        except UnicodeDecodeError:
            model = None
        attributes = unverified.attributes
        return Sender(attributes.id, event_hash(unverified.message), attributes.signer, model, attributes.traceparent)
