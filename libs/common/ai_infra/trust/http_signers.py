"""Signers that are services over HTTP: the signing adapter and the Kernel's KMS.

Each answer has a time-out; what may be a passing failure (no connection, time-out, 5xx, 429) is tried three times, any
other answer is final. With client certificates the calls are mTLS; a bearer token goes along where one is set. Neither
the token nor what is signed shows in an error.
"""

from __future__ import annotations

import ssl
from typing import Any, Final

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust.ed25519 import decode, encode, read_public_key
from ai_infra.trust.exceptions import KeyFormatError, SigningRefused, SigningUnavailable
from ai_infra.trust.signers import check_size, checked

ATTEMPTS: Final = 3
# A signature, a key and an id: whatever answers more than this is no signing service.
MAX_ANSWER_BYTES: Final = 64 * 1024
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class _Service:
    """One signing service: posts JSON, reads JSON."""

    def __init__(self, url: str, settings: Settings) -> None:
        self._url = url.rstrip("/")
        if not self._url.startswith(("https://", "http://")):
            raise ConfigurationError(f"A signing service has an http:// or https:// address, not {self._url!r}.")
        guards, kms = settings.guards, settings.kms
        encrypted = self._url.startswith("https://")
        if not encrypted and (guards.production or guards.require_mtls):
            raise ConfigurationError(
                f"The signing service {self._url} is not https; production and REQUIRE_MTLS ask for it."
            )
        if guards.require_mtls and kms.mtls_cert_path is None:
            raise ConfigurationError(
                "REQUIRE_MTLS=true needs KMS_MTLS_CERT_PATH and KMS_MTLS_KEY_PATH for the signing service."
            )
        headers = {"accept": "application/json"}
        if kms.bearer_token is not None:
            headers["authorization"] = f"Bearer {kms.bearer_token.get_secret_value()}"
        self._client = httpx.Client(
            headers=headers,
            timeout=kms.timeout_ms / 1000,
            verify=_tls(settings) if encrypted else False,
            follow_redirects=False,  # a signature is asked of the service that was named, and of no other
            trust_env=False,
        )

    def post(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        """The JSON object that the service answers. Raises SigningUnavailable, SigningRefused."""
        for attempt in Retrying(
            retry=retry_if_exception_type(SigningUnavailable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        ):
            with attempt:
                return self._post_once(path, body)
        raise AssertionError("unreachable: Retrying ends by returning or raising")

    def _post_once(self, path: str, body: dict[str, str]) -> dict[str, Any]:
        where = f"{self._url}{path}"
        try:
            response = self._client.post(where, json=body)
        except httpx.HTTPError as error:
            raise SigningUnavailable(f"The signing service {where} does not answer ({type(error).__name__}).") from None
        if response.status_code in _PASSING:
            raise SigningUnavailable(f"The signing service {where} answers {response.status_code}.")
        if response.status_code != 200:
            raise SigningRefused(f"The signing service {where} refuses with status {response.status_code}.")
        try:
            answer = response.json() if len(response.content) <= MAX_ANSWER_BYTES else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SigningRefused(f"The signing service {where} answers something that is not a JSON object.")
        return answer

    def field(self, answer: dict[str, Any], *names: str) -> str:
        """The first of these fields that holds text."""
        for name in names:
            if isinstance(answer.get(name), str) and answer[name]:
                return str(answer[name])
        raise SigningRefused(f"The signing service {self._url} answers without {' or '.join(names)}.")

    def signature(self, text: str) -> bytes:
        try:
            return decode(text, "The signature")
        except KeyFormatError as error:
            raise SigningRefused(f"The signing service {self._url} answers wrongly: {error}") from None


class AdapterSigner:
    """The HTTP signing adapter: `POST /sign {"payload_b64"} -> {"signature_b64", "signer_id"}`.

    It can't tell its public key, so that must be known from the keyring.
    """

    def __init__(self, url: str, key_id: str, settings: Settings, expected_public_key: bytes | None) -> None:
        if expected_public_key is None:
            raise ConfigurationError(
                f"The public key of {key_id} is not known, so signatures by the HTTP adapter could not be checked. "
                "Add the key to the keyring (`ai-infra keys new --public`) and set AI_INFRA_KEYS_DIR."
            )
        self.key_id = key_id
        self.public_key = expected_public_key
        self._service = _Service(url, settings)

    def sign(self, message: bytes) -> bytes:
        check_size(message)
        answer = self._service.post("/sign", {"payload_b64": encode(message)})
        signature = self._service.signature(self._service.field(answer, "signature_b64"))
        return checked(signature, message, self.public_key, f"The signing adapter for {self.key_id}")


class KernelKmsSigner:
    """The Kernel's KMS: `POST /signData {"signerId", "data"} -> {"signature", "signerId"}`, `POST /publicKey`.

    `name` is the key's name there. Its public key is asked for at once: that shows whether the KMS answers.
    """

    def __init__(self, name: str, key_id: str, settings: Settings, expected_public_key: bytes | None) -> None:
        if settings.kms.endpoint is None:
            raise ConfigurationError(f"The key of {key_id} is kernel-kms:{name}, but KMS_ENDPOINT is not set.")
        self.key_id = key_id
        self._name = name or key_id
        self._service = _Service(settings.kms.endpoint, settings)
        answer = self._service.post("/publicKey", {"signerId": self._name})
        try:
            self.public_key = read_public_key(self._service.field(answer, "publicKey"), f"The KMS's key {self._name}")
        except KeyFormatError as error:
            raise SigningRefused(str(error)) from None
        expect(self.public_key, expected_public_key, key_id, f"kernel-kms:{self._name}")

    def sign(self, message: bytes) -> bytes:
        check_size(message)
        answer = self._service.post("/signData", {"signerId": self._name, "data": encode(message)})
        signature = self._service.signature(self._service.field(answer, "signature"))
        return checked(signature, message, self.public_key, f"The KMS, as {self._name},")


def expect(found: bytes, expected: bytes | None, key_id: str, where: str) -> None:
    """Raise KeyFormatError where a KMS holds another key than the keyring names."""
    if expected is not None and found != expected:
        raise KeyFormatError(
            f"The key {where} is not the one that the keyring names {key_id}. Name the right key, or bring this one "
            "into the keyring with `ai-infra keys rotate`."
        )


def _tls(settings: Settings) -> ssl.SSLContext:
    kms = settings.kms
    try:
        context = ssl.create_default_context(cafile=str(kms.mtls_ca_path) if kms.mtls_ca_path else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if kms.mtls_cert_path is not None:
            context.load_cert_chain(str(kms.mtls_cert_path), str(kms.mtls_key_path))
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "The certificates for signing services cannot be read (KMS_MTLS_CERT_PATH, KMS_MTLS_KEY_PATH, "
            f"KMS_MTLS_CA_PATH): {error.strerror or type(error).__name__}."
        ) from None
    return context
