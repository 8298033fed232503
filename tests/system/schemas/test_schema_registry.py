"""A schema registry over real sockets: ids for what is said, newer schemas for what is heard, and how it can fail."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.system.schemas.registry_server import Registry, serve

from ai_infra.bus.kafka.schema_registry import (
    ASKS_AT_ONCE,
    FORGET_UNKNOWN_SECONDS,
    RegistryRefused,
    RegistryUnavailable,
    SchemaRegistry,
)
from ai_infra.cli.main import main
from ai_infra.errors import ConfigurationError
from ai_infra.events.codec import encode_body, registry_framing
from ai_infra.events.compose import compose, uuid7
from ai_infra.events.event import Record
from ai_infra.events.exceptions import UnknownSchema
from ai_infra.events.fingerprint import schema_sha256, schema_text
from ai_infra.events.generated import BODIES, SCHEMAS, JobCancelRequested
from ai_infra.events.lanes import lane_of
from ai_infra.events.schemas import KNOWN, topic_of
from ai_infra.events.statement import DATASCHEMA_PREFIX
from ai_infra.trust.exceptions import TrustError
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner, read_private_key_file
from ai_infra.trust.verify import Verifier

LANES = 4
TOPIC = JobCancelRequested.TOPIC
BODY = JobCancelRequested(job_id=uuid7(), model="digits", reason="enough", requested_by="orchestrator")


@pytest.fixture
def server() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        yield registry


@pytest.fixture
def registry(server: Registry) -> SchemaRegistry:
    return SchemaRegistry(server.url)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys") / "keys"
    init_keys(directory)
    return directory


@pytest.fixture
def keyrings(directory: Path) -> Keyrings:
    return load_keyrings(directory)


@pytest.fixture
def say(directory: Path, keyrings: Keyrings) -> Callable[..., Record]:
    """The record of a cancel wish in this framing, by a body class that may be of another version."""
    signer = LocalSigner("orchestrator-1", read_private_key_file(private_key_path(directory, "orchestrator-1")))
    session = Session(signer, "orchestrator", [TOPIC], lambda: keyrings.latest_version)

    def record_of(frame: Callable[[Any], bytes], body: Any = BODY) -> Record:
        now = datetime.now(UTC)
        signed = compose(
            body,
            key="digits",
            lane=lane_of("digits", LANES),
            id=uuid7(),
            time=now.replace(microsecond=0),
            source="/test",
            subject=None,
            signer=session.signer_id,
            keyring=session.keyring,
            delegation=session.delegation,
            sign=session.sign,
            frame=frame,
        )
        appended = int(now.timestamp() * 1000)
        headers = tuple(signed.headers)
        return Record(signed.topic, signed.partition, 1, appended, signed.key, signed.value, headers)

    return record_of


def newer() -> tuple[str, str]:
    """A schema of the topic that this program has never seen: text and SHA-256."""
    schema = json.loads(SCHEMAS[JobCancelRequested.SCHEMA_SHA256])
    schema["doc"] = f"A later wording {secrets.token_hex(4)}."
    return schema_text(schema), schema_sha256(schema)


def of_newer_schema(sha256: str) -> JobCancelRequested:
    """The body as a writer with that schema would say it."""

    class Newer(JobCancelRequested):
        __slots__ = ()
        SCHEMA_SHA256 = sha256

    return Newer(job_id=BODY.job_id, model="digits", reason="enough", requested_by="orchestrator")


# --- speaking ------------------------------------------------------------------------------------------------------


def test_the_first_body_of_a_type_registers_its_schema_and_later_ones_ask_nothing(
    server: Registry, registry: SchemaRegistry
) -> None:
    server.schemas[40] = '"string"'
    framing = registry.frame(JobCancelRequested)
    [schema_id] = server.subjects[f"{TOPIC}-value"]
    assert framing == b"\0" + schema_id.to_bytes(4, "big")
    asked = len(server.seen)
    assert registry.frame(JobCancelRequested) == framing
    assert len(server.seen) == asked


def test_a_schema_that_is_there_is_used_and_nothing_is_written(server: Registry) -> None:
    first = SchemaRegistry(server.url).frame(JobCancelRequested)
    server.frozen = True
    server.seen.clear()
    assert SchemaRegistry(server.url).frame(JobCancelRequested) == first
    assert not [path for _, path in server.seen if path.endswith("/versions")]


def test_framing_changes_neither_signature_nor_hash_and_any_reader_takes_both(
    registry: SchemaRegistry, say: Callable[..., Record], keyrings: Keyrings
) -> None:
    record = say(registry.frame)
    assert record.value is not None
    assert record.value == registry.frame(JobCancelRequested) + encode_body(BODY)
    without_registry = Verifier(keyrings, LANES)
    assert without_registry.verify(record).body == BODY
    assert without_registry.verify(say(lambda cls: b"\xc3\x01" + cls.CRC64)).body == BODY


def test_a_registry_that_keeps_a_schema_in_other_words_is_not_used(server: Registry, registry: SchemaRegistry) -> None:
    server.reword = True
    with pytest.raises(RegistryRefused, match="other words"):
        registry.frame(JobCancelRequested)


def test_a_registry_that_refuses_a_schema_says_why(server: Registry, registry: SchemaRegistry) -> None:
    server.frozen = True
    with pytest.raises(RegistryRefused, match="409: Schema being registered is incompatible"):
        registry.frame(JobCancelRequested)


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_an_outage(
    server: Registry, registry: SchemaRegistry
) -> None:
    server.failures = [503, 429]
    assert registry.frame(JobCancelRequested)
    server.failures = [500, 500, 500]
    with pytest.raises(RegistryUnavailable, match="answers 500"):
        registry.frame(BODIES["job.status"])
    gone = SchemaRegistry("http://127.0.0.1:1")
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        gone.frame(JobCancelRequested)


def test_user_and_password_of_the_address_are_sent_and_never_shown(server: Registry) -> None:
    server.password = "s3cret/word"
    with_password = server.url.replace("http://", "http://writer:s3cret%2Fword@")
    assert SchemaRegistry(with_password).frame(JobCancelRequested)
    with pytest.raises(RegistryRefused) as refused:
        SchemaRegistry(with_password.replace("word", "wrong")).frame(JobCancelRequested)
    assert "401" in str(refused.value)
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ConfigurationError, match="not https"):
        SchemaRegistry(with_password, encrypted_credentials=True)


@pytest.mark.parametrize("url", ["registry:8081", "ftp://registry", "http://a:8081,b:8081", ""])
def test_an_address_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigurationError, match="SCHEMA_REGISTRY_URL"):
        SchemaRegistry(url)


def test_the_command_registers_every_schema_and_again_changes_nothing(
    server: Registry, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", server.url)
    answers = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(["schemas", "register", "--json"])
        assert ended.value.code == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert set(answers[0]["ids"]) == set(BODIES)
    assert set(server.subjects) == {f"{topic}-value" for topic in BODIES}
    assert {one for of in answers[0]["ids"].values() for one in of} == set(SCHEMAS)


# --- reading -------------------------------------------------------------------------------------------------------


def test_an_event_of_a_newer_schema_is_read_once_the_registry_has_told_it(
    server: Registry, registry: SchemaRegistry, say: Callable[..., Record], keyrings: Keyrings
) -> None:
    text, sha256 = newer()
    schema_id = server.add(json.dumps(json.loads(text), indent=2))
    record = say(lambda _: registry_framing(schema_id), of_newer_schema(sha256))
    assert dict(record.headers)["ce_dataschema"].decode() == DATASCHEMA_PREFIX + sha256
    with pytest.raises(TrustError) as unknown:
        Verifier(keyrings, LANES).verify(record)
    assert unknown.value.code == "unknown_schema"
    event = Verifier(keyrings, LANES, learn=registry.learn).verify(record)
    assert event.body == BODY
    assert KNOWN[sha256] == text
    server.seen.clear()
    assert Verifier(keyrings, LANES, learn=registry.learn).verify(record).body == BODY
    assert server.seen == []


def test_junk_makes_nobody_ask_the_registry(
    server: Registry, registry: SchemaRegistry, say: Callable[..., Record], keyrings: Keyrings
) -> None:
    _, sha256 = newer()
    record = say(lambda _: registry_framing(5), of_newer_schema(sha256))
    forged = tuple((name, bytes(64) if name == "signature" else value) for name, value in record.headers)
    junk = Record(record.topic, record.partition, 2, record.append_time_ms, record.key, record.value, forged)
    verifier = Verifier(keyrings, LANES, learn=registry.learn)
    for _ in range(3):
        with pytest.raises(TrustError) as refused:
            verifier.verify(junk)
        assert refused.value.code == "bad_signature"
    assert server.seen == []


def test_a_schema_under_the_id_that_is_not_the_signed_one_is_not_taken(
    server: Registry, registry: SchemaRegistry, say: Callable[..., Record], keyrings: Keyrings
) -> None:
    other, _ = newer()
    _, sha256 = newer()
    schema_id = server.add(other)
    record = say(lambda _: registry_framing(schema_id), of_newer_schema(sha256))
    verifier = Verifier(keyrings, LANES, learn=registry.learn)
    for _ in range(3):
        with pytest.raises(TrustError) as refused:
            verifier.verify(record)
        assert refused.value.code == "unknown_schema"
        assert refused.value.signer_known
    assert topic_of(sha256) is None
    assert len(server.seen) == 1


def test_a_schema_of_another_topic_is_not_taken(server: Registry, registry: SchemaRegistry) -> None:
    text, sha256 = newer()
    with pytest.raises(UnknownSchema):
        registry.learn("job.status", server.add(text), sha256)
    assert topic_of(sha256) is None


def test_ids_that_are_not_there_are_asked_for_once_and_again_after_a_while(server: Registry) -> None:
    clock = [1_000.0]
    registry = SchemaRegistry(server.url, clock=lambda: clock[0])
    text, sha256 = newer()
    for _ in range(5):
        with pytest.raises(UnknownSchema):
            registry.learn(TOPIC, 77, sha256)
    assert len(server.seen) == 1
    server.add(text, 77)
    clock[0] += FORGET_UNKNOWN_SECONDS + 1
    registry.learn(TOPIC, 77, sha256)
    assert topic_of(sha256) == TOPIC


def test_a_signer_that_names_ever_new_ids_is_not_asked_for_without_bound(server: Registry) -> None:
    clock = [1_000.0]
    registry = SchemaRegistry(server.url, clock=lambda: clock[0])
    _, sha256 = newer()
    for schema_id in range(1, 200):
        with pytest.raises(UnknownSchema):
            registry.learn(TOPIC, schema_id, sha256)
    assert len(server.seen) == ASKS_AT_ONCE


def test_an_outage_is_no_verdict_about_the_event(
    server: Registry, registry: SchemaRegistry, say: Callable[..., Record], keyrings: Keyrings
) -> None:
    text, sha256 = newer()
    schema_id = server.add(text)
    record = say(lambda _: registry_framing(schema_id), of_newer_schema(sha256))
    verifier = Verifier(keyrings, LANES, learn=registry.learn)
    server.failures = [503, 503, 503]
    with pytest.raises(RegistryUnavailable):
        verifier.verify(record)
    assert verifier.verify(record).body == BODY


def test_who_must_keep_a_schema_keeps_it_before_anybody_uses_it(server: Registry, registry: SchemaRegistry) -> None:
    text, sha256 = newer()
    schema_id = server.add(text)
    kept: list[tuple[str, str | None]] = []

    def away(_sha256: str, _text: str) -> None:
        raise RegistryUnavailable("the archive is away")

    registry.before_learning = away
    with pytest.raises(RegistryUnavailable):
        registry.learn(TOPIC, schema_id, sha256)
    assert topic_of(sha256) is None
    registry.before_learning = lambda name, _text: kept.append((name, topic_of(name)))
    registry.learn(TOPIC, schema_id, sha256)
    assert kept == [(sha256, None)]
