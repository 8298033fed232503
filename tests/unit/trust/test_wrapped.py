"""A private key that only a KMS opens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust import changes
from ai_infra.trust.ed25519 import encode, public_of
from ai_infra.trust.exceptions import KeyFormatError
from ai_infra.trust.init import init_keys, init_production_keys, key_plan
from ai_infra.trust.keyring import CHAIN, Key
from ai_infra.trust.keyring_files import load_keyrings, make_wrapped_key, private_key_path, wrapped_key_path
from ai_infra.trust.open import open_audit_signer, open_chain_signer
from ai_infra.trust.signers import LocalSigner, read_private_key_file
from ai_infra.trust.wrapped import unwrap, wrap

KMS = LocalSigner("audit-1", b"a" * 32)
SEED = b"c" * 32
TEXT = wrap("chain-1", SEED, KMS)


class Hedged(LocalSigner):
    """A signer that mixes randomness into what it signs."""

    __slots__ = ()

    def sign(self, message: bytes) -> bytes:
        return super().sign(message + os.urandom(8))


def test_what_was_wrapped_is_opened_by_who_wrapped_it_and_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "chain-1.json"
    path.write_text(TEXT)
    opened = unwrap(path, KMS)
    assert (opened.key_id, opened.public_key) == ("chain-1", public_of(SEED))
    assert opened.sign(b"m") == LocalSigner("chain-1", SEED).sign(b"m")
    with pytest.raises(KeyFormatError, match="keys rotate"):
        unwrap(path, LocalSigner("audit-1", b"b" * 32))


def test_the_file_does_not_hold_the_key() -> None:
    assert encode(SEED) not in TEXT
    assert SEED.hex() not in TEXT
    assert wrap("chain-1", SEED, KMS) != TEXT


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(json.loads(TEXT))), data=st.data())
def test_a_wrapped_key_that_was_touched_is_refused(tmp_path: Path, name: str, data: st.DataObject) -> None:
    document = json.loads(TEXT)
    value = document[name]
    position = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.sampled_from("ABCabc019+/").filter(lambda letter: letter != value[position]))
    document[name] = value[:position] + other + value[position + 1 :]
    path = tmp_path / "touched.json"
    path.write_text(json.dumps(document))
    with pytest.raises(KeyFormatError):
        unwrap(path, KMS)


@pytest.mark.parametrize("junk", [b"", b"{}", b"[]", b"\xff", b'{"key": 1}'])
def test_junk_is_no_wrapped_key(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "junk"
    path.write_bytes(junk)
    with pytest.raises(KeyFormatError):
        unwrap(path, KMS)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        unwrap(tmp_path / "nothing", KMS)


def test_a_signer_whose_signatures_differ_wraps_nothing() -> None:
    with pytest.raises(ConfigurationError, match="deterministic"):
        wrap("chain-1", SEED, Hedged("audit-1", b"a" * 32))


def test_in_production_the_chain_key_is_made_wrapped(tmp_path: Path, settings_of: Callable[..., Settings]) -> None:
    directory = tmp_path / "keys"
    kms = {key_id: LocalSigner.fresh(key_id) for key_id in key_plan(people=False)} | {"audit-1": KMS}
    public = {key_id: signer.public_key for key_id, signer in kms.items() if key_id != "chain-1"}
    made = init_production_keys(directory, public, KMS)
    settings = settings_of(
        AI_INFRA_KEYS_DIR=directory,
        AUDIT_SIGNING_KMS_KEY_ID="env:AUDIT",
        AUDIT=encode(b"a" * 32),
        AI_INFRA_CHAIN_KEY=f"wrapped:{wrapped_key_path(directory, 'chain-1')}",
    )
    chain = open_chain_signer(settings, made.keyring)
    assert (chain.key_id, chain.public_key) == ("chain-1", made.keyring.keys["chain-1"].public_key)


def test_a_wrapped_key_has_to_be_the_one_that_the_keyring_names(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    directory = tmp_path / "keys"
    init_keys(directory)
    plain = settings_of(AI_INFRA_KEYS_DIR=directory)
    public_key = make_wrapped_key(directory, "chain-2", open_audit_signer(plain))
    settings = settings_of(AI_INFRA_KEYS_DIR=directory, AI_INFRA_CHAIN_KEY=f"wrapped:{directory}/wrapped/chain-2.json")
    before = load_keyrings(directory).latest
    with pytest.raises(KeyFormatError, match="none of the chain keys"):
        open_chain_signer(settings, before)
    roots = [LocalSigner(k, read_private_key_file(private_key_path(directory, k))) for k in ("root-1", "root-2")]
    added = Key("chain-2", public_key, "", CHAIN, deployed_at=before.created_at + 1)
    changes.publish_next(directory, before, changes.with_key(before, added), roots)
    assert open_chain_signer(settings).key_id == "chain-2"
    with pytest.raises(ConfigurationError, match="can't be one itself"):
        open_audit_signer(settings_of(AI_INFRA_KEYS_DIR=directory, AI_INFRA_AUDIT_KEY=f"wrapped:{directory}/x"))
