"""A redrive: a dead letter given once more to the one service that refused it, with what an operator vouches for.

The record goes to `<service>.retry` as it was: same key, value and headers, in its lane's partition. There it gets a
new append time and a new topic, so two headers are added that bring back where it came from:

- `redrive`: the statement, canonical JSON (RFC 8785) of
  `{"append_time_ms", "lane", "offset", "operator", "record_sha256", "service", "topic"}`: topic, partition (= lane),
  offset and LogAppendTime that the record first had, the service it is redriven to, the operator's key id, and the
  SHA-256 of the record (`record_sha256` below);
- `redrive_signature`: Ed25519 by that key over the DSSE PAE of the statement with the payload type
  `application/vnd.ai-infra.redrive.v1+json`.

The statement vouches for place and time alone. The event inside is verified again like any other, by its first append
time: a redrive must never make acceptable what its signer couldn't say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import msgspec

from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.event import Record
from ai_infra.events.exceptions import CanonicalError
from ai_infra.events.generated import OperatorAction
from ai_infra.events.lanes import is_model
from ai_infra.events.statement import pae
from ai_infra.trust.ed25519 import verifies
from ai_infra.trust.exceptions import TrustError
from ai_infra.trust.signers import Signer

if TYPE_CHECKING:
    from ai_infra.trust.keyring import Keyring
    from ai_infra.trust.verify import Verifier

REDRIVE_PAYLOAD_TYPE: Final = "application/vnd.ai-infra.redrive.v1+json"
STATEMENT_HEADER: Final = "redrive"
SIGNATURE_HEADER: Final = "redrive_signature"
DEAD_LETTER_HEADERS: Final = (
    "dlq_topic",
    "dlq_partition",
    "dlq_offset",
    "dlq_append_time_ms",
    "dlq_error",
    "dlq_reason",
    "dlq_service",
    "dlq_time",
)
"""What the runtime puts behind a dead letter's own headers, in this order."""
_STATEMENT_LIMIT: Final = 2048  # bytes; names of topics, services and keys are short


class BadRedriveError(TrustError):
    """A record of a retry topic that no operator has vouched for, or that isn't the one that was vouched for."""

    code = "bad_redrive"


class _Statement(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    append_time_ms: int
    lane: int
    offset: int
    operator: str
    record_sha256: str
    service: str
    topic: str


@dataclass(frozen=True, slots=True)
class Redrive:
    """What to produce."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    record_sha256: str


def split_dead_letter(letter: Record) -> tuple[Record, dict[str, str]]:
    """The record as it was before it became a dead letter, and what the runtime noted about it.

    The place and time in it are what the note says: whoever acts on them compares with the topic itself. Raises
    BadRedriveError for a record that is no dead letter.
    """
    count = len(DEAD_LETTER_HEADERS)
    notes = {name: value.decode("utf-8", "replace") for name, value in letter.headers[-count:]}
    try:
        if tuple(notes) != DEAD_LETTER_HEADERS:
            raise ValueError(f"its last headers are {', '.join(notes) or 'none'}")
        original = replace(
            letter,
            topic=notes["dlq_topic"],
            partition=int(notes["dlq_partition"]),
            offset=int(notes["dlq_offset"]),
            append_time_ms=int(notes["dlq_append_time_ms"]),
            headers=letter.headers[:-count],
        )
    except ValueError as error:
        raise BadRedriveError(
            f"{letter.topic}/{letter.partition}@{letter.offset} isn't a dead letter of the runtime: {error}"
        ) from None
    return original, notes


def before_redrive(record: Record) -> Record:
    """What a record of a retry topic says that it was before; itself, where it says nothing. Verifies nothing."""
    try:
        statement, _ = _read_headers(record)
    except BadRedriveError:
        return record
    return _as_first(record, statement)


def record_sha256(record: Record) -> str:
    """SHA-256 over all that a writer chose: canonical JSON of the hashes of key, value and headers, in their order.

    `{"headers": [[name, sha256], ...], "key": sha256 or null, "value": sha256 or null}`; names in hex, since a header's
    name is any text.
    """
    return sha256_hex(
        canonical_json(
            {
                "headers": [
                    [name.encode("utf-8", "surrogatepass").hex(), sha256_hex(value)] for name, value in record.headers
                ],
                "key": None if record.key is None else sha256_hex(record.key),
                "value": None if record.value is None else sha256_hex(record.value),
            }
        )
    )


def compose_redrive(original: Record, service: str, signer: Signer) -> Redrive:
    """Signs a redrive of `original` (topic, partition, offset and append time as they first were) to `service`."""
    digest = record_sha256(original)
    statement = canonical_json(
        {
            "append_time_ms": original.append_time_ms,
            "lane": original.partition,
            "offset": original.offset,
            "operator": signer.key_id,
            "record_sha256": digest,
            "service": service,
            "topic": original.topic,
        }
    )
    signature = signer.sign(pae(REDRIVE_PAYLOAD_TYPE, statement))
    return Redrive(
        topic=f"{service}.retry",
        partition=original.partition,
        key=original.key,
        value=original.value,
        headers=[*original.headers, (STATEMENT_HEADER, statement), (SIGNATURE_HEADER, signature)],
        record_sha256=digest,
    )


def read_redrive(record: Record, verifier: Verifier) -> Record:
    """The record as it first was, once an operator is known to vouch for it. Its event is still unverified.

    Raises BadRedriveError, also for an operator whom only a newer keyring names: nobody without a key can make a
    service wait, and a redrive can be repeated.
    """
    statement, signature = _read_headers(record)
    if not record.topic == f"{statement.service}.retry" or record.partition != statement.lane:
        raise BadRedriveError(
            f"the redrive is for {statement.service}.retry/{statement.lane}, it came by {record.topic}/"
            f"{record.partition}"
        )
    _check_operator(statement, signature, record, verifier.keyrings.latest)
    original = _as_first(record, statement)
    if record_sha256(original) != statement.record_sha256:
        raise BadRedriveError("the record isn't the one that the operator has vouched for: its SHA-256 differs")
    return original


def _as_first(record: Record, statement: _Statement) -> Record:
    return replace(
        record,
        topic=statement.topic,
        partition=statement.lane,
        offset=statement.offset,
        append_time_ms=statement.append_time_ms,
        headers=record.headers[:-2],
    )


def _read_headers(record: Record) -> tuple[_Statement, bytes]:
    last = record.headers[-2:]
    if [name for name, _ in last] != [STATEMENT_HEADER, SIGNATURE_HEADER]:
        raise BadRedriveError(
            f"a record of {record.topic} must end with the headers {STATEMENT_HEADER} and {SIGNATURE_HEADER}; "
            "use `ai-infra dlq redrive`"
        )
    text, signature = last[0][1], last[1][1]
    try:
        statement = msgspec.json.decode(text[: _STATEMENT_LIMIT + 1], type=_Statement)
        if canonical_json(msgspec.to_builtins(statement)) != text:
            raise BadRedriveError("the redrive's statement isn't canonical JSON")
    except (msgspec.MsgspecError, CanonicalError, ValueError) as error:
        raise BadRedriveError(f"the redrive's statement can't be read: {error}") from None
    return statement, signature


def _check_operator(statement: _Statement, signature: bytes, record: Record, keyring: Keyring) -> None:
    key = keyring.key_of(statement.operator)
    principal = keyring.principal_of(statement.operator)
    if key is None or principal is None:
        raise BadRedriveError(f"the keyring (version {keyring.version}) has no key {statement.operator!r} of a person")
    # Judged by the append time of the redrive itself: it's a new act of the operator.
    if key.id in keyring.revocations or not key.lives_at(record.append_time_ms):
        raise BadRedriveError(f"the key {key.id} doesn't count any more")
    if not verifies(pae(REDRIVE_PAYLOAD_TYPE, record.headers[-2][1]), signature, key.public_key):
        raise BadRedriveError(f"the redrive isn't signed by {key.id}")
    model = (record.key or b"").decode("utf-8", "replace")
    event = OperatorAction.TOPIC
    may = (
        keyring.may_say(principal, event, model=model, environment=None)
        if is_model(model)
        else keyring.may_say_wide(principal, event)
    )
    if not may:
        raise BadRedriveError(f"{principal.id} may not act as an operator on {model[:128]!r}")
