"""A sender with fixed keys, for tests of composing and reading."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from ai_infra.events.body import Body
from ai_infra.events.compose import SignedRecord, compose
from ai_infra.events.event import Record
from ai_infra.events.lanes import lane_of

LANES = 8
PUBLIC, _SECRET = crypto_sign_seed_keypair(bytes(range(32)))
ID = "018f0000-0000-7000-8000-00000000000a"


def sign(message: bytes) -> bytes:
    return crypto_sign(message, _SECRET)[:64]


@pytest.fixture
def say() -> Callable[..., SignedRecord]:
    """Composes a body with defaults for everything else."""

    def compose_with_defaults(body: Body, **changes: Any) -> SignedRecord:
        key = changes.get("key", getattr(body, "model", "digits"))
        fields: dict[str, Any] = {
            "key": key,
            "lane": lane_of(key, LANES),
            "id": ID,
            "time": datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC),
            "source": "//ai-infra/test",
            "subject": None,
            "signer": "trainer-1",
            "keyring": 1,
            "delegation": b"d" * 300,
            "sign": sign,
        }
        return compose(body, **fields | changes)

    return compose_with_defaults


@pytest.fixture
def public_key() -> bytes:
    return PUBLIC


@pytest.fixture
def received() -> Callable[[SignedRecord], Record]:
    """The record as a consumer would get it."""

    def record_of(signed: SignedRecord) -> Record:
        return Record(
            topic=signed.topic,
            partition=signed.partition,
            offset=7,
            append_time_ms=1_767_323_045_700,
            key=signed.key,
            value=signed.value,
            headers=tuple(signed.headers),
        )

    return record_of
