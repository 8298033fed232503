"""Changes to a keyring: each takes a version and gives the content of the next one, not yet signed.

Nothing is ever taken out of a keyring: a key is retired by an end to its life, or revoked; so what was signed before
stays verifiable. `publish_next` signs, verifies as every reader will, and writes the new version to the keys directory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ai_infra.errors import ConfigurationError
from ai_infra.trust.keyring import EVENTS, Grant, Key, Keyring, Principal, Revocation, Roots
from ai_infra.trust.keyring_document import sign_keyring, verify_keyring
from ai_infra.trust.keyring_files import write_keyring
from ai_infra.trust.signers import Signer
from ai_infra.trust.signers_file import signers_file


def with_key(keyring: Keyring, key: Key, principal: Principal | None = None) -> Keyring:
    """A new key; `principal` is whose it is, where the keyring does not have them yet."""
    if key.id in keyring.keys or key.id in keyring.roots.keys:
        raise ConfigurationError(f"The keyring has a key {key.id} already. Ids are never used twice; choose another.")
    principals = dict(keyring.principals)
    if principal is not None:
        known = principals.setdefault(principal.id, principal)
        if known.kind != principal.kind:
            raise ConfigurationError(f"{principal.id} is a {known.kind} in the keyring, not a {principal.kind}.")
    if key.use == EVENTS and key.principal not in principals:
        raise ConfigurationError(f"The keyring does not know {key.principal!r}. Say what they are with --kind.")
    return _next(replace(keyring, keys={**keyring.keys, key.id: key}, principals=principals), key.deployed_at)


def with_grant(keyring: Keyring, principal_id: str, grant: Grant, *, now: int) -> Keyring:
    """A role for a principal. Raises ConfigurationError where they have it already."""
    principal = _principal(keyring, principal_id)
    if grant.role not in keyring.roles:
        raise ConfigurationError(f"There is no role {grant.role!r}; there are {', '.join(sorted(keyring.roles))}.")
    if grant in principal.grants:
        raise ConfigurationError(f"{principal_id} has that role already, just so.")
    return _with_principal(keyring, replace(principal, grants=(*principal.grants, grant)), now)


def without_grant(keyring: Keyring, principal_id: str, role: str, *, now: int) -> Keyring:
    """Every grant of a role taken from a principal. Raises ConfigurationError where they have none."""
    principal = _principal(keyring, principal_id)
    kept = tuple(grant for grant in principal.grants if grant.role != role)
    if kept == principal.grants:
        raise ConfigurationError(f"{principal_id} does not have the role {role!r}.")
    return _with_principal(keyring, replace(principal, grants=kept), now)


def with_rotation(keyring: Keyring, old_id: str, new_id: str, public_key: bytes, *, now: int, until: int) -> Keyring:
    """A successor for a key; the old one still counts until `until` (ms), so that processes may change one by one."""
    old = keyring.keys.get(old_id)
    if old is None:
        raise _no_such_key(keyring, old_id)
    if old_id in keyring.revocations:
        raise ConfigurationError(f"The key {old_id} is revoked. Make a new one with `ai-infra keys new`.")
    if old.not_after is not None and old.not_after <= now:
        raise ConfigurationError(f"The key {old_id} has been retired already; rotate its successor.")
    retired = replace(keyring, keys={**keyring.keys, old_id: replace(old, not_after=until)})
    return with_key(
        retired, replace(old, id=new_id, public_key=public_key, not_before=None, not_after=None, deployed_at=now)
    )


def with_root_rotation(keyring: Keyring, old_id: str, new_id: str, public_key: bytes, *, now: int) -> Keyring:
    """Another root key in the place of one. The old root key is among those that must sign this version."""
    if old_id not in keyring.roots.keys:
        raise _no_such_key(keyring, old_id)
    if new_id in keyring.roots.keys or new_id in keyring.keys:
        raise ConfigurationError(f"The keyring has a key {new_id} already.")
    keys = {key_id: key for key_id, key in keyring.roots.keys.items() if key_id != old_id} | {new_id: public_key}
    return _next(replace(keyring, roots=Roots(keys, keyring.roots.threshold)), now)


def with_revocation(keyring: Keyring, key_id: str, reason: str, positions: Mapping[int, int], *, now: int) -> Keyring:
    """A key revoked. `positions`: per lane, the first log index from which its entries are void, where it is
    retroactive. Revoking again may only reach further back."""
    if key_id in keyring.roots.keys:
        raise ConfigurationError(f"{key_id} is a root key. Replace it: `ai-infra keys rotate {key_id}`.")
    if key_id not in keyring.keys:
        raise _no_such_key(keyring, key_id)
    before = keyring.revocations.get(key_id)
    if before is not None and not positions:
        raise ConfigurationError(f"The key {key_id} is revoked already: {before.reason}")
    merged = dict(before.positions) if before is not None else {}
    for lane, index in positions.items():
        merged[lane] = min(index, merged.get(lane, index))
    revocation = Revocation(key_id, before.revoked_at if before is not None else now, reason, merged)
    return _next(replace(keyring, revocations={**keyring.revocations, key_id: revocation}), now)


def publish_next(directory: Path, before: Keyring, after: Keyring, roots: Iterable[Signer]) -> Keyring:
    """Sign the next version, verify it as every reader will, and write it beside the one before.

    Raises KeyringError where too few root keys signed, KeyringConflict where somebody was quicker.
    """
    signed = verify_keyring(sign_keyring(after, roots), before)
    write_keyring(directory, signed)
    (directory / "signers.json").write_text(signers_file(signed))
    return signed


def successor_id(keyring: Keyring, key_id: str) -> str:
    """The next free id of a series: `audit-2` after `audit-1`."""
    stem, _, number = key_id.rpartition("-")
    if not stem or not number.isdigit():
        stem, number = key_id, "1"
    taken = {*keyring.keys, *keyring.roots.keys}
    following = int(number) + 1
    while f"{stem}-{following}" in taken:
        following += 1
    return f"{stem}-{following}"


def _next(keyring: Keyring, now: int) -> Keyring:
    return replace(keyring, version=keyring.version + 1, created_at=now, text="")


def _with_principal(keyring: Keyring, principal: Principal, now: int) -> Keyring:
    return _next(replace(keyring, principals={**keyring.principals, principal.id: principal}), now)


def _principal(keyring: Keyring, principal_id: str) -> Principal:
    principal = keyring.principals.get(principal_id)
    if principal is None:
        raise ConfigurationError(
            f"The keyring does not know {principal_id!r}. It knows {', '.join(sorted(keyring.principals))}; a new one "
            "comes with their first key: `ai-infra keys new KEY --principal NAME --kind person`."
        )
    return principal


def _no_such_key(keyring: Keyring, key_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"The keyring has no key {key_id!r}; it has {', '.join(sorted({*keyring.keys, *keyring.roots.keys}))}."
    )
