"""What a process refuses at its start, because of where it runs. Reads settings and nothing else.

Whether a KMS answers is found out when keys are opened (`ai_infra.trust.open`): that takes the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_infra.errors import ConfigurationError
from ai_infra.settings.sections import DEFAULT_ORIGIN

if TYPE_CHECKING:
    from ai_infra.settings.load import Settings


def check_guards(settings: Settings) -> None:
    """Raise ConfigurationError where these settings must not run here."""
    guards, keys, kms = settings.guards, settings.keys, settings.kms
    if guards.production and guards.dev_allow_ephemeral:
        raise ConfigurationError(
            "DEV_ALLOW_EPHEMERAL=true is for development and this is production (NODE_ENV or AI_INFRA_ENV says so). "
            "Unset DEV_ALLOW_EPHEMERAL."
        )
    if guards.production and settings.log.origin == DEFAULT_ORIGIN:
        raise ConfigurationError(
            "AI_INFRA_LOG_ORIGIN is not set. In production the log needs a name of its own, e.g. "
            "log.example.org/ai-infra: checkpoints carry it for as long as the log is kept."
        )
    if guards.require_kms:
        if keys.signer_key_b64 is not None:
            raise ConfigurationError(
                "REQUIRE_KMS=true refuses the local key in AI_INFRA_SIGNER_KEY_B64. Unset it and name a key in a KMS "
                "(AI_INFRA_SERVICE_KEY, AI_INFRA_KMS_ENDPOINT)."
            )
        for name, uri in _key_uris(settings).items():
            if uri is not None and uri.startswith(("env:", "file:")):
                raise ConfigurationError(
                    f"REQUIRE_KMS=true refuses {name}, which is a local key ({uri.split(':', 1)[0]}:). "
                    "Name a key in a KMS: https+sign:, kernel-kms:, awskms: or an ARN."
                )
    if guards.require_mtls:
        _check_mtls(settings)
    if (kms.mtls_cert_path is None) != (kms.mtls_key_path is None):
        raise ConfigurationError("KMS_MTLS_CERT_PATH and KMS_MTLS_KEY_PATH go together: set both or neither.")


def _key_uris(settings: Settings) -> dict[str, str | None]:
    keys = settings.keys
    return {
        "AI_INFRA_SERVICE_KEY": keys.service_key,
        "AUDIT_SIGNING_KMS_KEY_ID": keys.audit,
        "MANIFEST_SIGNING_KMS_KEY_ID": keys.manifest,
        "AI_INFRA_PROMOTION_KEY": keys.promotion,
        "AI_INFRA_CHAIN_KEY": keys.chain,
    }


def _check_mtls(settings: Settings) -> None:
    kms, policy = settings.kms, settings.policy
    endpoints = {
        "AI_INFRA_KMS_ENDPOINT": kms.adapter_endpoint,
        "KMS_ENDPOINT": kms.endpoint,
        "SENTINELNET_URL": policy.sentinel_url,
        "KERNEL_API_URL": policy.kernel_api_url,
        **{name: uri for name, uri in _key_uris(settings).items() if uri and "+sign:" in uri},
    }
    called = {name: url for name, url in endpoints.items() if url is not None}
    for name, url in called.items():
        if not url.startswith("https"):
            raise ConfigurationError(f"REQUIRE_MTLS=true refuses {name}, which is not https. Use an https:// address.")
    if called and kms.mtls_cert_path is None:
        raise ConfigurationError(
            f"REQUIRE_MTLS=true needs a client certificate for {', '.join(called)}: "
            "set KMS_MTLS_CERT_PATH and KMS_MTLS_KEY_PATH."
        )
