"""The chain key's certificate, the signers file, the first keys, and forms of keys that other programs read."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ai_infra.errors import ConfigurationError
from ai_infra.trust import changes
from ai_infra.trust.certificate import certify_chain_key, verify_chain_certificate
from ai_infra.trust.ed25519 import public_key_pem
from ai_infra.trust.exceptions import BadCertificate
from ai_infra.trust.init import init_keys, init_production_keys, key_plan
from ai_infra.trust.keyring import CHAIN
from ai_infra.trust.keyring_document import sign_keyring, verify_keyring
from ai_infra.trust.keyring_files import load_keyrings
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.roles import ROLES
from ai_infra.trust.signers import LocalSigner
from ai_infra.trust.signers_file import signers_file

SignerOf = Callable[[str], LocalSigner]


def test_the_first_certificate_is_by_the_audit_key_over_the_chain_key(keys_directory: Path, keyrings: Keyrings) -> None:
    text = (keys_directory / "chain-1.certificate.json").read_text()
    certificate = verify_chain_certificate(text, keyrings.latest)
    chain = keyrings.latest.key_of("chain-1", CHAIN)
    assert chain is not None
    assert (certificate.chain_key, certificate.public_key, certificate.issuer) == (
        "chain-1",
        chain.public_key,
        "audit-1",
    )


def test_a_certificate_by_any_other_key_is_refused(keyrings: Keyrings, signer: SignerOf) -> None:
    keyring = keyrings.latest
    for issuer in (signer("manifest-1"), signer("trainer-1"), LocalSigner.fresh("audit-1"), LocalSigner.fresh("x")):
        text = certify_chain_key(issuer, "chain-1", signer("chain-1").public_key, issued_at=keyring.created_at)
        with pytest.raises(BadCertificate):
            verify_chain_certificate(text, keyring)


def test_a_certificate_that_was_touched_is_refused(keyrings: Keyrings, signer: SignerOf) -> None:
    at = keyrings.latest.created_at
    text = certify_chain_key(signer("audit-1"), "chain-1", signer("chain-1").public_key, issued_at=at)
    envelope = json.loads(text)
    payload = json.loads(base64.b64decode(envelope["payload"]))
    payload["public_key"] = base64.b64encode(LocalSigner.fresh("x").public_key).decode()
    envelope["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    for touched in (json.dumps(envelope), text[:-9], "{}", "[]", "", text.replace("chain-key", "keyring")):
        with pytest.raises(BadCertificate):
            verify_chain_certificate(touched, keyrings.latest)


def test_a_certificate_counts_by_when_it_was_issued(keyrings: Keyrings, signer: SignerOf) -> None:
    now = keyrings.latest.created_at + 1000
    draft = changes.with_revocation(keyrings.latest, "audit-1", "stolen", {}, now=now)
    revoked = verify_keyring(sign_keyring(draft, [signer("root-1"), signer("root-2")]), keyrings.latest)
    for issued_at, good in ((now - 1, True), (now, False)):
        text = certify_chain_key(signer("audit-1"), "chain-1", signer("chain-1").public_key, issued_at=issued_at)
        if good:
            verify_chain_certificate(text, revoked)
        else:
            with pytest.raises(BadCertificate, match="revoked"):
                verify_chain_certificate(text, revoked)


def test_the_signers_file_has_the_fields_that_both_verifiers_read(keyrings: Keyrings) -> None:
    signers = json.loads(signers_file(keyrings.latest))["signers"]
    assert [s["signerId"] for s in signers] == ["chain-1", "audit-1", "manifest-1", "promotion-1"]
    for entry in signers:
        key = keyrings.latest.keys[entry["signerId"]]
        assert entry["signer_kid"] == entry["signerId"]
        assert entry["algorithm"] == "ed25519"
        assert base64.b64decode(entry["publicKey"]) == key.public_key
        assert entry["public_key_pem"] == public_key_pem(key.public_key)
        assert entry["deployedAt"].endswith("Z")
        assert entry["description"]


def test_the_signers_file_keeps_retired_keys(keyrings: Keyrings) -> None:
    before = keyrings.latest
    new = LocalSigner.fresh("chain-2").public_key
    after = changes.with_rotation(
        before, "chain-1", "chain-2", new, now=before.created_at + 1, until=before.created_at + 2
    )
    assert [s["signerId"] for s in json.loads(signers_file(after))["signers"]][:2] == ["chain-1", "chain-2"]


def test_openssl_verifies_by_the_pem(tmp_path: Path) -> None:
    signer = LocalSigner.fresh("k")
    (tmp_path / "key.pem").write_text(public_key_pem(signer.public_key))
    (tmp_path / "message").write_bytes(b"message")
    (tmp_path / "signature").write_bytes(signer.sign(b"message"))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin", "-in", "message"]
    subprocess.run([*command, "-sigfile", "signature"], cwd=tmp_path, check=True, capture_output=True)


def test_the_first_keyring_knows_everybody_and_their_roles(keyrings: Keyrings) -> None:
    keyring = keyrings.latest
    assert keyring.version == 1
    assert set(key_plan(people=True)) == set(keyring.keys)
    assert keyring.holders("approver") == tuple(f"approver-{n}" for n in range(1, 6))
    assert keyring.roles == {role: frozenset(events) for role, events in ROLES.items()}
    assert {p.id for p in keyring.principals.values() if p.counted} == {
        "trainer", "registry", "promoter", "canary", "drift", "indexer"
    }  # fmt: skip


def test_every_private_key_is_there_and_fits(keyrings: Keyrings, signer: SignerOf) -> None:
    for key in keyrings.latest.keys.values():
        assert signer(key.id).public_key == key.public_key
    for key_id, public_key in keyrings.latest.roots.keys.items():
        assert signer(key_id).public_key == public_key


def test_keys_are_made_once(tmp_path: Path) -> None:
    init_keys(tmp_path / "keys")
    before = {path: path.read_bytes() for path in (tmp_path / "keys").rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match="not empty"):
        init_keys(tmp_path / "keys")
    assert {path: path.read_bytes() for path in before} == before


def test_production_keys_are_root_keys_alone(tmp_path: Path) -> None:
    kms = {key_id: LocalSigner.fresh(key_id) for key_id in key_plan(people=False)}
    public = {key_id: signer.public_key for key_id, signer in kms.items()}
    made = init_production_keys(tmp_path / "keys", public, kms["audit-1"])
    assert sorted(p.stem for p in (tmp_path / "keys" / "private").iterdir()) == ["root-1", "root-2", "root-3"]
    keyring = load_keyrings(tmp_path / "keys").latest
    assert keyring == made.keyring
    assert "approver-1" not in keyring.principals
    assert {key.id: key.public_key for key in keyring.keys.values()} == public
    with pytest.raises(ConfigurationError, match="drift-1"):
        init_production_keys(tmp_path / "other", {k: v for k, v in public.items() if k != "drift-1"}, kms["audit-1"])
    with pytest.raises(ConfigurationError, match="extra-1"):
        init_production_keys(tmp_path / "other", public | {"extra-1": bytes(32)}, kms["audit-1"])
    assert not (tmp_path / "other").exists()


def test_a_keyring_holds_hundreds_of_keys_in_one_event(keyrings: Keyrings, signer: SignerOf) -> None:
    keyring = keyrings.latest
    keys = dict(keyring.keys)
    for number in range(200):
        key = replace(keys["orchestrator-1"], id=f"ci-{number}", public_key=LocalSigner.fresh("x").public_key)
        keys[key.id] = key
    text = sign_keyring(replace(keyring, version=2, keys=keys), [signer("root-1"), signer("root-2")])
    assert len(text.encode()) < 48 * 1024
