"""State records on the wire: signed by the session key of the service that wrote them, verified when they are restored.

The signature covers topic, key, lane, the value's SHA-256 (null for a deletion) and a counter that only grows in a
lane, so that nobody without a key can plant a record, move one, or bring an old one back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.event import Record
from ai_infra.events.statement import pae
from ai_infra.trust.exceptions import BadState
from ai_infra.trust.verify import Verifier

STATE_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.state.v1+json"


def state_message(
    *, topic: str, key: str, lane: int, value: bytes | None, counter: int, signer: str, keyring: int, delegation: bytes
) -> bytes:
    """The bytes that are signed for a state record (DSSE PAE over canonical JSON)."""
    statement = {
        "counter": counter,
        "delegation_sha256": sha256_hex(delegation),
        "key": key,
        "keyring": keyring,
        "lane": lane,
        "signer": signer,
        "topic": topic,
        "value_sha256": None if value is None else sha256_hex(value),
    }
    return pae(STATE_PAYLOAD_TYPE, canonical_json(statement))


def sign_state_record(
    *,
    topic: str,
    key: str,
    lane: int,
    value: bytes | None,
    counter: int,
    signer: str,
    keyring: int,
    delegation: bytes,
    sign: Callable[[bytes], bytes],
) -> list[tuple[str, bytes]]:
    """The headers of a signed state record."""
    message = state_message(
        topic=topic,
        key=key,
        lane=lane,
        value=value,
        counter=counter,
        signer=signer,
        keyring=keyring,
        delegation=delegation,
    )
    return [
        ("signer", signer.encode()),
        ("keyring", str(keyring).encode()),
        ("counter", str(counter).encode()),
        ("delegation", delegation),
        ("signature", sign(message)),
    ]


def read_state_record(record: Record, verifier: Verifier, *, service: str) -> tuple[str, bytes | None, int]:
    """(key, value, counter) of a verified state record of `service`. Raises `BadState` or another TrustError."""
    headers = dict(record.headers)
    if len(headers) != len(record.headers):
        raise BadState(f"state record at {record.topic}[{record.partition}]@{record.offset} repeats a header")
    try:
        signer = headers["signer"].decode()
        keyring, counter = int(headers["keyring"]), int(headers["counter"])
        delegation, signature = headers["delegation"], headers["signature"]
        key = (record.key or b"").decode()
    except (KeyError, ValueError) as error:
        raise BadState(
            f"state record at {record.topic}[{record.partition}]@{record.offset} lacks signed headers: {error!r}"
        ) from error
    message = state_message(
        topic=record.topic,
        key=key,
        lane=record.partition,
        value=record.value,
        counter=counter,
        signer=signer,
        keyring=keyring,
        delegation=delegation,
    )
    verifier.verify_state(
        message=message,
        signature=signature,
        delegation=delegation,
        signer=signer,
        keyring=keyring,
        service=service,
        append_time_ms=record.append_time_ms,
    )
    return key, record.value, counter
