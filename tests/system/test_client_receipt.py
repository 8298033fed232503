"""A receipt: proof, checkable offline, that an own event is in the log. With the real indexer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ai_infra.client import AnswerTimeout, Client, Published
from ai_infra.client.gate import Gate
from ai_infra.client.receipts import BadReceipt
from ai_infra.devstack import Stack
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings
from ai_infra.trust.keyring_files import load_keyrings


@pytest.fixture(scope="module")
def client(stack: Stack, settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture(scope="module")
def indexer(stack: Stack) -> Iterator[None]:
    stack.start_service("indexer")
    yield
    stack.stop_service("indexer")


def say_something(client: Client) -> Published:
    model = f"receipt-{secrets.token_hex(4)}"
    job = client.job("00000000-0000-4000-8000-000000000000", model=model)
    return client.cancel_job(job, reason="to have it in the log")


def test_without_an_indexer_there_is_no_receipt_and_the_wait_ends(client: Client) -> None:
    with pytest.raises(AnswerTimeout, match="no checkpoint covers"):
        client.receipt(say_something(client), timeout=1)


@pytest.mark.usefixtures("indexer")
def test_an_own_event_has_a_receipt_that_verifies_offline(client: Client, stack: Stack) -> None:
    said = [say_something(client) for _ in range(3)]
    receipts = [client.receipt(published, timeout=90) for published in said]
    keyring = load_keyrings(stack.directory / "keys").latest  # from files: no broker, no bucket
    for published, receipt in zip(said, receipts, strict=True):
        assert (receipt.event_id, receipt.event_hash, receipt.lane) == (published.id, published.hash, published.lane)
        assert receipt.position < receipt.size
        assert receipt.verify(keyring).checkpoint.size == receipt.size


@pytest.mark.usefixtures("indexer")
def test_a_receipt_that_was_changed_anywhere_does_not_verify(client: Client, settings: Settings) -> None:
    one, other = (client.receipt(say_something(client), timeout=90) for _ in range(2))
    gate = Gate(settings)
    keyring = gate.keyring
    gate.close()
    flipped = bytearray(one.entry)
    flipped[len(flipped) // 2] ^= 1
    changed = [
        replace(one, entry=bytes(flipped)),
        replace(one, entry=other.entry),
        replace(one, event_hash=other.event_hash),
        replace(one, proof=one.proof.replace(b"index ", b"index 1", 1)),
        replace(one, origin="another.example/log/lanes/0"),
    ]
    for receipt in changed:
        with pytest.raises(AiInfraError):
            receipt.verify(keyring)
    with pytest.raises(BadReceipt):
        replace(one, entry=other.entry).verify(keyring)
