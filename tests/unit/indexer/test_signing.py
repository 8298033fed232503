"""Which key signs follows the keyring: by position for rows of the chain, at once for checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ai_infra.settings import Settings, load_settings
from ai_infra.trust import changes
from ai_infra.trust.ed25519 import new_seed, public_of
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring import AUDIT, Key, Keyring
from ai_infra.trust.keyring_files import load_keyrings, private_key_path
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.signers import LocalSigner, read_private_key_file, write_private_key_file
from ai_infra_indexer.signing import LogKeys, NoStandingKey


@dataclass
class Office:
    """A keys directory, and a process that follows its keyrings."""

    directory: Path
    settings: Settings
    keyrings: Keyrings

    def change(self, make: Callable[[Keyring], Keyring]) -> Keyring:
        before = self.keyrings.latest
        roots = [
            LocalSigner(k, read_private_key_file(private_key_path(self.directory, k))) for k in ("root-1", "root-2")
        ]
        after = changes.publish_next(self.directory, before, make(before), roots)
        return self.keyrings.accept(after.text)

    def seed(self, key_id: str) -> bytes:
        seed = new_seed()
        write_private_key_file(private_key_path(self.directory, key_id), seed)
        return public_of(seed)

    def rotate(self, old: str, new: str) -> Keyring:
        public, now = self.seed(new), self.keyrings.latest.created_at + 1
        return self.change(lambda k: changes.with_rotation(k, old, new, public, now=now, until=now + 10))

    def revoke(self, key_id: str) -> Keyring:
        now = self.keyrings.latest.created_at + 1
        return self.change(lambda k: changes.with_revocation(k, key_id, "stolen", {}, now=now))

    def stands(self, use: str) -> float | None:
        return REGISTRY.get_sample_value("ai_infra_indexer_key_stands", {"use": use})


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Office:
    monkeypatch.chdir(tmp_path)
    init_keys(tmp_path / "keys")
    settings = load_settings(AI_INFRA_KEYS_DIR=tmp_path / "keys")
    return Office(tmp_path / "keys", settings, load_keyrings(tmp_path / "keys"))


def test_an_audit_key_that_is_known_to_be_revoked_signs_no_checkpoint_whatever_it_covers(office: Office) -> None:
    keys = LogKeys(office.settings, office.keyrings)
    assert keys.audit(1).key_id == "audit-1"
    office.rotate("audit-1", "audit-2")
    assert keys.audit(1).key_id == "audit-1", "the new key is in none of the entries that this covers"
    office.revoke("audit-1")
    assert {keys.audit(version).key_id for version in (1, 2, 3)} == {keys.newest().key_id} == {"audit-2"}


def test_without_another_audit_key_nothing_is_signed_until_one_is_there(office: Office) -> None:
    keys = LogKeys(office.settings, office.keyrings)
    office.revoke("audit-1")
    for _ in range(2):
        with pytest.raises(NoStandingKey, match="the audit key audit-1 is revoked in version 2"):
            keys.audit(2)
    assert office.stands("audit") == 0
    public, now = office.seed("audit-9"), office.keyrings.latest.created_at + 1
    office.change(lambda k: changes.with_key(k, Key("audit-9", public, "", AUDIT, deployed_at=now)))
    assert keys.audit(3).key_id == "audit-9"
    assert office.stands("audit") == 1


def test_a_row_is_signed_by_the_key_that_counts_where_it_is_entered(office: Office) -> None:
    """Also by a process that starts after the rotation, with everything from before it still to be sequenced."""
    office.rotate("chain-1", "chain-2")
    office.revoke("chain-1")
    keys = LogKeys(office.settings, office.keyrings)
    by_version = [office.keyrings.get(version) for version in (1, 2, 3)]
    chosen = [keys.chain(keyring).key_id for keyring in by_version if keyring is not None]
    assert chosen[0] == "chain-1"
    assert chosen[1] in ("chain-1", "chain-2")
    assert chosen[2] == "chain-2"


def test_what_names_a_keyring_that_the_process_has_not_read_waits_for_it(office: Office) -> None:
    keys = LogKeys(office.settings, office.keyrings)
    with pytest.raises(NoStandingKey, match="not read by this process yet"):
        keys.audit(2)
