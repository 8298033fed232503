"""A key in AWS KMS, by botocore's Stubber over a local key (no emulator knows the Ed25519 key spec)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from ai_infra.errors import ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust.aws_signer import ALGORITHM, KEY_SPEC, AwsKmsSigner
from ai_infra.trust.ed25519 import verifies
from ai_infra.trust.exceptions import KeyFormatError, SigningRefused, SigningUnavailable, WrongSignature
from ai_infra.trust.signers import LocalSigner

ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = LocalSigner("manifest-1", b"m" * 32)
SPKI = bytes.fromhex("302a300506032b6570032100")


@pytest.fixture
def stub() -> Iterator[Stubber]:
    client = boto3.client("kms", region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y")
    with Stubber(client) as stubber:
        yield stubber


def tells_its_key(stub: Stubber, public_key: bytes = KEY.public_key, spec: str = KEY_SPEC) -> None:
    answer = {"KeyId": ARN, "PublicKey": SPKI + public_key, "KeySpec": spec, "SigningAlgorithms": [ALGORITHM]}
    stub.add_response("get_public_key", answer, {"KeyId": ARN})


def signs(stub: Stubber, message: bytes, key: LocalSigner = KEY) -> None:
    asked = {"KeyId": ARN, "Message": message, "MessageType": "RAW", "SigningAlgorithm": ALGORITHM}
    stub.add_response("sign", {"Signature": key.sign(message), "KeyId": ARN, "SigningAlgorithm": ALGORITHM}, asked)


@pytest.fixture
def opened(stub: Stubber, settings_of: Callable[..., Settings]) -> Callable[..., AwsKmsSigner]:
    def signer(expected: bytes | None = None) -> AwsKmsSigner:
        return AwsKmsSigner(ARN, "manifest-1", settings_of(), expected, client=stub.client)

    return signer


def test_it_signs_raw_messages_with_plain_ed25519(stub: Stubber, opened: Callable[..., AwsKmsSigner]) -> None:
    tells_its_key(stub)
    signs(stub, b"message")
    signer = opened(KEY.public_key)
    assert verifies(b"message", signer.sign(b"message"), KEY.public_key)
    stub.assert_no_pending_responses()


def test_a_signature_by_another_key_is_not_used(stub: Stubber, opened: Callable[..., AwsKmsSigner]) -> None:
    tells_its_key(stub)
    signs(stub, b"message", LocalSigner.fresh("other"))
    with pytest.raises(WrongSignature):
        opened().sign(b"message")


def test_another_key_than_the_keyring_names_is_not_opened(stub: Stubber, opened: Callable[..., AwsKmsSigner]) -> None:
    tells_its_key(stub)
    with pytest.raises(KeyFormatError, match="not the one that the keyring names"):
        opened(LocalSigner.fresh("other").public_key)


def test_a_key_of_another_kind_is_not_opened(stub: Stubber, opened: Callable[..., AwsKmsSigner]) -> None:
    tells_its_key(stub, spec="ECC_NIST_P256")
    with pytest.raises(ConfigurationError, match="ECC_NIST_P256"):
        opened()


def test_a_message_that_kms_would_refuse_is_not_sent(stub: Stubber, opened: Callable[..., AwsKmsSigner]) -> None:
    tells_its_key(stub)
    signer = opened()
    with pytest.raises(ValueError, match="4096"):
        signer.sign(bytes(4097))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ThrottlingException", SigningUnavailable),
        ("KMSInternalException", SigningUnavailable),
        ("AccessDeniedException", SigningRefused),
        ("DisabledException", SigningRefused),
    ],
)
def test_what_aws_says_decides_whether_it_may_be_tried_again(
    stub: Stubber, opened: Callable[..., AwsKmsSigner], code: str, error: type[Exception]
) -> None:
    tells_its_key(stub)
    signer = opened()
    stub.add_client_error("sign", code)
    with pytest.raises(error, match=code):
        signer.sign(b"message")


def test_the_region_of_an_arn_counts(monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]) -> None:
    asked: dict[str, Any] = {}

    def client(service: str, **arguments: Any) -> Any:
        asked.update(arguments, service=service)
        raise SigningUnavailable("no further")

    monkeypatch.setattr(boto3, "client", client)
    with pytest.raises(SigningUnavailable):
        AwsKmsSigner(ARN, "manifest-1", settings_of(AWS_REGION="us-east-1"), None)
    assert (asked["service"], asked["region_name"]) == ("kms", "eu-central-1")
    assert asked["config"].retries["total_max_attempts"] == 3
