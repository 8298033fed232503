"""A redrive: what it vouches for, and what it must not let through."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ai_infra.bus.deadletters import dead_letter
from ai_infra.bus.redrive import (
    BadRedriveError,
    before_redrive,
    compose_redrive,
    read_redrive,
    record_sha256,
    split_dead_letter,
)
from ai_infra.events.event import Record
from ai_infra.trust.ed25519 import read_private_key
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyring_document import read_roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.signers import LocalSigner, Signer
from ai_infra.trust.verify import Verifier

NOW = 1_800_000_000_000


@dataclass
class World:
    verifier: Verifier
    keyring: Keyring
    directory: Path

    def signer(self, key_id: str) -> Signer:
        text = (self.directory / "private" / f"{key_id}.key").read_text()
        return LocalSigner(key_id, read_private_key(text, key_id))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    directory = tmp_path_factory.mktemp("keys")
    made = init_keys(directory / "k")
    keyrings = Keyrings(read_roots(made.directory / "roots.json"))
    keyrings.accept(made.keyring.text)
    return World(Verifier(keyrings, 8), made.keyring, made.directory)


def original() -> Record:
    return Record("job.queued", 3, 41, NOW, b"digits", b"\xc3\x01body", (("ce_id", b"1"), ("dlq_reason", b"mine")))


def retried(world: World, record: Record, *, service: str = "trainer", key: str = "operator-1") -> Record:
    redrive = compose_redrive(record, service, world.signer(key))
    return Record(redrive.topic, redrive.partition, 7, NOW + 60_000, redrive.key, redrive.value, tuple(redrive.headers))


def test_the_record_comes_back_with_its_first_place_and_time(world: World) -> None:
    assert read_redrive(retried(world, original()), world.verifier) == original()


def test_a_dead_letter_gives_back_the_record_even_one_with_headers_like_ours(world: World) -> None:
    letter = dead_letter(original(), service="trainer", code="decide_failed", reason="boom", now_ms=NOW + 5)
    as_read = Record("trainer.dlq", 3, 0, NOW + 6, letter.key, letter.value, tuple(letter.headers))
    record, notes = split_dead_letter(as_read)
    assert record == original()
    assert (notes["dlq_error"], notes["dlq_reason"]) == ("decide_failed", "boom")


def test_what_is_no_dead_letter_is_said_to_be_none() -> None:
    with pytest.raises(BadRedriveError, match="isn't a dead letter"):
        split_dead_letter(replace(original(), topic="trainer.dlq"))


@pytest.mark.parametrize(
    "change",
    [
        {"value": b"\xc3\x01other"},
        {"value": None},
        {"key": b"other"},
        {"partition": 4},
        {"topic": "registry.retry"},
    ],
)
def test_another_record_or_place_than_the_one_vouched_for_is_refused(world: World, change: dict[str, object]) -> None:
    with pytest.raises(BadRedriveError):
        read_redrive(replace(retried(world, original()), **change), world.verifier)  # type: ignore[arg-type]


def test_a_changed_or_added_header_is_refused(world: World) -> None:
    record = retried(world, original())
    for headers in ((("ce_id", b"2"), *record.headers[1:]), (("x", b""), *record.headers)):
        with pytest.raises(BadRedriveError, match="SHA-256"):
            read_redrive(replace(record, headers=headers), world.verifier)


def test_a_statement_that_was_changed_is_refused(world: World) -> None:
    record = retried(world, original())
    changed = record.headers[-2][1].replace(str(NOW).encode(), str(NOW - 10**9).encode())
    headers = (*record.headers[:-2], ("redrive", changed), record.headers[-1])
    with pytest.raises(BadRedriveError, match="isn't signed"):
        read_redrive(replace(record, headers=headers), world.verifier)


@pytest.mark.parametrize("key", ["orchestrator-1", "trainer-1", "approver-1"])
def test_who_is_no_operator_can_redrive_nothing(world: World, key: str) -> None:
    with pytest.raises(BadRedriveError, match="may not act as an operator"):
        read_redrive(retried(world, original(), key=key), world.verifier)


def test_a_stranger_with_the_name_of_an_operator_can_redrive_nothing(world: World) -> None:
    redrive = compose_redrive(original(), "trainer", LocalSigner.fresh("operator-1"))
    record = Record(redrive.topic, 3, 0, NOW, redrive.key, redrive.value, tuple(redrive.headers))
    with pytest.raises(BadRedriveError, match="isn't signed"):
        read_redrive(record, world.verifier)


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[]", b"\xff", b'{"lane": 3}', b'{"topic": "\xff"}', b"x" * 10_000, b"1" * 400]
)
def test_a_statement_that_is_none_is_refused_and_breaks_nothing(world: World, text: bytes) -> None:
    headers = (*original().headers, ("redrive", text), ("redrive_signature", bytes(64)))
    record = replace(original(), topic="trainer.retry", headers=headers)
    with pytest.raises(BadRedriveError):
        read_redrive(record, world.verifier)
    assert before_redrive(record) == record


def test_no_headers_at_all_are_refused(world: World) -> None:
    with pytest.raises(BadRedriveError, match="dlq redrive"):
        read_redrive(replace(original(), topic="trainer.retry", headers=()), world.verifier)


def test_a_refused_redrive_still_tells_where_the_record_first_was(world: World) -> None:
    assert before_redrive(retried(world, original())) == original()


def test_the_hash_covers_the_order_of_headers_and_tells_null_from_empty() -> None:
    record = original()
    seen = {
        record_sha256(record),
        record_sha256(replace(record, headers=record.headers[::-1])),
        record_sha256(replace(record, value=b"")),
        record_sha256(replace(record, value=None)),
    }
    assert len(seen) == 4
