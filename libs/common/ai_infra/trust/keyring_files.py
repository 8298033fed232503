"""The keys directory: what `ai-infra keys init` writes and the other keys commands change.

roots.json               pinned root keys; what every process needs (AI_INFRA_TRUST_ROOTS)
keyring.v<N>.json        signed keyrings, one file a version, never rewritten
chain-1.certificate.json the audit key's word for the chain key
signers.json             signers file for the Kernel's verifiers
private/<key id>.key     private keys; never read in production
wrapped/<key id>.json    private keys that only the audit key's KMS opens
"""

from __future__ import annotations

import re
from pathlib import Path

from ai_infra.errors import ConfigurationError
from ai_infra.trust.ed25519 import new_seed, public_of
from ai_infra.trust.exceptions import KeyringConflict
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra.trust.keyring_document import read_roots, roots_text
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.signers import Signer
from ai_infra.trust.wrapped import wrap

_VERSION = re.compile(r"keyring\.v([1-9][0-9]*)\.json")


def keyring_texts(directory: Path) -> dict[int, str]:
    """Signed keyrings in a directory, by version."""
    found = {}
    for path in directory.glob("keyring.v*.json"):
        if match := _VERSION.fullmatch(path.name):
            found[int(match[1])] = path.read_text().rstrip("\n")
    return dict(sorted(found.items()))


def load_keyrings(directory: Path) -> Keyrings:
    """All keyrings of a directory, verified from its roots on. Raises ConfigurationError, KeyringError."""
    keyrings = Keyrings(read_roots(directory / "roots.json"))
    for text in keyring_texts(directory).values():
        keyrings.accept(text)
    if not keyrings.latest_version:
        raise ConfigurationError(f"There is no keyring in {directory}. Make the first with `ai-infra keys init`.")
    return keyrings


def latest_keyring(directory: Path) -> Keyring | None:
    """The newest verified keyring of a directory; None where it holds none."""
    if not (directory / "roots.json").is_file() or not keyring_texts(directory):
        return None
    return load_keyrings(directory).latest


def write_keyring(directory: Path, keyring: Keyring) -> Path:
    """Adds a version. Raises KeyringConflict where somebody else has written that version."""
    path = directory / f"keyring.v{keyring.version}.json"
    try:
        with path.open("x") as file:
            file.write(keyring.text + "\n")
    except FileExistsError:
        raise KeyringConflict(
            f"{path} exists already: somebody else has changed the keyring. Look at `ai-infra keys list` and try again."
        ) from None
    return path


def write_roots(directory: Path, roots: Roots) -> Path:
    """Pins the first roots."""
    path = directory / "roots.json"
    try:
        with path.open("x") as file:
            file.write(roots_text(roots))
    except FileExistsError:
        raise ConfigurationError(
            f"{path} exists already. Keys are made once; to change them: `ai-infra keys`."
        ) from None
    return path


def private_key_path(directory: Path, key_id: str) -> Path:
    """Where a private key is kept."""
    return directory / "private" / f"{key_id}.key"


def wrapped_key_path(directory: Path, key_id: str) -> Path:
    """Where a wrapped private key is kept."""
    return directory / "wrapped" / f"{key_id}.json"


def make_wrapped_key(directory: Path, key_id: str, kms: Signer) -> bytes:
    """Makes a private key, keeps it wrapped by `kms`, and returns its public half."""
    path = wrapped_key_path(directory, key_id)
    seed = new_seed()
    text = wrap(key_id, seed, kms)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already; a private key is never overwritten.") from None
    return public_of(seed)
