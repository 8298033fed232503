"""State records on the wire: signed by the session key of the service that wrote them, verified when they are restored.

Headers carry signer, delegation, keyring, counter and signature. What is signed covers topic, key, lane, the value's
SHA-256 (null for a deletion) and the counter, which only grows in a lane: nobody without a key can plant a record, move
one, or bring an old one back. What a signature can't show is a record that was withheld: that is what the log is for.
"""

from __future__ import annotations

from typing import Final

from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.event import Record
from ai_infra.events.statement import pae
from ai_infra.trust.exceptions import BadState
from ai_infra.trust.session import Session
from ai_infra.trust.verify import Verifier

STATE_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.state.v1+json"


def state_message(
    *,
    topic: str,
    key: str,
    lane: int,
    value: bytes | None,
    counter: int,
    signer: str,
    keyring: int,
    delegation: bytes,
) -> bytes:
    """The bytes that are signed for a state record: DSSE PAE over canonical JSON."""
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
    session: Session, *, topic: str, key: str, lane: int, value: bytes | None, counter: int
) -> list[tuple[str, bytes]]:
    """Headers for a state record that is about to be written. `counter` numbers the records of the lane, from 1."""
    delegation, keyring = session.delegation, session.keyring
    message = state_message(
        topic=topic,
        key=key,
        lane=lane,
        value=value,
        counter=counter,
        signer=session.signer_id,
        keyring=keyring,
        delegation=delegation,
    )
    return [
        ("signer", session.signer_id.encode()),
        ("delegation", delegation),
        ("keyring", str(keyring).encode()),
        ("counter", str(counter).encode()),
        ("signature", session.sign(message)),
    ]


def read_state_record(record: Record, verifier: Verifier, *, service: str) -> tuple[str, int]:
    """(key, counter) of a state record that `service` wrote with a key that counted at its append time.

    A key that was revoked since keeps what it wrote before. Raises a TrustError; AwaitKeyring for a newer keyring.
    """
    where = f"{record.topic}[{record.partition}]@{record.offset}"
    headers = dict(record.headers)
    if len(headers) != len(record.headers):
        raise BadState(f"state record {where} repeats a header")
    try:
        signer, version = headers["signer"].decode(), int(headers["keyring"])
        counter, delegation, signature = int(headers["counter"]), headers["delegation"], headers["signature"]
        key = (record.key or b"").decode()
    except (KeyError, ValueError) as error:
        raise BadState(f"state record {where} lacks signed headers: {error!r}") from error
    message = state_message(
        topic=record.topic,
        key=key,
        lane=record.partition,
        value=record.value,
        counter=counter,
        signer=signer,
        keyring=version,
        delegation=delegation,
    )
    verifier.verify_state(
        message=message,
        signature=signature,
        delegation=delegation,
        signer=signer,
        keyring=version,
        service=service,
        append_time_ms=record.append_time_ms,
    )
    return key, counter
