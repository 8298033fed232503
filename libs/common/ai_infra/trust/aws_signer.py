"""A key in AWS KMS, key spec ECC_NIST_EDWARDS25519, by ARN, id or alias.

Signs RAW messages of at most 4,096 bytes with ED25519_SHA_512 (plain Ed25519; the PH variant would hash twice).
boto3 finds credentials and region as it always does, and has its own bounded retries. The public key is asked for at
once: that shows whether the KMS answers.
"""

from __future__ import annotations

from typing import Any, Final

from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.settings import Settings
from ai_infra.trust.ed25519 import encode, read_public_key
from ai_infra.trust.exceptions import SigningRefused, SigningUnavailable
from ai_infra.trust.http_signers import ATTEMPTS, expect
from ai_infra.trust.signers import check_size, checked

ALGORITHM: Final = "ED25519_SHA_512"
KEY_SPEC: Final = "ECC_NIST_EDWARDS25519"
# What AWS says when it can't just now; anything else is a final answer.
_PASSING: Final = frozenset(
    {"ThrottlingException", "DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException"}
)


class AwsKmsSigner:
    """An Ed25519 key in AWS KMS. `client` is a boto3 KMS client; made from the settings where not given."""

    def __init__(
        self,
        key: str,
        key_id: str,
        settings: Settings,
        expected_public_key: bytes | None,
        *,
        client: Any = None,
    ) -> None:
        self.key_id = key_id
        self._key = key
        self._client = client if client is not None else _client(key, settings)
        answer = self._call("get_public_key", KeyId=key)
        if answer.get("KeySpec") != KEY_SPEC:
            raise ConfigurationError(
                f"The AWS key of {key_id} has the key spec {answer.get('KeySpec')}; expected {KEY_SPEC}."
            )
        self.public_key = read_public_key(encode(answer["PublicKey"]), f"The AWS key of {key_id}")
        expect(self.public_key, expected_public_key, key_id, f"awskms:{key}")

    def sign(self, message: bytes) -> bytes:
        check_size(message)
        answer = self._call("sign", KeyId=self._key, Message=message, MessageType="RAW", SigningAlgorithm=ALGORITHM)
        return checked(answer["Signature"], message, self.public_key, f"AWS KMS, as {self.key_id},")

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            answer: dict[str, Any] = getattr(self._client, operation)(**arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown")
            raise _failure(code, self.key_id) from None
        except BotoCoreError as error:
            raise SigningUnavailable(f"AWS KMS does not answer for {self.key_id} ({type(error).__name__}).") from None
        return answer


def _failure(code: str, key_id: str) -> AiInfraError:
    if code in _PASSING:
        return SigningUnavailable(f"AWS KMS can't sign as {key_id} now: {code}.")
    return SigningRefused(f"AWS KMS refuses to sign as {key_id}: {code}.")


def _client(key: str, settings: Settings) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise ConfigurationError('Keys in AWS KMS need boto3. Install it with: pip install "ai-infra[aws]"') from None
    # The region of an ARN counts before any other: arn:aws:kms:<region>:<account>:key/<id>
    region = key.split(":")[3] if key.startswith("arn:") and key.count(":") >= 5 else settings.objects.region
    seconds = settings.kms.timeout_ms / 1000
    config = Config(
        connect_timeout=seconds, read_timeout=seconds, retries={"mode": "standard", "total_max_attempts": ATTEMPTS}
    )
    return boto3.client("kms", region_name=region, config=config)
