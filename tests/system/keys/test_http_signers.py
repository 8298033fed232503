"""Signers that are services: over real HTTPS, with and without client certificates, well and badly behaved."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust.ed25519 import public_key_pem, verifies
from ai_infra.trust.exceptions import KeyFormatError, SigningRefused, SigningUnavailable, WrongSignature
from ai_infra.trust.init import init_keys
from ai_infra.trust.keyring_files import private_key_path
from ai_infra.trust.open import open_service_signer
from ai_infra.trust.signers import LocalSigner, Signer, open_signer, read_private_key_file

from .signing_services import Certificates, SigningService, make_certificates, serve

KEY = LocalSigner("audit-1", b"a" * 32)
OTHER = LocalSigner("audit-1", b"b" * 32)
SettingsOf = Callable[..., Settings]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def service(certificates: Certificates) -> Iterator[SigningService]:
    """An HTTPS server without client certificates."""
    with serve(SigningService({"audit-1": KEY}), certificates.server_context(ask_client=False)) as running:
        yield running


@pytest.fixture
def strict(certificates: Certificates) -> Iterator[SigningService]:
    """An HTTPS server that asks for client certificates."""
    with serve(SigningService({"audit-1": KEY}), certificates.server_context(ask_client=True)) as running:
        yield running


@pytest.fixture
def adapter(service: SigningService, settings_of: SettingsOf, certificates: Certificates) -> Callable[..., Signer]:
    def opened(expected: bytes | None = KEY.public_key, **variables: object) -> Signer:
        settings = settings_of(KMS_MTLS_CA_PATH=certificates.authority, **variables)
        uri = service.url.replace("https:", "https+sign:")
        return open_signer(uri, key_id="audit-1", settings=settings, expected_public_key=expected)

    return opened


@pytest.fixture
def kernel(service: SigningService, settings_of: SettingsOf, certificates: Certificates) -> Callable[..., Signer]:
    def opened(name: str = "audit-1", expected: bytes | None = None, **variables: object) -> Signer:
        settings = settings_of(KMS_ENDPOINT=service.url, KMS_MTLS_CA_PATH=certificates.authority, **variables)
        return open_signer(f"kernel-kms:{name}", key_id="audit-1", settings=settings, expected_public_key=expected)

    return opened


def test_the_adapter_signs(adapter: Callable[..., Signer], service: SigningService) -> None:
    signature = adapter().sign(b"message")
    assert verifies(b"message", signature, KEY.public_key)
    assert service.seen[0][0] == "/sign"
    assert service.seen[0][2] == {"payload_b64": base64.b64encode(b"message").decode()}


def test_the_kernel_s_kms_tells_its_key_and_signs(kernel: Callable[..., Signer], service: SigningService) -> None:
    signer = kernel(expected=KEY.public_key)
    assert signer.public_key == KEY.public_key
    assert verifies(b"message", signer.sign(b"message"), KEY.public_key)
    assert [path for path, _, _ in service.seen] == ["/publicKey", "/signData"]
    assert service.seen[1][2] == {"signerId": "audit-1", "data": base64.b64encode(b"message").decode()}


def test_a_kms_may_tell_its_key_as_pem(kernel: Callable[..., Signer], service: SigningService) -> None:
    service.answers["/publicKey"] = json.dumps({"publicKey": public_key_pem(KEY.public_key)}).encode()
    assert kernel().public_key == KEY.public_key


def test_a_signature_by_another_key_is_not_used(adapter: Callable[..., Signer], service: SigningService) -> None:
    service.keys["audit-1"] = OTHER
    with pytest.raises(WrongSignature, match="expected public key"):
        adapter().sign(b"message")


def test_a_kms_that_signs_with_another_key_than_it_tells_is_not_used(
    kernel: Callable[..., Signer], service: SigningService
) -> None:
    signer = kernel()
    service.keys["audit-1"] = OTHER
    with pytest.raises(WrongSignature):
        signer.sign(b"message")


def test_a_kms_that_holds_another_key_than_the_keyring_names_is_not_opened(kernel: Callable[..., Signer]) -> None:
    with pytest.raises(KeyFormatError, match="not the one that the keyring names"):
        kernel(expected=OTHER.public_key)


def test_the_adapter_is_not_opened_where_its_key_is_not_known(adapter: Callable[..., Signer]) -> None:
    with pytest.raises(ConfigurationError, match="could not be checked"):
        adapter(expected=None)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(adapter: Callable[..., Signer], service: SigningService, status: int) -> None:
    service.failures = [status, status]
    adapter().sign(b"message")
    assert len(service.seen) == 3


def test_after_three_attempts_it_is_unavailable(adapter: Callable[..., Signer], service: SigningService) -> None:
    service.failures = [503] * 9
    with pytest.raises(SigningUnavailable, match="503"):
        adapter().sign(b"message")
    assert len(service.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_a_refusal_is_final(adapter: Callable[..., Signer], service: SigningService, status: int) -> None:
    service.failures = [status]
    with pytest.raises(SigningRefused, match=str(status)):
        adapter().sign(b"message")
    assert len(service.seen) == 1


@pytest.mark.parametrize(
    "answer",
    [b"", b"[]", b"not json", b"{}", b'{"signature_b64": 5}', b'{"signature_b64": "%%%"}', b'{"signature_b64": ""}',
     b"[" + b" " * 70_000 + b"]"],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused(
    adapter: Callable[..., Signer], service: SigningService, answer: bytes
) -> None:
    service.answers["/sign"] = answer
    with pytest.raises(SigningRefused):
        adapter().sign(b"message")


def test_a_short_signature_is_a_wrong_one(adapter: Callable[..., Signer], service: SigningService) -> None:
    service.answers["/sign"] = b'{"signature_b64": "AAAA"}'
    with pytest.raises(WrongSignature):
        adapter().sign(b"message")


def test_a_service_that_does_not_answer_is_unavailable_within_the_time_out(
    adapter: Callable[..., Signer], service: SigningService, stopwatch: Callable[[], float]
) -> None:
    service.stall = threading.Event()
    with pytest.raises(SigningUnavailable, match="does not answer"):
        adapter(KMS_TIMEOUT_MS=100).sign(b"message")
    service.stall.set()
    assert stopwatch() < 10


def test_a_service_that_is_not_there_is_unavailable(settings_of: SettingsOf) -> None:
    with pytest.raises(SigningUnavailable):
        open_signer("kernel-kms:x", key_id="x", settings=settings_of(KMS_ENDPOINT="http://127.0.0.1:9"))


def test_the_token_goes_along_and_shows_nowhere(adapter: Callable[..., Signer], service: SigningService) -> None:
    service.failures = [401]
    signer = adapter(KMS_BEARER_TOKEN="s3cret-token")
    with pytest.raises(SigningRefused) as refused:
        signer.sign(b"message")
    assert service.seen[0][1]["authorization"] == "Bearer s3cret-token"
    assert "s3cret" not in str(refused.value) + repr(signer)


def test_a_server_of_another_authority_is_not_believed(service: SigningService, settings_of: SettingsOf) -> None:
    uri = service.url.replace("https:", "https+sign:")
    signer = open_signer(uri, key_id="audit-1", settings=settings_of(), expected_public_key=KEY.public_key)
    with pytest.raises(SigningUnavailable):
        signer.sign(b"message")
    assert service.seen == []


@pytest.mark.parametrize(("who", "served"), [("client", True), ("stranger", False), (None, False)])
def test_mtls_lets_in_who_has_a_certificate_of_the_authority(
    strict: SigningService, settings_of: SettingsOf, certificates: Certificates, who: str | None, served: bool
) -> None:
    variables: dict[str, object] = {"KMS_ENDPOINT": strict.url, "KMS_MTLS_CA_PATH": certificates.authority}
    if who is not None:
        variables["KMS_MTLS_CERT_PATH"], variables["KMS_MTLS_KEY_PATH"] = certificates.pair(who)
    settings = settings_of(**variables)
    if served:
        open_signer("kernel-kms:audit-1", key_id="audit-1", settings=settings).sign(b"message")
        return
    with pytest.raises(SigningUnavailable):
        open_signer("kernel-kms:audit-1", key_id="audit-1", settings=settings)
    assert strict.seen == []


def test_require_mtls_refuses_a_signing_service_without_certificate_or_encryption(
    service: SigningService, settings_of: SettingsOf
) -> None:
    with pytest.raises(ConfigurationError, match="client certificate"):
        settings_of(KMS_ENDPOINT=service.url, REQUIRE_MTLS="true")
    with pytest.raises(ConfigurationError, match="not https"):
        settings_of(AI_INFRA_KMS_ENDPOINT="http://127.0.0.1:9", REQUIRE_MTLS="true")
    settings = settings_of(REQUIRE_MTLS="true")
    for uri in ("https+sign://127.0.0.1:9", "http+sign://127.0.0.1:9"):
        with pytest.raises(ConfigurationError):
            open_signer(uri, key_id="k", settings=settings, expected_public_key=KEY.public_key)


def test_certificates_that_can_not_be_read_are_named(settings_of: SettingsOf, certificates: Certificates) -> None:
    settings = settings_of(KMS_ENDPOINT="https://127.0.0.1:9", KMS_MTLS_CA_PATH=certificates.directory / "none.pem")
    with pytest.raises(ConfigurationError, match="KMS_MTLS_CA_PATH"):
        open_signer("kernel-kms:x", key_id="x", settings=settings)


def test_require_kms_refuses_to_start_while_the_kms_does_not_sign(settings_of: SettingsOf, tmp_path: Path) -> None:
    init_keys(tmp_path / "keys")
    trainer = LocalSigner("trainer-1", read_private_key_file(private_key_path(tmp_path / "keys", "trainer-1")))
    with serve(SigningService({"trainer-1": trainer})) as service:
        settings = settings_of(
            REQUIRE_KMS="true", AI_INFRA_KMS_ENDPOINT=service.url, AI_INFRA_KEYS_DIR=tmp_path / "keys"
        )
        assert open_service_signer(settings, "trainer").key_id == "trainer-1"
        service.failures = [503] * 3
        with pytest.raises(SigningUnavailable):
            open_service_signer(settings, "trainer")


def test_failures_of_a_signing_service_are_counted(adapter: Callable[..., Signer], service: SigningService) -> None:
    def failed() -> float:
        return REGISTRY.get_sample_value("ai_infra_sign_errors_total", {"scheme": "https+sign", "key": "audit-1"}) or 0

    before = failed()
    service.failures = [403]
    with pytest.raises(SigningRefused):
        adapter().sign(b"message")
    assert failed() == before + 1
    adapter().sign(b"message")
    assert failed() == before + 1
