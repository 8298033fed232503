"""Which key a process uses for what: from settings to open signers.

Order for a service: AI_INFRA_SERVICE_KEY; the HTTP adapter (AI_INFRA_KMS_ENDPOINT); outside production, its file in
the keys directory; AI_INFRA_SIGNER_KEY_B64. A client (orchestrator, person) has its own key first and the directory
last. In production no private key is ever read from the keys directory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ai_infra.errors import ConfigurationError
from ai_infra.trust.ed25519 import read_private_key
from ai_infra.trust.keyring import EVENTS, Keyring, Roots
from ai_infra.trust.keyring_document import read_roots
from ai_infra.trust.keyring_files import latest_keyring, private_key_path
from ai_infra.trust.signers import LocalSigner, Signer, open_signer

if TYPE_CHECKING:
    from ai_infra.settings import Settings

_AWS_KEY = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}|alias/[A-Za-z0-9/_-]+")


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
    """The key that signs a service's delegations. `keyring` says which public key to expect; without one, the newest
    in the keys directory does. Raises ConfigurationError, SigningUnavailable."""
    keys = settings.keys
    key_id = keys.service_key_id or f"{service}-1"
    if keys.service_key is not None:
        return _open(settings, keys.service_key, key_id, EVENTS, keyring)
    if settings.kms.adapter_endpoint is not None:
        return _open(settings, adapter_uri(settings), keys.service_key_id or keys.signer_id or key_id, EVENTS, keyring)
    if (local := _in_directory(settings, key_id)) is not None:
        return local
    if (own := _own_key(settings)) is not None:
        return own
    if settings.guards.dev_allow_ephemeral:
        return LocalSigner.fresh(key_id)
    raise ConfigurationError(
        f"{service} has no key. Set AI_INFRA_SERVICE_KEY to its URI, or (outside production) AI_INFRA_KEYS_DIR to a "
        f"directory that `ai-infra keys init` wrote, with private/{key_id}.key in it."
    )


def open_client_signer(settings: Settings, key_id: str | None = None, keyring: Keyring | None = None) -> Signer:
    """The key of an orchestrator or a person. `key_id` asks for one key of the keys directory by name."""
    keys = settings.keys
    if key_id is not None and key_id != keys.signer_id:
        if (local := _in_directory(settings, key_id)) is not None:
            return local
        raise ConfigurationError(
            f"There is no private key {key_id}. Expected private/{key_id}.key in AI_INFRA_KEYS_DIR "
            "(not in production), or AI_INFRA_SIGNER_ID and its key."
        )
    if (own := _own_key(settings)) is not None:
        return own
    if keys.service_key is not None and (keys.service_key_id or keys.signer_id):
        return _open(settings, keys.service_key, str(keys.service_key_id or keys.signer_id), EVENTS, keyring)
    if settings.kms.adapter_endpoint is not None and keys.signer_id is not None:
        return _open(settings, adapter_uri(settings), keys.signer_id, EVENTS, keyring)
    if (local := _in_directory(settings, "orchestrator-1")) is not None:
        return local
    raise ConfigurationError(
        "No key to sign with. Set AI_INFRA_SIGNER_KEY_B64 and AI_INFRA_SIGNER_ID; for the stack on this machine, "
        'run: eval "$(ai-infra dev env)"'
    )


def open_signer_for(settings: Settings, event: str, keyring: Keyring) -> Signer:
    """A key at hand that may say `event` by this keyring: the client's own, else one of the keys directory."""
    own = _own_key(settings)
    candidates = [own.key_id] if own is not None else []
    directory = settings.keys.dir
    if directory is not None and not settings.guards.production:
        candidates += sorted(path.stem for path in (directory / "private").glob("*.key"))
    for key_id in candidates:
        principal = keyring.principal_of(key_id)
        if principal is None or key_id in keyring.revocations or event not in keyring.events_of(principal.id):
            continue
        return open_client_signer(settings, key_id, keyring)
    if settings.keys.service_key is not None or settings.kms.adapter_endpoint is not None:
        return open_client_signer(settings, None, keyring)
    raise ConfigurationError(
        f"No key at hand may say {event}. Use the key of somebody with a role for it: "
        "AI_INFRA_SIGNER_KEY_B64 and AI_INFRA_SIGNER_ID (`ai-infra keys list` shows who that is)."
    )


def open_audit_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """Signs checkpoints and the chain key's certificate."""
    return _open_named(settings, settings.keys.audit, settings.keys.audit_id, "AUDIT_SIGNING_KMS_KEY_ID", keyring)


def open_manifest_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """The registry's signature over a manifest."""
    return _open_named(
        settings, settings.keys.manifest, settings.keys.manifest_id, "MANIFEST_SIGNING_KMS_KEY_ID", keyring
    )


def open_promotion_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """Signs promotion decisions."""
    return _open_named(settings, settings.keys.promotion, settings.keys.promotion_id, "AI_INFRA_PROMOTION_KEY", keyring)


def open_chain_signer(settings: Settings, keyring: Keyring | None = None) -> Signer:
    """Signs the rows of the Kernel's chain."""
    return _open_named(settings, settings.keys.chain, settings.keys.chain_id, "AI_INFRA_CHAIN_KEY", keyring)


def _open_named(settings: Settings, value: str | None, key_id: str, name: str, keyring: Keyring | None) -> Signer:
    if value is not None:
        return _open(settings, value, key_id, None, keyring)
    if (local := _in_directory(settings, key_id)) is not None:
        return local
    if settings.guards.dev_allow_ephemeral:
        return LocalSigner.fresh(key_id)
    raise ConfigurationError(
        f"The key {key_id} is not configured. Set {name} to its URI or ARN, or (outside production) "
        f"AI_INFRA_KEYS_DIR to a directory with private/{key_id}.key in it."
    )


def _open(settings: Settings, value: str, key_id: str, use: str | None, keyring: Keyring | None) -> Signer:
    if keyring is None and settings.keys.dir is not None:
        keyring = latest_keyring(settings.keys.dir)
    key = keyring.keys.get(key_id) if keyring is not None else None
    if keyring is not None and (key is None or (use is not None and key.use != use)):
        raise ConfigurationError(
            f"The keyring (version {keyring.version}) has no key {key_id}. Add it with `ai-infra keys new`, or set "
            "the id under which it is there."
        )
    return open_signer(
        key_uri(value, settings),
        key_id=key_id,
        settings=settings,
        expected_public_key=key.public_key if key is not None else None,
    )


def _own_key(settings: Settings) -> LocalSigner | None:
    keys = settings.keys
    if keys.signer_key_b64 is None:
        return None
    if keys.signer_id is None:
        raise ConfigurationError("AI_INFRA_SIGNER_KEY_B64 is set without AI_INFRA_SIGNER_ID, the key's id.")
    seed = read_private_key(keys.signer_key_b64.get_secret_value(), "AI_INFRA_SIGNER_KEY_B64")
    return LocalSigner(keys.signer_id, seed)


def _in_directory(settings: Settings, key_id: str) -> Signer | None:
    directory = settings.keys.dir
    if directory is None or settings.guards.production or settings.guards.require_kms:
        return None
    path = private_key_path(directory, key_id)
    if not path.is_file():
        return None
    return open_signer(f"file:{path}", key_id=key_id, settings=settings)
