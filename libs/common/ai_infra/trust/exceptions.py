"""What can be wrong with keys, keyrings and those who speak. Each error has a stable code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_infra.errors import AiInfraError, ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from ai_infra.events.event import Attributes


class TrustError(AiInfraError):
    """A record whose sender, or whose sender's right to say it, does not verify. It must never change state.

    `signer_known`: the record was signed with a session key that a key of our keyring vouched for, so the refusal can
    be answered to somebody and counts as a failure of the system, not as junk. A known key's *name* on a record is
    not enough: delegations are public.
    `by_service`: the signer is one of our own services.
    `attributes`: the parsed headers, where there were any.
    """

    code = "not_trusted"
    by_service = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        signer_known: bool = False,
        attributes: Attributes | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.signer_known = signer_known
        self.attributes = attributes


class Unverifiable(TrustError):
    """The record is not a well-formed, correctly signed event: `code` is that of the EventError behind it."""


class UnknownSigner(TrustError):
    """The keyring has no such key, or not for signing events."""

    code = "unknown_signer"


class BadDelegation(TrustError):
    """The delegation is not one, is not signed by the key it names, or is for somebody else."""

    code = "bad_delegation"


class ExpiredDelegation(TrustError):
    """The record was appended outside of the delegation's or the key's life."""

    code = "expired_delegation"


class RevokedKey(TrustError):
    """The key has been revoked."""

    code = "revoked_key"


class NotAllowed(TrustError):
    """The signer is who it says, but may not say this, of this model, in this environment, or in this name."""

    code = "not_allowed"


class UnknownKeyring(TrustError):
    """The event names a keyring version that does not exist, the broadcast topic having been read to its end."""

    code = "unknown_keyring"


class AwaitKeyring(AiInfraError):
    """The event names a newer keyring than we know. Not a failure: read the broadcast topic to its end, ask again."""

    code = "unknown_keyring"

    def __init__(self, version: int, latest: int) -> None:
        super().__init__(f"The event names keyring version {version}; the latest known is {latest}.")
        self.version = version
        self.latest = latest


class BadState(TrustError):
    """A state record is not signed by the service whose state it claims to be."""

    code = "bad_state"


class KeyringError(AiInfraError):
    """A keyring document that is not valid, or not signed by enough root keys."""

    code = "bad_keyring"


class KeyringConflict(KeyringError):
    """Two different keyrings carry one version, or a version is missing before this one."""

    code = "keyring_conflict"


class BadCertificate(AiInfraError):
    """A chain key's certificate that does not verify."""

    code = "bad_certificate"


class KeyFormatError(ConfigurationError):
    """A private or public key, or a key's URI, that cannot be read. Never carries the key."""

    code = "bad_key"


class SigningUnavailable(UnavailableError):
    """A signing service does not answer, or says that it cannot sign now. May be retried."""

    code = "signing_unavailable"


class SigningRefused(AiInfraError):
    """A signing service answered that it will not sign this. Not retried."""

    code = "signing_refused"


class WrongSignature(AiInfraError):
    """A signature came back that does not verify against the expected public key: it must not be used."""

    code = "wrong_signature"


class SessionExpired(UnavailableError):
    """The delegation has ended and could not be renewed: this process can't sign any more."""

    code = "session_expired"
