"""An operator acts: says `operator.action`, alone or together with the records that carry the act out, all or nothing.

The key is the one at hand whose role allows it; nothing is changed before its principal is known to be allowed.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self

from ai_infra.bus.batch import Outgoing
from ai_infra.bus.kafka.schema_registry import framing
from ai_infra.bus.redrive import Redrive, compose_redrive
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.client.gate import Gate
from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.events.canonical import canonical_json
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Cause, Record
from ai_infra.events.generated import OperatorAction
from ai_infra.events.lanes import lane_key, lane_of, lane_of_lane_key
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import NotAllowed
from ai_infra.trust.open import open_client_signer, open_signer_for
from ai_infra.trust.session import Session

_SESSION: Final = timedelta(hours=1)  # a command lasts seconds; the least that a delegation may last anywhere


class Operator:
    """Signs and appends operator's actions. Use in a `with`."""

    def __init__(self, settings: Settings, *, key_id: str | None = None) -> None:
        """Raises ConfigurationError where no key at hand may act, UnavailableError where Kafka isn't there."""
        self._settings = settings
        self.gate = Gate(settings)
        try:
            keyring = self.gate.keyring
            self._signer = (
                open_client_signer(settings, key_id, keyring)
                if key_id is not None
                else open_signer_for(settings, OperatorAction.TOPIC, keyring)
            )
            principal = keyring.principal_of(self._signer.key_id)
            if principal is None or OperatorAction.TOPIC not in keyring.events_of(principal.id):
                raise NotAllowed(
                    f"{self._signer.key_id} may not act as an operator; `ai-infra keys list` shows who may, "
                    "`ai-infra keys grant` changes it"
                )
            self.principal = principal
            self._session = Session(
                self._signer, principal.id, [OperatorAction.TOPIC], lambda: self.gate.keyring.version, _SESSION
            )
        except BaseException:
            self.gate.close()
            raise
        self._producer: TransactionalProducer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.close()
        if self._producer is not None:
            self._producer.close()

    def redrive(self, original: Record, service: str) -> Redrive:
        """The record as it goes to the service's retry topic; `append` sends it."""
        return compose_redrive(original, service, self._signer)

    def action(
        self,
        action: str,
        *,
        target: str,
        key: str,
        arguments: Mapping[str, Any],
        reason: str,
        causes: Sequence[Cause] = (),
    ) -> SignedRecord:
        """A signed operator.action. `key`: the model, or `_lane/<p>`, that it is about."""
        if not reason.strip():
            raise ConfigurationError("say why with --reason TEXT: it is written into the log")
        keyring = self.gate.keyring
        lane = lane_of_lane_key(key)
        wide = lane is not None
        allowed = (
            keyring.may_say_wide(self.principal, OperatorAction.TOPIC)
            if wide
            else keyring.may_say(self.principal, OperatorAction.TOPIC, model=key, environment=None)
        )
        if not allowed:
            raise NotAllowed(f"{self.principal.id} may not act as an operator on {key}")
        now = datetime.now(UTC)
        return compose(
            OperatorAction(
                action=action,
                target=target,
                arguments_json=canonical_json(dict(arguments)).decode(),
                reason=reason,
                operator=self.principal.id,
            ),
            key=key,
            lane=lane if lane is not None else lane_of(key, self._settings.log.lanes),
            id=uuid7(),
            time=now.replace(microsecond=now.microsecond // 1000 * 1000),
            source=f"/ai-infra/cli/{self.principal.id}",
            subject=target,
            signer=self._session.signer_id,
            keyring=self._session.keyring,
            delegation=self._session.delegation,
            sign=self._session.sign,
            causes=tuple(causes),
            frame=framing(self._settings),
        )

    def act_in_lanes(self, action: str, target: str, arguments: Mapping[int, Mapping[str, Any]], reason: str) -> None:
        """Says of each lane, in one transaction, what is done to `<target>/<lane>`."""
        self.append(
            *(
                self.action(action, target=f"{target}/{lane}", key=lane_key(lane), arguments=what, reason=reason)
                for lane, what in sorted(arguments.items())
            )
        )

    def append(self, *records: SignedRecord | Redrive) -> None:
        """Appends all of them in one transaction, or none."""
        if self._producer is None:
            self._producer = TransactionalProducer(self._settings, service=f"cli.{uuid.uuid4().hex[:8]}")
            self._producer.initialise()
        try:
            self._producer.transact(
                [Outgoing(r.topic, r.partition, r.key, r.value, r.headers) for r in records], [], None
            )
        except AiInfraError as error:
            raise AiInfraError(
                f"nothing is known to have been done: {error}; see `ai-infra events list --topic operator.action`, "
                "then repeat the command",
                code=error.code,
            ) from None
