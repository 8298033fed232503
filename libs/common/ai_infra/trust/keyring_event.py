"""A keyring that arrives as an event: `signer.changed` is judged by the roots first, and its messenger after that.

The messenger is judged by the keyring before, where there is one: a keyring may revoke the very key that brings it. A
first keyring names its own messenger, and so may one that brings a new operator. Live readers and whoever replays a
lane use this one function, so they come to the same verdict.
"""

from __future__ import annotations

from typing import Any

from ai_infra.events.event import Event, Record
from ai_infra.events.generated import SignerChanged
from ai_infra.events.parse import read
from ai_infra.trust.exceptions import AwaitKeyring, KeyringError, TrustError
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.verify import Verifier


def take_keyring_event(record: Record, keyrings: Keyrings, verifier: Verifier, lanes: int) -> Event[Any]:
    """The verified event, its keyring taken in. Raises EventError, TrustError, KeyringError; then nothing was, except
    where the roots have signed a keyring whose messenger may not bring it."""
    body = read(record, lanes).decode()
    if not isinstance(body, SignerChanged):
        raise KeyringError(f"expected {SignerChanged.TOPIC}; {record.topic} carries {type(body).__name__}")
    keyrings.verified(body.keyring)
    event: Event[Any] | None = None
    if 0 < keyrings.latest_version < body.version:
        try:
            event = verifier.verify(record)
        except (TrustError, AwaitKeyring):
            event = None
    keyrings.accept(body.keyring)
    return event if event is not None else verifier.verify(record, caught_up=True)
