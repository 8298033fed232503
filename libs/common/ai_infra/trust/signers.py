"""A key by URI, and signatures by it.

    env:NAME            private key in a variable (base64)
    file:/path          private key in a file that others can't read
    https+sign://host   HTTP signing adapter: POST /sign            (http+sign: outside production)
    kernel-kms:ID       the Kernel's KMS at KMS_ENDPOINT: POST /signData
    awskms:ARN          AWS KMS; a bare arn:aws:kms:... means the same
    wrapped:/path       private key that the audit key's KMS opens (`ai_infra.trust.wrapped`)

Whatever signs, a signature is verified against the expected public key before it is returned. Signers of services have
time-outs and bounded retries inside. Private keys never show in errors, logs or representations.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from time import perf_counter
from typing import Final, Protocol

from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.trust.ed25519 import (
    MAX_MESSAGE_BYTES,
    encode,
    new_seed,
    public_of,
    read_private_key,
    secret_of,
    sign,
    verifies,
)
from ai_infra.trust.exceptions import KeyFormatError, SigningRefused, SigningUnavailable, WrongSignature

ADAPTER_SCHEMES: Final = ("https+sign", "http+sign")


class Signer(Protocol):
    """An Ed25519 key that can sign messages of at most 4,096 bytes.

    `key_id`: its id in the keyring. `public_key`: 32 raw bytes.
    """

    key_id: str
    public_key: bytes

    def sign(self, message: bytes) -> bytes:
        """64-byte signature, verified against `public_key`.

        Raises SigningUnavailable, SigningRefused, WrongSignature.
        """
        ...


class LocalSigner:
    """A private key in this process's memory."""

    __slots__ = ("_secret", "key_id", "public_key")

    def __init__(self, key_id: str, seed: bytes) -> None:
        self.key_id = key_id
        self.public_key = public_of(seed)
        self._secret = secret_of(seed)

    @classmethod
    def fresh(cls, key_id: str) -> LocalSigner:
        """A new key that nobody else has."""
        return cls(key_id, new_seed())

    def sign(self, message: bytes) -> bytes:
        check_size(message)
        return sign(message, self._secret)

    def __repr__(self) -> str:
        return f"LocalSigner({self.key_id!r})"


class MeasuredSigner:
    """A long-lived key whose signatures are timed, and whose failures are counted."""

    __slots__ = ("_scheme", "_seconds", "_signer", "key_id", "public_key")

    def __init__(self, signer: Signer, scheme: str) -> None:
        self._signer = signer
        self._scheme = scheme
        self._seconds = metrics.TRUST_SIGN.labels(scheme)  # looked up once: a local key signs in 18 µs
        self.key_id = signer.key_id
        self.public_key = signer.public_key

    def sign(self, message: bytes) -> bytes:
        began = perf_counter()
        try:
            return self._signer.sign(message)
        except AiInfraError:
            metrics.SIGN_ERRORS.labels(self._scheme, self.key_id).inc()
            raise
        finally:
            self._seconds.observe(perf_counter() - began)

    def __repr__(self) -> str:
        return f"MeasuredSigner({self.key_id!r}, {self._scheme})"


def check_size(message: bytes) -> None:
    """Raise ValueError for a message that a KMS could not sign: a bug of the caller."""
    if len(message) > MAX_MESSAGE_BYTES:
        raise ValueError(f"A message to sign has at most {MAX_MESSAGE_BYTES} bytes, this one {len(message)}.")


def checked(signature: bytes, message: bytes, public_key: bytes, what: str) -> bytes:
    """The signature itself, once it verifies; raises WrongSignature."""
    if not verifies(message, signature, public_key):
        raise WrongSignature(
            f"{what} returned a signature that does not verify against the expected public key. "
            "Either the key there is another one than the keyring names, or the service is not to be trusted."
        )
    return signature


def open_signer(uri: str, *, key_id: str, settings: Settings, expected_public_key: bytes | None = None) -> Signer:
    """The signer that a URI names.

    `expected_public_key`: what the keyring says; the key is refused where it is another one. A KMS that can tell its
    public key is asked at once, so that opening shows whether it answers. Raises ConfigurationError (and
    KeyFormatError under it), SigningUnavailable, SigningRefused, WrongSignature.
    """
    scheme = uri.partition(":")[0].replace("arn", "awskms")
    try:
        return MeasuredSigner(_open(uri, key_id, settings, expected_public_key), scheme)
    except (SigningUnavailable, SigningRefused):
        metrics.SIGN_ERRORS.labels(scheme, key_id).inc()
        raise


def _open(uri: str, key_id: str, settings: Settings, expected_public_key: bytes | None) -> Signer:
    scheme, _, rest = uri.partition(":")
    local = _open_local(scheme, rest, key_id, settings)
    if local is not None:
        if expected_public_key is not None and local.public_key != expected_public_key:
            raise KeyFormatError(
                f"The private key behind {scheme}: is not the one that the keyring names {key_id}. "
                "Set the key's id to match, or add this key to the keyring with `ai-infra keys new`."
            )
        return local
    if scheme in ADAPTER_SCHEMES:
        from ai_infra.trust.http_signers import AdapterSigner

        return AdapterSigner(f"{scheme.removesuffix('+sign')}:{rest}", key_id, settings, expected_public_key)
    if scheme == "kernel-kms":
        from ai_infra.trust.http_signers import KernelKmsSigner

        return KernelKmsSigner(rest, key_id, settings, expected_public_key)
    if scheme in ("awskms", "arn"):
        from ai_infra.trust.aws_signer import AwsKmsSigner

        return AwsKmsSigner(uri if scheme == "arn" else rest, key_id, settings, expected_public_key)
    raise ConfigurationError(
        f"The key of {key_id} has an unknown form ({scheme or 'empty'}:). "
        "Expected env:NAME, file:PATH, https+sign://HOST, kernel-kms:ID, awskms:ARN, or an ARN."
    )


def _open_local(scheme: str, rest: str, key_id: str, settings: Settings) -> LocalSigner | None:
    if scheme not in ("env", "file"):
        return None
    if settings.guards.require_kms:
        raise ConfigurationError(
            f"REQUIRE_KMS=true refuses the local key of {key_id} ({scheme}:). Name a key in a KMS: "
            "https+sign:, kernel-kms:, awskms: or an ARN."
        )
    if scheme == "env":
        value = settings.variable(rest)
        if value is None:
            raise ConfigurationError(f"The key of {key_id} is env:{rest}, but {rest} is not set.")
        return LocalSigner(key_id, read_private_key(value.get_secret_value(), rest))
    return LocalSigner(key_id, read_private_key_file(Path(rest.removeprefix("//"))))


def read_private_key_file(path: Path) -> bytes:
    """The seed in a private key's file. Refuses a file that others can read, or that others could have replaced."""
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except OSError as error:
        raise ConfigurationError(f"The private key {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise KeyFormatError(f"{path} is not base64 or PEM text.") from None
    if mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        raise ConfigurationError(f"The private key {path} is open to others. Run: chmod 600 {path}")
    return read_private_key(text, str(path))


def write_private_key_file(path: Path, seed: bytes) -> None:
    """Writes a new private key, readable by its owner alone; an existing file is never overwritten."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{path} exists already; a private key is never overwritten.") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(encode(seed) + "\n")
