"""A delegation: a long-lived key's word that a session key may speak for it, for some event types, for a while.

It travels in the header of every event, so that an event verifies by itself: `signature (64 bytes) || canonical JSON`.
At most 400 bytes. Parsing checks form only; whether the key may delegate is the verifier's question.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from ai_infra.events.canonical import canonical_json
from ai_infra.events.exceptions import CanonicalError
from ai_infra.events.statement import pae
from ai_infra.trust.dsse import SignsMessages
from ai_infra.trust.ed25519 import KEY_BYTES, SIGNATURE_BYTES, verifies
from ai_infra.trust.exceptions import BadDelegation, KeyFormatError

DELEGATION_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.delegation.v1+json"
MAX_DELEGATION_BYTES: Final = 400
# A session key lives in a process's memory: longer than this, a stolen one would be worth keeping.
MAX_LIFETIME: Final = timedelta(days=7)

_FIELDS: Final = {"events", "key", "keyring", "naf", "nbf", "service", "signer"}


@dataclass(frozen=True, slots=True)
class Delegation:
    """What was delegated. `raw` is what travels; times are whole seconds since the epoch, both ends included."""

    events: frozenset[str]
    key: bytes
    keyring: int
    not_before: int
    not_after: int
    service: str
    signer: str
    raw: bytes

    def signed_by(self, public_key: bytes) -> bool:
        """Whether its signature is this key's."""
        message = pae(DELEGATION_PAYLOAD_TYPE, self.raw[SIGNATURE_BYTES:])
        return verifies(message, self.raw[:SIGNATURE_BYTES], public_key)


def delegate(
    signer: SignsMessages,
    *,
    service: str,
    events: Sequence[str],
    keyring: int,
    key: bytes,
    not_before: datetime,
    lifetime: timedelta,
) -> Delegation:
    """Have `signer` delegate to the session key `key` (raw public key). Raises what the signer raises."""
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise KeyFormatError(f"A delegation lives at most {MAX_LIFETIME.days} days; asked for {lifetime}.")
    start = int(not_before.timestamp())
    body = canonical_json(
        {
            "events": sorted(set(events)),
            "key": base64.urlsafe_b64encode(key).decode().rstrip("="),
            "keyring": keyring,
            "naf": start + int(lifetime.total_seconds()),
            "nbf": start,
            "service": service,
            "signer": signer.key_id,
        }
    )
    size = SIGNATURE_BYTES + len(body)
    if size > MAX_DELEGATION_BYTES:
        raise KeyFormatError(
            f"The delegation of {signer.key_id} would have {size} bytes, {MAX_DELEGATION_BYTES} at most: "
            "shorten the key's id or delegate fewer event types."
        )
    return parse_delegation(signer.sign(pae(DELEGATION_PAYLOAD_TYPE, body)) + body)


def parse_delegation(raw: bytes) -> Delegation:
    """Reads a delegation's bytes; the signature is not checked. Raises BadDelegation.

    Only the canonical form is read, so that one delegation has one form, and one hash.
    """
    if not SIGNATURE_BYTES < len(raw) <= MAX_DELEGATION_BYTES:
        raise BadDelegation(f"The delegation has {len(raw)} bytes; 65 to {MAX_DELEGATION_BYTES} were expected.")
    body = raw[SIGNATURE_BYTES:]
    try:
        fields: Any = orjson.loads(body)
        if not isinstance(fields, dict) or set(fields) != _FIELDS or canonical_json(fields) != body:
            raise BadDelegation("The delegation is not the canonical JSON of exactly its seven fields.")
        key = base64.urlsafe_b64decode(fields["key"] + "=")
        if len(key) != KEY_BYTES or base64.urlsafe_b64encode(key).decode().rstrip("=") != fields["key"]:
            raise BadDelegation("The delegation's key is not a public key.")
    except (orjson.JSONDecodeError, CanonicalError, binascii.Error, TypeError, ValueError):
        raise BadDelegation("The delegation cannot be read.") from None
    events = fields["events"]
    numbers = (fields["keyring"], fields["nbf"], fields["naf"])
    if (
        not isinstance(events, list)
        or not all(isinstance(event, str) for event in events)
        or not all(isinstance(number, int) for number in numbers)
        or not isinstance(fields["service"], str)
        or not isinstance(fields["signer"], str)
    ):
        raise BadDelegation("The delegation has a field of the wrong kind.")
    keyring, not_before, not_after = numbers
    if not_after < not_before or not_after - not_before > MAX_LIFETIME.total_seconds():
        raise BadDelegation(f"The delegation's life is not between 0 and {MAX_LIFETIME.days} days.")
    return Delegation(
        events=frozenset(events),
        key=key,
        keyring=keyring,
        not_before=not_before,
        not_after=not_after,
        service=fields["service"],
        signer=fields["signer"],
        raw=raw,
    )
