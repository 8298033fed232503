"""How a service speaks: events and state records, composed and signed by the process's session key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.state_records import sign_state_record
from ai_infra.events.compose import Frame, compose
from ai_infra.events.event import Cause
from ai_infra.trust.session import Session


@dataclass(frozen=True, slots=True)
class Said:
    outgoing: Outgoing
    hash: str


class Speech:
    """Composes what one service says. Raises the events room's errors where a body may not be sent."""

    def __init__(self, service: str, session: Session, frame: Frame | None = None) -> None:
        """`frame`: the framing of bodies; Avro's single-object encoding where not given."""
        self._service = service
        self._session = session
        self._frame = frame

    def event(
        self,
        body: Any,
        *,
        key: str,
        lane: int,
        event_id: str,
        time: datetime,
        subject: str | None,
        epoch: int,
        seq: int,
        prev: str | None,
        causes: tuple[Cause, ...],
        traceparent: str | None,
    ) -> Said:
        session = self._session
        signed = compose(
            body,
            key=key,
            lane=lane,
            id=event_id,
            time=time,
            source=f"/ai-infra/{self._service}",
            subject=subject,
            signer=session.signer_id,
            keyring=session.keyring,
            delegation=session.delegation,
            sign=session.sign,
            producer=f"{self._service}/{lane}",
            epoch=epoch,
            seq=seq,
            prev=prev,
            causes=causes,
            traceparent=traceparent,
            frame=self._frame,
        )
        return Said(Outgoing(signed.topic, signed.partition, signed.key, signed.value, signed.headers), signed.hash)

    def state_record(self, lane: int, key: str, value: bytes | None, counter: int) -> Outgoing:
        """A record of `<service>.state`, signed with the session key; `counter` numbers the lane's state records."""
        topic = f"{self._service}.state"
        headers = sign_state_record(self._session, topic=topic, key=key, lane=lane, value=value, counter=counter)
        return Outgoing(topic, lane, key.encode(), value, headers)
