"""An installation with all keys in a directory, and people who say things with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ai_infra.events.body import Body
from ai_infra.events.compose import SignedRecord, compose, uuid7
from ai_infra.events.event import Record
from ai_infra.events.keys import BROADCAST_TOPICS
from ai_infra.events.lanes import BROADCAST_KEY, lane_of
from ai_infra.settings import Settings, load_settings
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner, read_private_key_file
from ai_infra.trust.verify import Verifier

LANES = 4
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture(scope="session")
def keys_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A keys directory that no test changes."""
    directory = tmp_path_factory.mktemp("installation") / "keys"
    init_keys(directory)
    return directory


@pytest.fixture
def keyrings(keys_directory: Path) -> Keyrings:
    return load_keyrings(keys_directory)


@pytest.fixture
def verifier(keyrings: Keyrings) -> Verifier:
    return Verifier(keyrings, LANES)


@pytest.fixture
def signer(keys_directory: Path) -> Callable[[str], LocalSigner]:
    """A private key of the installation, by id."""

    def local(key_id: str) -> LocalSigner:
        return LocalSigner(key_id, read_private_key_file(private_key_path(keys_directory, key_id)))

    return local


@pytest.fixture
def session(keyrings: Keyrings, signer: Callable[[str], LocalSigner]) -> Callable[..., Session]:
    """A session of a key's holder, from NOW on. `clock` stands for the time, `events` for what is delegated."""

    def open_session(key_id: str, **changes: Any) -> Session:
        principal = keyrings.latest.keys[key_id].principal
        fields: dict[str, Any] = {
            "service": principal,
            "events": keyrings.latest.events_of(principal),
            "keyring_version": lambda: keyrings.latest_version,
            "lifetime": timedelta(hours=24),
            "clock": lambda: NOW,
        }
        return Session(signer(key_id), **fields | changes)

    return open_session


@pytest.fixture
def say(session: Callable[..., Session]) -> Callable[..., Record]:
    """The record that a consumer gets of what the holder of a key says; `changes` for what is odd about it."""

    def record_of(key_id: str, body: Body, *, at: datetime = NOW, **changes: Any) -> Record:
        own = changes.pop("session", None) or session(key_id)
        if body.TOPIC in BROADCAST_TOPICS:
            key, lane = BROADCAST_KEY, 0
        else:
            key = changes.pop("key", None) or body.model  # type: ignore[attr-defined]  # all that tests say have one
            lane = changes.pop("lane", lane_of(key, LANES))
        fields: dict[str, Any] = {
            "key": key,
            "lane": lane,
            "id": uuid7(),
            "time": at,
            "source": "//ai-infra/test",
            "subject": None,
            "signer": own.signer_id,
            "keyring": own.keyring,
            "delegation": own.delegation,
            "sign": own.sign,
        }
        return received(compose(body, **fields | changes), at)

    return record_of


def received(signed: SignedRecord, at: datetime) -> Record:
    return Record(
        topic=signed.topic,
        partition=signed.partition,
        offset=7,
        append_time_ms=int(at.timestamp() * 1000),
        key=signed.key,
        value=signed.value,
        headers=tuple(signed.headers),
    )


@pytest.fixture
def settings_of(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a process with just these variables."""

    def load(**variables: object) -> Settings:
        return load_settings(environ={name: str(value) for name, value in variables.items()}, directory=tmp_path)

    return load
