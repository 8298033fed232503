"""Telling everybody: a new keyring on `signer.changed`, a new policy on `policy.changed`.

What is published here changes what every process believes, so it is read first what is there already: publishing the
same again does nothing, and a version that does not follow is refused. Returns only after the broker has acknowledged.
"""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime
from typing import Final

import orjson
from confluent_kafka import KafkaError, Message, Producer

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.kafka.config import opened, producer_config, unavailable
from ai_infra.bus.kafka.schema_registry import framing, verifier_for
from ai_infra.errors import ConfigurationError, UnavailableError
from ai_infra.events.body import Body
from ai_infra.events.canonical import canonical_json_numbers, sha256_hex
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Record
from ai_infra.events.generated import PolicyChanged, SignerChanged
from ai_infra.events.lanes import BROADCAST_KEY
from ai_infra.events.parse import read
from ai_infra.settings import Settings
from ai_infra.trust.keyring_files import keyring_texts
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.open import open_signer_for
from ai_infra.trust.session import Session

TIMEOUT_S: Final = 30.0
_SOURCE: Final = "ai-infra/cli"


def publish_keyring(settings: Settings, keyring_text: str | None = None, reason: str = "keyring published") -> int:
    """Publish a signed keyring; returns its version. One that is published already is not published again.

    Without `keyring_text`: every version in the keys directory that is not published yet, in order. Signed with a key
    at hand whose role allows `signer.changed`. Raises KeyringError where it does not follow what is published,
    ConfigurationError where no key may say it, UnavailableError where the broker does not answer.
    """
    texts = [keyring_text] if keyring_text is not None else _texts_in_directory(settings)
    keyrings, announced = published_keyrings(settings)
    for text in texts:
        keyring = keyrings.accept(text)
        if keyring.version not in announced:
            body = SignerChanged(
                version=keyring.version, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason=reason
            )
            announce(settings, body, keyrings)
    return keyrings.latest_version


def publish_policy(settings: Settings, policy_json: str, reason: str) -> int:
    """Publish a policy document; returns its version. The newest policy is not published again.

    Raises ConfigurationError for what is not JSON, and as `publish_keyring` does.
    """
    try:
        document = orjson.loads(policy_json)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"The policy is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigurationError("The policy must be a JSON object.")
    text = canonical_json_numbers(document)
    with closing(Broadcast(settings, service="announce")) as broadcast:
        broadcast.catch_up(TIMEOUT_S)
        known = broadcast.policy
    if sha256_hex(text) == known.sha256 and known.version:
        return known.version
    version = known.version + 1
    body = PolicyChanged(version=version, policy_json=text.decode(), policy_sha256=sha256_hex(text), reason=reason)
    announce(settings, body, broadcast.keyrings)
    return version


def published_keyrings(settings: Settings) -> tuple[Keyrings, set[int]]:
    """The keyrings that are published, verified from the pinned roots on, and the versions that were announced by
    somebody who may: only those are entered into the lanes of the log."""
    with closing(Broadcast(settings, service="announce")) as broadcast:
        broadcast.catch_up(TIMEOUT_S, keyring=False)
        bodies = [read(record, 1).decode() for record in broadcast.records_of(SignerChanged.TOPIC)]
    return broadcast.keyrings, {body.version for body in bodies if isinstance(body, SignerChanged)}


def _texts_in_directory(settings: Settings) -> list[str]:
    directory = settings.keys.dir
    texts = list(keyring_texts(directory).values()) if directory is not None else []
    if not texts:
        raise ConfigurationError(
            "There is no keyring to publish. Make one with `ai-infra keys init` and set AI_INFRA_KEYS_DIR."
        )
    return texts


def announce(settings: Settings, body: Body, keyrings: Keyrings) -> None:
    """Say a keyring or a policy with a key at hand that may; it is checked first that readers will believe it."""
    keyring = keyrings.latest
    signer = open_signer_for(settings, body.TOPIC, keyring)
    principal = keyring.principal_of(signer.key_id)
    session = Session(signer, principal.id if principal else signer.key_id, [body.TOPIC], lambda: keyring.version)
    signed = compose(
        body,
        key=BROADCAST_KEY,
        lane=0,
        id=uuid7(),
        time=datetime.now(UTC),
        source=_SOURCE,
        subject=None,
        signer=session.signer_id,
        keyring=session.keyring,
        delegation=session.delegation,
        sign=session.sign,
        frame=framing(settings),
    )
    # Nothing is published that a reader would pass over.
    now_ms = int(datetime.now(UTC).timestamp() * 1000)
    record = Record(signed.topic, 0, 0, now_ms, signed.key, signed.value, tuple(signed.headers))
    verifier_for(settings, keyrings).verify(record, caught_up=True)
    _produce(settings, signed)


def send_again(settings: Settings, record: Record) -> None:
    """Publish a record of a broadcast topic as it was signed once: after its topic was lost."""
    _produce(settings, record)


def _produce(settings: Settings, signed: SignedRecord | Record) -> None:
    """Send it and wait for the broker's acknowledgement."""
    failure: list[KafkaError] = []
    acknowledged: list[Message] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failure.append(error)
        else:
            acknowledged.append(message)

    producer = opened(Producer, producer_config(settings, "announce", **{"message.timeout.ms": int(TIMEOUT_S * 1000)}))
    producer.produce(
        signed.topic,
        key=signed.key,
        value=signed.value,
        headers=list(signed.headers),
        partition=signed.partition,
        on_delivery=delivered,
    )
    producer.flush(TIMEOUT_S)
    if failure:
        raise unavailable(f"publishing on {signed.topic}", failure[0])
    if not acknowledged:
        raise UnavailableError(
            f"Kafka did not acknowledge {signed.topic} within {TIMEOUT_S:.0f} s; is the broker there?"
        )
