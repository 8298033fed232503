"""What commands show of a service's state is what the service has written last, whatever others put beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai_infra.bus.state_records import sign_state_record
from ai_infra.cli.states import newest_proven
from ai_infra.events.event import EPOCH, Record
from ai_infra.trust.ed25519 import read_private_key
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring_document import read_roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.session import Session, utc_now
from ai_infra.trust.signers import LocalSigner
from ai_infra.trust.verify import Verifier


class World:
    """The state topic of a trainer in one lane."""

    def __init__(self, directory: Path) -> None:
        made = init_keys(directory / "keys")
        keyrings = Keyrings(read_roots(made.directory / "roots.json"))
        keyrings.accept(made.keyring.text)
        self.verifier = Verifier(keyrings, 4)
        key = (made.directory / "private/trainer-1.key").read_text()
        signer = LocalSigner("trainer-1", read_private_key(key, "trainer-1"))
        self.session = Session(signer, "trainer", ["job.status"], lambda: 1)
        self.records: list[Record] = []

    def write(self, key: str, value: bytes | None, number: int) -> Record:
        headers = sign_state_record(self.session, topic="trainer.state", key=key, lane=1, value=value, counter=number)
        return self.append(key, value, tuple(headers))

    def append(self, key: str, value: bytes | None, headers: tuple[tuple[str, bytes], ...]) -> Record:
        ms = int((utc_now() - EPOCH).total_seconds() * 1000)
        record = Record("trainer.state", 1, len(self.records), ms, key.encode(), value, headers)
        self.records.append(record)
        return record

    def newest(self) -> dict[str, bytes | None]:
        found = newest_proven(self.records, self.verifier, "trainer")
        return {(record.key or b"").decode(): record.value for record in found}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_of_each_key_the_last_that_its_service_has_written_counts(world: World) -> None:
    world.write("Halt/self", b"one", 9)
    world.write("Head/self", b"head", 10)
    world.write("Halt/self", None, 11)
    assert world.newest() == {"Halt/self": None, "Head/self": b"head"}


def test_what_somebody_else_put_behind_it_hides_nothing(world: World) -> None:
    old = world.write("Halt/self", b"old", 9)
    now = world.write("Halt/self", b"now", 10)
    world.append("Halt/self", None, ())
    world.append("Halt/self", b"forged", (*now.headers[:-2], ("counter", b"99"), now.headers[-1]))
    world.append("Halt/self", old.value, old.headers)
    assert world.newest() == {"Halt/self": b"now"}
