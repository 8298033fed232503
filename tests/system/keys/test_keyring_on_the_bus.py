"""A keyring that is changed by command reaches everybody who listens, on a real broker, once."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from ai_infra.bus.announce import publish_keyring, publish_policy, published_keyrings
from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.kafka.config import producer_config
from ai_infra.devstack import Stack
from ai_infra.errors import ConfigurationError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.generated import PolicyChanged
from ai_infra.events.lanes import BROADCAST_KEY
from ai_infra.settings import Settings
from ai_infra.trust import changes
from ai_infra.trust.exceptions import KeyringError
from ai_infra.trust.keyring import Grant
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.open import open_signer_for
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner, read_private_key_file


@pytest.fixture
def follower(settings: Settings) -> Iterator[Broadcast]:
    """Somebody who follows the broadcast topics."""
    broadcast = Broadcast(settings, service="test")
    broadcast.catch_up(30)
    yield broadcast
    broadcast.close()


@pytest.fixture
def keys(ai_infra: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Runs `ai-infra keys ... --json` for the stack and returns what it says."""
    return lambda *arguments: ai_infra("keys", *arguments, "--json")  # type: ignore[no-any-return]  # it's an object


def test_a_change_by_command_reaches_who_listens(keys: Callable[..., dict[str, Any]], follower: Broadcast) -> None:
    before = follower.keyrings.latest_version
    made = keys("new", "maria-1", "--principal", "maria", "--kind", "person", "--role", "orchestrator")
    assert (made["published"], made["version"]) == (True, before + 1)
    follower.catch_up(30)
    assert "maria-1" in follower.keyrings.latest.keys
    keys("revoke", "maria-1", "--reason", "a test")
    follower.catch_up(30)
    assert follower.keyrings.latest.revocations["maria-1"].reason == "a test"
    announced = [record.offset for record in follower.records_of("signer.changed")]
    assert len(announced) == follower.keyrings.latest_version


def test_what_is_published_already_is_not_published_again(
    settings: Settings, keys: Callable[..., dict[str, Any]], follower: Broadcast
) -> None:
    follower.catch_up(30)
    records = len(follower.records_of("signer.changed"))
    assert publish_keyring(settings) == keys("publish")["published"] == follower.keyrings.latest_version
    follower.catch_up(30)
    assert len(follower.records_of("signer.changed")) == records


def test_what_was_only_written_is_published_later(
    keys: Callable[..., dict[str, Any]], follower: Broadcast, settings: Settings
) -> None:
    assert keys("new", "late-1", "--principal", "late", "--kind", "person", "--no-publish")["published"] is False
    follower.catch_up(30)
    assert "late-1" not in follower.keyrings.latest.keys
    assert keys("publish")["published"] == follower.keyrings.latest_version + 1
    follower.catch_up(30)
    assert "late-1" in follower.keyrings.latest.keys
    known, announced = published_keyrings(settings)
    assert announced == set(range(1, known.latest_version + 1))


def test_a_keyring_that_skips_a_version_or_lacks_signatures_is_not_published(
    settings: Settings, follower: Broadcast
) -> None:
    directory = settings.keys.dir
    assert directory is not None
    latest = load_keyrings(directory).latest
    follower.catch_up(30)
    records = len(follower.records_of("signer.changed"))
    roots = [LocalSigner(k, read_private_key_file(private_key_path(directory, k))) for k in ("root-1", "root-2")]
    draft = changes.with_grant(latest, "operator", Grant("approver"), now=1)
    for text in (
        sign_keyring(draft, roots[:1]),
        sign_keyring(replace(draft, version=draft.version + 1), roots),
        sign_keyring(draft, [LocalSigner.fresh("root-1"), LocalSigner.fresh("root-2")]),
    ):
        with pytest.raises(KeyringError):
            publish_keyring(settings, text, "wrong")
    follower.catch_up(30)
    assert len(follower.records_of("signer.changed")) == records


def test_a_policy_has_versions_and_is_published_once(settings: Settings, follower: Broadcast) -> None:
    before = follower.policy
    document = {**before.document, "note": "a test"}
    first = publish_policy(settings, json.dumps(document), "a test")
    assert first == before.version + 1
    assert publish_policy(settings, json.dumps(document, indent=4), "again") == first
    follower.catch_up(30)
    assert (follower.policy.version, dict(follower.policy.document)) == (first, document)
    # What it was before, so that other tests decide as they expect.
    assert publish_policy(settings, json.dumps(dict(before.document)), "as it was") == first + 1
    for wrong in ("not json", "[1]"):
        with pytest.raises(ConfigurationError):
            publish_policy(settings, wrong, "wrong")


def test_a_policy_stays_in_force_when_the_key_that_signed_it_is_revoked_later(
    stack: Stack, settings: Settings, keys: Callable[..., dict[str, Any]], follower: Broadcast
) -> None:
    """Whoever starts later must decide by the same policy as those who run."""
    before = follower.policy
    keys("new", "leaving-1", "--principal", "leaving", "--kind", "person", "--role", "operator")
    assert settings.keys.dir is not None
    seed = read_private_key_file(private_key_path(settings.keys.dir, "leaving-1"))
    key = base64.b64encode(seed).decode()
    leaving = stack.settings(AI_INFRA_SIGNER_KEY_B64=key, AI_INFRA_SIGNER_ID="leaving-1")
    version = publish_policy(leaving, json.dumps({**before.document, "note": "leaving"}), "a test")
    follower.catch_up(30)
    keys("revoke", "leaving-1", "--reason", "has left")
    follower.catch_up(30)
    with closing(Broadcast(settings, service="test")) as later:
        later.catch_up(30)
        assert later.policy == follower.policy
        assert later.policy.version == version
    session = Session(LocalSigner("leaving-1", seed), "leaving", ["policy.changed"], lambda: 1)
    revoked = policy(session, follower.policy.version + 1)
    send(settings, revoked.topic, revoked.key, revoked.value, revoked.headers)
    follower.catch_up(30)
    assert follower.policy.version == version
    assert publish_policy(settings, json.dumps(dict(before.document)), "as it was") == version + 1


def test_junk_that_names_no_keyring_that_exists_waits_nowhere_and_hides_no_policy(
    settings: Settings, follower: Broadcast
) -> None:
    before = follower.policy
    version = publish_policy(settings, json.dumps({**before.document, "note": "real"}), "a test")
    follower.catch_up(30)
    (sound,) = follower.records_of("policy.changed")[-1:]
    headers = [(name, b"9000" if name == "keyring" else value) for name, value in sound.headers]
    send(settings, sound.topic, sound.key, sound.value, headers, times=500)
    assert publish_policy(settings, json.dumps(dict(before.document)), "as it was") == version + 1
    follower.catch_up(30)
    assert follower.policy.version == version + 1
    assert follower._waiting == []


def test_a_policy_that_is_none_stops_nobody_though_an_operator_has_signed_it(
    settings: Settings, follower: Broadcast
) -> None:
    before = follower.policy
    signer = open_signer_for(settings, "policy.changed", follower.keyrings.latest)
    session = Session(signer, "operator", ["policy.changed"], lambda: follower.keyrings.latest_version)
    for text, version in (("not json", 1), ("[1]", 1), ("[" * 5_000, 1), ("{}", 2**30)):
        record = policy(session, before.version + version, text)
        send(settings, record.topic, record.key, record.value, record.headers)
    assert publish_policy(settings, json.dumps({**before.document, "note": "sound"}), "a test") == before.version + 1
    follower.catch_up(30)
    assert follower.policy.document["note"] == "sound"
    assert publish_policy(settings, json.dumps(dict(before.document)), "as it was") == before.version + 2


@pytest.mark.parametrize("code", [KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.FENCED_LEADER_EPOCH])
def test_a_broker_that_does_not_lead_its_partitions_yet_is_asked_again(follower: Broadcast, code: int) -> None:
    """As it is right after topics were made, or after a broker's restart."""
    asked: list[str] = []

    class NotYet:
        def __init__(self, consumer: Any) -> None:
            self._consumer = consumer

        def get_watermark_offsets(self, place: Any, **more: Any) -> Any:
            asked.append(place.topic)
            if len(asked) < 3:
                raise KafkaException(KafkaError(code))
            return self._consumer.get_watermark_offsets(place, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._consumer, name)

    follower._consumer = NotYet(follower._consumer)  # type: ignore[assignment]  # the fault
    follower.catch_up(30)
    assert len(asked) >= 4


def policy(session: Session, version: int, text: str = "{}") -> SignedRecord:
    """A policy, signed and not sent."""
    body = PolicyChanged(version=version, policy_json=text, policy_sha256=sha256_hex(text.encode()), reason="a test")
    return compose(
        body,
        key=BROADCAST_KEY,
        lane=0,
        id=uuid7(),
        time=datetime.now(UTC),
        source="/tests",
        subject=None,
        signer=session.signer_id,
        keyring=session.keyring,
        delegation=session.delegation,
        sign=session.sign,
    )


def send(settings: Settings, topic: str, key: Any, value: Any, headers: Any, times: int = 1) -> None:
    """Appends a record as it is."""
    producer = Producer(producer_config(settings, "test"))
    for _ in range(times):
        producer.produce(topic, partition=0, key=key, value=value, headers=list(headers))
    assert producer.flush(30) == 0
