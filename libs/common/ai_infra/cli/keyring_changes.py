"""How a keys command changes the keyring: root keys at hand, content, signature, file, announcement, in that order.

Before anything is made it is clear that enough root keys are at hand, so a change that can't be signed leaves no
half-made key behind. A version that was written and could not be published is published later (`keys publish`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ai_infra.cli.output import note, progress, show
from ai_infra.errors import ConfigurationError, UnavailableError
from ai_infra.settings import Settings, load_settings
from ai_infra.trust import changes
from ai_infra.trust.ed25519 import new_seed, public_of, read_public_key
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyring_files import latest_keyring, make_wrapped_key, private_key_path
from ai_infra.trust.open import key_uri, open_audit_signer, open_root_signers
from ai_infra.trust.signers import Signer, open_signer, write_private_key_file


def commit(
    settings: Settings,
    where: Path,
    before: Keyring,
    change: Callable[[], Keyring],
    *,
    root: list[str] | None,
    publish: bool,
    reason: str,
    json: bool,
) -> None:
    """Sign, write and publish the version that `change` makes of `before`."""
    here = with_directory(settings, where)
    given = pairs(root, "--root")
    # Before anything is made: a change that can't be signed must leave no half-made key behind.
    at_hand = open_root_signers(here, before, given)
    if len({s.public_key for s in at_hand if s.public_key in before.roots.keys.values()}) < before.roots.threshold:
        raise ConfigurationError(
            f"A new keyring takes {before.roots.threshold} of the root keys {', '.join(before.roots.keys)}. "
            "Bring them with --root ID=URI (e.g. --root root-1=file:/media/usb/root-1.key)."
        )
    content = change()
    signers: list[Signer] = list(at_hand)
    known = {signer.key_id for signer in signers}
    signers += [s for s in open_root_signers(here, content, given) if s.key_id not in known]
    after = changes.publish_next(where, before, content, signers)
    published = False
    if publish and settings.kafka.configured:
        try:
            publish_keyrings(here, after.text, reason)
            published = True
        except UnavailableError as error:
            note(f"The new keyring is written but not published: {error} Then run `ai-infra keys publish`.")
            raise
    show(
        {"version": after.version, "sha256": after.sha256, "published": published},
        json=json,
        table=f"Keyring version {after.version} is written"
        + (" and published." if published else "; publish it with `ai-infra keys publish`."),
    )


def publish_keyrings(settings: Settings, text: str | None, reason: str) -> int:
    """Publish one keyring, or all of the directory; returns the newest version published."""
    from ai_infra.bus.announce import publish_keyring

    with progress("publishing the keyring"):
        return publish_keyring(settings, text, reason)


def key_material(
    settings: Settings, where: Path, key_id: str, public: str | None, uri: str | None, *, wrap: bool = False
) -> Callable[[], bytes]:
    """Gives the public key when it is called; a private key is made only then."""
    if public is not None:
        key = read_public_key(public, "--public")
        return lambda: key
    if uri is not None:
        return lambda: open_signer(key_uri(uri, settings), key_id=key_id, settings=settings).public_key
    if wrap:
        return lambda: make_wrapped_key(where, key_id, open_audit_signer(settings, latest_keyring(where)))
    if settings.guards.production:
        raise ConfigurationError(
            "In production no open private key is made here. Name the key in the KMS with --key URI, give --public, or "
            "have the audit key's KMS wrap it (--wrap)."
        )

    def make() -> bytes:
        seed = new_seed()
        write_private_key_file(private_key_path(where, key_id), seed)
        return public_of(seed)

    return make


def keys_directory(settings: Settings, directory: Path | None) -> Path:
    """The keys directory that was given, or is configured."""
    where = directory or settings.keys.dir
    if where is None:
        raise ConfigurationError(
            "Which keys? Set AI_INFRA_KEYS_DIR or give --dir; `ai-infra keys init` makes the first."
        )
    return where


def with_directory(settings: Settings, directory: Path | None) -> Settings:
    """The settings, with that keys directory."""
    if directory is None or directory == settings.keys.dir:
        return settings
    return load_settings(AI_INFRA_KEYS_DIR=directory)


def pairs(items: list[str] | None, option: str) -> dict[str, str]:
    """`NAME=VALUE` options as a dict."""
    found = {}
    for item in items or ():
        name, equals, value = item.partition("=")
        if not (name and equals and value):
            raise ConfigurationError(f"{option} takes NAME=VALUE, not {item!r}.")
        found[name] = value
    return found
