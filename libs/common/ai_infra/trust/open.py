"""Which key a process uses for what: from settings to open signers.

Order for a service: AI_INFRA_SERVICE_KEY; the HTTP adapter (AI_INFRA_KMS_ENDPOINT); outside production, its file in
the keys directory; AI_INFRA_SIGNER_KEY_B64. A client (orchestrator, person) has its own key first and the directory
last. In production no private key is ever read from the keys directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust.ed25519 import read_private_key
from ai_infra.trust.exceptions import KeyFormatError
from ai_infra.trust.keyring import AUDIT, CHAIN, EVENTS, MANIFEST, PROMOTION, Key, Keyring, Roots
from ai_infra.trust.keyring_document import read_roots
from ai_infra.trust.keyring_files import latest_keyring, private_key_path
from ai_infra.trust.roles import WIDE
from ai_infra.trust.signers import ADAPTER_SCHEMES, LocalSigner, Signer, open_signer
from ai_infra.trust.wrapped import SCHEME, unwrap

# What a probe signs: no document has this form.
PROBE: Final = b"ai-infra: does this key sign?"
_AWS_KEY: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}|alias/[A-Za-z0-9/_-]+")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which key is wanted: its use, whose it is (None: anybody's), its id where one was asked for, else its first."""

    use: str
    principal: str | None
    key_id: str | None
    first: str

    def among(self, keyring: Keyring) -> list[Key]:
        """The keys that it may be, the newest first."""
        found = [
            key
            for key in keyring.keys.values()
            if key.use == self.use
            and key.id not in keyring.revocations
            and (self.principal is None or key.principal == self.principal)
            and (self.key_id is None or key.id == self.key_id)
        ]
        return sorted(found, key=lambda key: (-key.deployed_at, key.id))


def key_uri(value: str, settings: Settings) -> str:
    """A key as a URI. A bare name is a key of the Kernel's KMS or of AWS, by what is configured and how it looks."""
    if ":" in value:
        return value
    if _AWS_KEY.fullmatch(value):
        return f"awskms:{value}"
    if settings.kms.endpoint is not None:
        return f"kernel-kms:{value}"
    if settings.kms.adapter_endpoint is not None:
        return adapter_uri(settings)
    raise ConfigurationError(
        f"The key {value!r} is no URI, and neither KMS_ENDPOINT nor AI_INFRA_KMS_ENDPOINT is set. "
        "Expected env:NAME, file:PATH, https+sign://HOST, kernel-kms:ID, awskms:ARN, or an ARN."
    )


def adapter_uri(settings: Settings) -> str:
    """URI of the HTTP adapter at AI_INFRA_KMS_ENDPOINT."""
    endpoint = settings.kms.adapter_endpoint
    if endpoint is None or not endpoint.startswith(("https://", "http://")):
        raise ConfigurationError("AI_INFRA_KMS_ENDPOINT must be an http:// or https:// address.")
    scheme, _, rest = endpoint.partition(":")
    return f"{scheme}+sign:{rest}"


def load_roots(settings: Settings) -> Roots:
    """The pinned root keys. Raises ConfigurationError where there are none."""
    return read_roots(settings.keys.roots)


def open_service_signer(settings: Settings, service: str, keyring: Keyring | None = None) -> Signer:
    """The key that signs a service's delegations. `keyring` says which public keys count; without one, the newest in
    the keys directory does. Raises ConfigurationError, SigningUnavailable."""
    keys, wanted = settings.keys, Wanted(EVENTS, service, settings.keys.service_key_id, f"{service}-1")
    if keys.service_key is not None:
        return _open(settings, key_uri(keys.service_key, settings), wanted, keyring)
    if settings.kms.adapter_endpoint is not None:
        return _open(settings, adapter_uri(settings), replace(wanted, key_id=wanted.key_id or keys.signer_id), keyring)
    if (local := _in_directory(settings, wanted, keyring)) is not None:
        return local
    if (own := _own_key(settings)) is not None:
        return own
    if settings.guards.dev_allow_ephemeral and not settings.guards.require_kms:
        return LocalSigner.fresh(wanted.first)
    raise ConfigurationError(
        f"{service} has no key. Set AI_INFRA_SERVICE_KEY to its URI, or (outside production) AI_INFRA_KEYS_DIR to a "
        f"directory that `ai-infra keys init` wrote, with private/{wanted.first}.key in it."
    )


def open_client_signer(settings: Settings, key_id: str | None = None, keyring: Keyring | None = None) -> Signer:
    """The key of an orchestrator or a person. `key_id` asks for one key of the keys directory by name."""
    keys = settings.keys
    if key_id is not None and key_id != keys.signer_id:
        if (local := _private_key(settings, key_id)) is not None:
            return local
        raise ConfigurationError(
            f"There is no private key {key_id}. Expected private/{key_id}.key in AI_INFRA_KEYS_DIR "
            "(not in production), or AI_INFRA_SIGNER_ID and its key."
        )
    if (own := _own_key(settings)) is not None:
        return own
    wanted = Wanted(EVENTS, None, keys.service_key_id or keys.signer_id, "orchestrator-1")
    if keys.service_key is not None:
        return _open(settings, key_uri(keys.service_key, settings), wanted, keyring)
    if settings.kms.adapter_endpoint is not None:
        return _open(settings, adapter_uri(settings), wanted, keyring)
    if (local := _in_directory(settings, replace(wanted, principal="orchestrator"), keyring)) is not None:
        return local
    raise ConfigurationError(
        "No key to sign with. Set AI_INFRA_SIGNER_KEY_B64 and AI_INFRA_SIGNER_ID; for the stack on this machine, "
        'run: eval "$(ai-infra dev env)"'
    )


def open_signer_for(
    settings: Settings, event: str, keyring: Keyring, *, model: str | None = None, environment: str | None = None
) -> Signer:
    """A key at hand that may say `event` (of that model, there) by this keyring: the client's own, else one of the
    keys directory. Raises ConfigurationError where there is none."""
    own = _own_key(settings)
    candidates = [own.key_id] if own is not None else []
    directory = settings.keys.dir
    if directory is not None and not settings.guards.production:
        candidates += sorted(path.stem for path in (directory / "private").glob("*.key"))
    for key_id in candidates:
        principal = keyring.principal_of(key_id)
        if principal is None or key_id in keyring.revocations:
            continue
        wide = model is None and event in WIDE
        if not (
            keyring.may_say_wide(principal, event)
            if wide
            else keyring.may_say(principal, event, model=model, environment=environment)
        ):
            continue
        return open_client_signer(settings, key_id, keyring)
    if own is None and (settings.keys.service_key is not None or settings.kms.adapter_endpoint is not None):
        return open_client_signer(settings, None, keyring)
    raise ConfigurationError(
        f"No key at hand may say {event}. Use the key of somebody with a role for it: "
        "AI_INFRA_SIGNER_KEY_B64 and AI_INFRA_SIGNER_ID (`ai-infra keys list` shows who that is)."
    )


def open_audit_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """Signs checkpoints and the chain key's certificate."""
    wanted = Wanted(AUDIT, None, settings.keys.audit_id, "audit-1")
    return _open_named(settings, settings.keys.audit, "AUDIT_SIGNING_KMS_KEY_ID", wanted, keyring)


def open_manifest_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """The registry's signature over a manifest."""
    wanted = Wanted(MANIFEST, None, settings.keys.manifest_id, "manifest-1")
    return _open_named(settings, settings.keys.manifest, "MANIFEST_SIGNING_KMS_KEY_ID", wanted, keyring)


def open_promotion_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """Signs promotion decisions."""
    wanted = Wanted(PROMOTION, None, settings.keys.promotion_id, "promotion-1")
    return _open_named(settings, settings.keys.promotion, "AI_INFRA_PROMOTION_KEY", wanted, keyring)


def open_chain_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """Signs the rows of the Kernel's chain."""
    wanted = Wanted(CHAIN, None, settings.keys.chain_id, "chain-1")
    return _open_named(settings, settings.keys.chain, "AI_INFRA_CHAIN_KEY", wanted, keyring)


def open_root_signers(settings: Settings, keyring: Keyring, given: Mapping[str, str]) -> list[Signer]:
    """Root keys that can sign the next keyring: those given by URI, and those in the keys directory (not in
    production, where root keys are offline and brought for the occasion)."""
    signers: list[Signer] = [
        open_signer(key_uri(uri, settings), key_id=key_id, settings=settings) for key_id, uri in given.items()
    ]
    for key_id in keyring.roots.keys:
        if key_id not in given and (local := _private_key(settings, key_id)) is not None:
            signers.append(local)
    return signers


def _open_named(settings: Settings, value: str | None, name: str, wanted: Wanted, keyring: Keyring | None) -> Signer:
    if value is not None:
        return _open(settings, key_uri(value, settings), wanted, keyring)
    if (local := _in_directory(settings, wanted, keyring)) is not None:
        return local
    if settings.guards.dev_allow_ephemeral and not settings.guards.require_kms:
        return LocalSigner.fresh(wanted.first)
    raise ConfigurationError(
        f"The {wanted.use} key is not configured. Set {name} to its URI or ARN, or (outside production) "
        f"AI_INFRA_KEYS_DIR to a directory with private/{wanted.first}.key in it."
    )


def _open(settings: Settings, uri: str, wanted: Wanted, keyring: Keyring | None) -> Signer:
    """The key behind a URI, checked against the keyring, under the id that it has there.

    A key that tells its public key is found by that; so a process with the old key's URI starts during a rotation.
    """
    if keyring is None and settings.keys.dir is not None:
        keyring = latest_keyring(settings.keys.dir)
    if keyring is None:
        return _probed(_open_uri(settings, uri, wanted.key_id or wanted.first), settings)
    candidates = wanted.among(keyring)
    if not candidates:
        raise ConfigurationError(
            f"The keyring (version {keyring.version}) has no {wanted.use} key "
            f"{wanted.key_id or wanted.first} that is not revoked. Add it with `ai-infra keys new`, or correct its id."
        )
    if uri.partition(":")[0] in ADAPTER_SCHEMES or wanted.key_id is not None:
        key = candidates[0]
        return _probed(_open_uri(settings, uri, key.id, key.public_key, keyring), settings)
    signer = _open_uri(settings, uri, candidates[0].id, keyring=keyring)
    named = next((key for key in candidates if key.public_key == signer.public_key), None)
    if named is None:
        raise KeyFormatError(
            f"The key behind {uri.partition(':')[0]}: is none of the {wanted.use} keys in the keyring "
            f"(version {keyring.version}): {', '.join(key.id for key in candidates)}. Name one of those, or bring this "
            "one in with `ai-infra keys new` or `keys rotate`."
        )
    signer.key_id = named.id
    return _probed(signer, settings)


def _open_uri(
    settings: Settings, uri: str, key_id: str, expected: bytes | None = None, keyring: Keyring | None = None
) -> Signer:
    if uri.partition(":")[0] != SCHEME:
        return open_signer(uri, key_id=key_id, settings=settings, expected_public_key=expected)
    if settings.keys.audit is not None and key_uri(settings.keys.audit, settings).startswith(f"{SCHEME}:"):
        raise ConfigurationError("The audit key opens wrapped keys, so it can't be one itself.")
    signer = unwrap(Path(uri.partition(":")[2]), open_audit_signer(settings, keyring))
    if expected is not None and signer.public_key != expected:
        raise KeyFormatError(f"The wrapped key {uri} is not the one that the keyring names {key_id}.")
    signer.key_id = key_id
    return signer


def _probed(signer: Signer, settings: Settings) -> Signer:
    """With REQUIRE_KMS a process starts only when its KMS signs, so one signature is asked for, over a fixed text."""
    if settings.guards.require_kms:
        signer.sign(PROBE)
    return signer


def _in_directory(settings: Settings, wanted: Wanted, keyring: Keyring | None) -> Signer | None:
    """The newest such key whose private half is in the keys directory."""
    directory = settings.keys.dir
    if directory is None or settings.guards.production or settings.guards.require_kms:
        return None
    keyring = keyring or latest_keyring(directory)
    ids = [key.id for key in wanted.among(keyring)] if keyring is not None else [wanted.key_id or wanted.first]
    return next((signer for key_id in ids if (signer := _private_key(settings, key_id)) is not None), None)


def _private_key(settings: Settings, key_id: str) -> Signer | None:
    directory = settings.keys.dir
    if directory is None or settings.guards.production or settings.guards.require_kms:
        return None
    path = private_key_path(directory, key_id)
    return open_signer(f"file:{path}", key_id=key_id, settings=settings) if path.is_file() else None


def _own_key(settings: Settings) -> LocalSigner | None:
    keys = settings.keys
    if keys.signer_key_b64 is None:
        return None
    if keys.signer_id is None:
        raise ConfigurationError("AI_INFRA_SIGNER_KEY_B64 is set without AI_INFRA_SIGNER_ID, the key's id.")
    seed = read_private_key(keys.signer_key_b64.get_secret_value(), "AI_INFRA_SIGNER_KEY_B64")
    return LocalSigner(keys.signer_id, seed)
