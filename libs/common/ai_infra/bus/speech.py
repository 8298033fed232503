"""How a service speaks: events and state records, composed and signed by the process's session key."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.state_records import sign_state_record
from ai_infra.events.compose import Frame, compose
from ai_infra.events.event import Cause
from ai_infra.trust.session import Session

HEARTBEAT_EVERY: Final = timedelta(minutes=10)


def heartbeat_due(now_ms: int, *, seq: int, beat_seq: int, beat_ms: int) -> bool:
    """Whether the last number said is to be named: at most each ten minutes, and only after something new."""
    # A clock that was put back would else keep it silent until it is there again.
    return seq > beat_seq and not 0 <= now_ms - beat_ms < HEARTBEAT_EVERY / timedelta(milliseconds=1)


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
        epoch: int | None = None,
        seq: int | None = None,
        prev: str | None = None,
        causes: tuple[Cause, ...] = (),
        traceparent: str | None = None,
    ) -> Said:
        """An event, numbered as the service's own in the lane; without a number where `epoch` and `seq` are None."""
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
            producer=f"{self._service}/{lane}" if epoch is not None else None,
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
