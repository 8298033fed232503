"""Which key is used for what, and what is refused where."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust.ed25519 import encode, public_of
from ai_infra.trust.exceptions import KeyFormatError
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring import Grant, Keyring
from ai_infra.trust.keyring_files import latest_keyring, load_keyrings, private_key_path
from ai_infra.trust.open import (
    key_uri,
    open_audit_signer,
    open_chain_signer,
    open_client_signer,
    open_manifest_signer,
    open_promotion_signer,
    open_service_signer,
    open_signer_for,
)
from ai_infra.trust.signers import LocalSigner, open_signer, read_private_key_file, write_private_key_file

SettingsOf = Callable[..., Settings]
SEED = bytes(range(32))
PKCS8 = encode(bytes.fromhex("302e020100300506032b657004220420") + SEED)
LABEL = "PRIVATE KEY"
PEM = f"-----BEGIN {LABEL}-----\n{PKCS8}\n-----END {LABEL}-----\n"
BROKEN = [
    "not base64!",
    encode(SEED[:31]),
    encode(SEED + SEED),
    PEM.replace(LABEL, f"RSA {LABEL}"),
    PEM.replace("MC4C", "MC4D"),
]
PRODUCTION = {"NODE_ENV": "production", "AI_INFRA_LOG_ORIGIN": "example.org/log"}


@pytest.mark.parametrize("form", [encode(SEED), encode(SEED) + "\n", encode(SEED + public_of(SEED)), PEM])
def test_a_private_key_is_read_in_each_form_that_people_have(
    settings_of: SettingsOf, form: str, tmp_path: Path
) -> None:
    from_environment = open_signer("env:MY_KEY", key_id="k", settings=settings_of(MY_KEY=form))
    path = tmp_path / "key"
    path.write_text(form)
    path.chmod(0o600)
    from_file = open_signer(f"file:{path}", key_id="k", settings=settings_of())
    assert from_environment.public_key == from_file.public_key == public_of(SEED)
    assert from_file.sign(b"m") == LocalSigner("k", SEED).sign(b"m")


@pytest.mark.parametrize("form", BROKEN)
def test_what_is_no_private_key_is_refused_without_showing_it(settings_of: SettingsOf, form: str) -> None:
    with pytest.raises(KeyFormatError, match="MY_KEY") as caught:
        open_signer("env:MY_KEY", key_id="k", settings=settings_of(MY_KEY=form))
    assert form.strip() not in str(caught.value)


def test_a_signer_does_not_show_its_key() -> None:
    signer = LocalSigner("k", SEED)
    assert encode(SEED) not in repr(signer)
    assert SEED.hex() not in repr(signer)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
def test_a_private_key_that_is_open_to_others_is_refused(settings_of: SettingsOf, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(encode(SEED))
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        open_signer(f"file:{path}", key_id="k", settings=settings_of())


def test_a_private_key_is_written_for_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "private" / "k.key"
    old = os.umask(0)
    try:
        write_private_key_file(path, SEED)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert read_private_key_file(path) == SEED
    with pytest.raises(ConfigurationError, match="never overwritten"):
        write_private_key_file(path, SEED)


@pytest.mark.parametrize("uri", ["env:NOT_SET", "file:/not/there", "vault:x", "", "kernel-kms:x"])
def test_a_uri_that_leads_nowhere_says_so(settings_of: SettingsOf, uri: str) -> None:
    with pytest.raises(ConfigurationError):
        open_signer(uri, key_id="k", settings=settings_of())


def test_another_key_than_the_expected_one_is_refused(settings_of: SettingsOf) -> None:
    with pytest.raises(KeyFormatError, match="not the one that the keyring names"):
        open_signer(
            "env:K",
            key_id="k",
            settings=settings_of(K=encode(SEED)),
            expected_public_key=LocalSigner.fresh("k").public_key,
        )


ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    ("value", "variables", "uri"),
    [
        ("env:X", {}, "env:X"),
        (ARN, {}, ARN),
        ("1234abcd-12ab-34cd-56ef-1234567890ab", {}, "awskms:1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("alias/audit", {}, "awskms:alias/audit"),
        ("audit", {"KMS_ENDPOINT": "https://kms"}, "kernel-kms:audit"),
        ("audit", {"AI_INFRA_KMS_ENDPOINT": "https://kms/x"}, "https+sign://kms/x"),
    ],
)
def test_a_bare_name_is_a_key_of_the_kms_that_is_configured(
    settings_of: SettingsOf, value: str, variables: dict[str, str], uri: str
) -> None:
    assert key_uri(value, settings_of(**variables)) == uri


def test_a_bare_name_without_a_kms_is_no_key(settings_of: SettingsOf) -> None:
    with pytest.raises(ConfigurationError, match="KMS_ENDPOINT"):
        key_uri("audit", settings_of())


def test_the_keys_directory_has_a_key_for_everybody(settings_of: SettingsOf, keys_directory: Path) -> None:
    settings = settings_of(AI_INFRA_KEYS_DIR=keys_directory)
    assert open_service_signer(settings, "trainer").key_id == "trainer-1"
    assert open_service_signer(settings, "registry").key_id == "registry-1"
    assert open_client_signer(settings).key_id == "orchestrator-1"
    assert open_client_signer(settings, "approver-3").key_id == "approver-3"
    opened = [f(settings) for f in (open_audit_signer, open_manifest_signer, open_promotion_signer, open_chain_signer)]
    assert [signer.key_id for signer in opened] == ["audit-1", "manifest-1", "promotion-1", "chain-1"]


def test_a_service_does_not_take_the_orchestrator_s_key_that_lies_about(
    settings_of: SettingsOf, keys_directory: Path
) -> None:
    settings = settings_of(
        AI_INFRA_KEYS_DIR=keys_directory, AI_INFRA_SIGNER_KEY_B64=encode(SEED), AI_INFRA_SIGNER_ID="orchestrator-1"
    )
    assert open_service_signer(settings, "trainer").key_id == "trainer-1"
    assert open_client_signer(settings).public_key == public_of(SEED)


def test_a_service_without_a_directory_takes_the_local_key(settings_of: SettingsOf) -> None:
    settings = settings_of(AI_INFRA_SIGNER_KEY_B64=encode(SEED), AI_INFRA_SIGNER_ID="ai-infra-dev")
    assert open_service_signer(settings, "trainer").key_id == "ai-infra-dev"
    with pytest.raises(ConfigurationError, match="AI_INFRA_SIGNER_ID"):
        open_client_signer(settings_of(AI_INFRA_SIGNER_KEY_B64=encode(SEED)))


def test_in_production_the_keys_directory_gives_no_private_key(settings_of: SettingsOf, keys_directory: Path) -> None:
    settings = settings_of(**PRODUCTION, AI_INFRA_KEYS_DIR=keys_directory)
    with pytest.raises(ConfigurationError, match="AI_INFRA_SERVICE_KEY"):
        open_service_signer(settings, "trainer")
    with pytest.raises(ConfigurationError, match="AUDIT_SIGNING_KMS_KEY_ID"):
        open_audit_signer(settings)
    with pytest.raises(ConfigurationError):
        open_client_signer(settings, "approver-1")


def test_require_kms_refuses_every_local_key(settings_of: SettingsOf, keys_directory: Path) -> None:
    settings = settings_of(REQUIRE_KMS="true", AI_INFRA_KEYS_DIR=keys_directory, DEV_ALLOW_EPHEMERAL="true")
    for opened in (open_audit_signer, open_manifest_signer, lambda s: open_service_signer(s, "trainer")):
        with pytest.raises(ConfigurationError):
            opened(settings)
    path = private_key_path(keys_directory, "trainer-1")
    with pytest.raises(ConfigurationError, match="REQUIRE_KMS"):
        open_signer(f"file:{path}", key_id="trainer-1", settings=settings)


def test_an_ephemeral_key_is_made_only_where_that_is_allowed(settings_of: SettingsOf) -> None:
    assert open_manifest_signer(settings_of(DEV_ALLOW_EPHEMERAL="true")).key_id == "manifest-1"
    with pytest.raises(ConfigurationError):
        open_manifest_signer(settings_of())


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A keys directory that this test may change."""
    directory = tmp_path / "own"
    init_keys(directory)
    return directory


def rotated(directory: Path, key_id: str) -> LocalSigner:
    from ai_infra.trust import changes

    before = load_keyrings(directory).latest
    new = changes.successor_id(before, key_id)
    seed = os.urandom(32)
    write_private_key_file(private_key_path(directory, new), seed)
    draft = changes.with_rotation(
        before, key_id, new, public_of(seed), now=before.created_at + 1, until=before.created_at + 10
    )
    changes.publish_next(directory, before, draft, roots(directory))
    return LocalSigner(new, seed)


def roots(directory: Path) -> list[LocalSigner]:
    return [LocalSigner(k, read_private_key_file(private_key_path(directory, k))) for k in ("root-1", "root-2")]


def test_after_a_rotation_the_newest_key_is_used(settings_of: SettingsOf, own: Path) -> None:
    settings = settings_of(AI_INFRA_KEYS_DIR=own)
    rotated(own, "audit-1")
    rotated(own, "trainer-1")
    assert open_audit_signer(settings).key_id == "audit-2"
    assert open_service_signer(settings, "trainer").key_id == "trainer-2"
    assert open_audit_signer(settings_of(AI_INFRA_KEYS_DIR=own, AI_INFRA_AUDIT_KEY_ID="audit-1")).key_id == "audit-1"


def test_a_key_by_uri_has_the_id_that_the_keyring_gives_its_public_key(settings_of: SettingsOf, own: Path) -> None:
    old = encode(read_private_key_file(private_key_path(own, "audit-1")))
    rotated(own, "audit-1")
    settings = settings_of(AI_INFRA_KEYS_DIR=own, AUDIT_SIGNING_KMS_KEY_ID="env:OLD", OLD=old)
    assert open_audit_signer(settings).key_id == "audit-1"
    stranger = settings_of(AI_INFRA_KEYS_DIR=own, AUDIT_SIGNING_KMS_KEY_ID="env:NEW", NEW=encode(SEED))
    with pytest.raises(KeyFormatError, match="none of the audit keys"):
        open_audit_signer(stranger)


def test_a_key_at_hand_is_found_that_may_say_an_event_of_everything(settings_of: SettingsOf, own: Path) -> None:
    from ai_infra.trust import changes

    before = load_keyrings(own).latest
    narrow = changes.with_grant(before, "orchestrator", Grant("operator", ("fraud-*",)), now=1)
    keyring: Keyring = changes.publish_next(own, before, narrow, roots(own))
    private = encode(read_private_key_file(private_key_path(own, "orchestrator-1")))
    settings = settings_of(AI_INFRA_KEYS_DIR=own, AI_INFRA_SIGNER_KEY_B64=private, AI_INFRA_SIGNER_ID="orchestrator-1")
    assert open_signer_for(settings, "signer.changed", keyring).key_id == "operator-1"
    assert open_signer_for(settings, "artifact.revoked", keyring, model="fraud-eu").key_id == "orchestrator-1"
    assert open_signer_for(settings, "artifact.revoked", keyring, model="digits").key_id == "operator-1"
    with pytest.raises(ConfigurationError, match=r"may say deployment\.changed"):
        open_signer_for(settings_of(), "deployment.changed", keyring)


def test_a_directory_without_a_keyring_has_none(tmp_path: Path) -> None:
    assert latest_keyring(tmp_path) is None
    with pytest.raises(ConfigurationError, match=r"roots\.json"):
        load_keyrings(tmp_path)
