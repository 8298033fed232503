"""Who may bring a new keyring, and what it takes to be believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from ai_infra.events.event import Record
from ai_infra.events.generated import SignerChanged
from ai_infra.trust.exceptions import KeyringError, TrustError
from ai_infra.trust.keyring import Keyring, Revocation
from ai_infra.trust.keyring_document import sign_keyring, verify_keyring
from ai_infra.trust.keyring_event import take_keyring_event
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.signers import LocalSigner
from ai_infra.trust.verify import Verifier

LANES = 4
Say = Callable[..., Record]
SignerOf = Callable[[str], LocalSigner]


def without_operator_key(keyring: Keyring, signer: SignerOf) -> SignerChanged:
    """The next version, in which the operator's key is revoked: the key that brings it."""
    revoked = Revocation("operator-1", revoked_at=keyring.created_at, reason="lost")
    changed = replace(keyring, version=keyring.version + 1, revocations={**keyring.revocations, "operator-1": revoked})
    text = sign_keyring(changed, [signer("root-1"), signer("root-2")])
    return SignerChanged(
        version=changed.version, keyring=text, keyring_sha256=verify_keyring(text, keyring).sha256, reason="lost"
    )


def test_a_keyring_may_revoke_the_key_that_brings_it(
    keyrings: Keyrings, verifier: Verifier, say: Say, signer: SignerOf
) -> None:
    record = say("operator-1", without_operator_key(keyrings.latest, signer))
    event = take_keyring_event(record, keyrings, verifier, LANES)
    assert event.principal == "operator"
    assert keyrings.latest_version == 2
    with pytest.raises(TrustError, match="revoked"):
        verifier.verify(record)


def test_a_keyring_that_the_roots_have_not_signed_is_not_taken_in(
    keyrings: Keyrings, verifier: Verifier, say: Say, signer: SignerOf
) -> None:
    genuine = without_operator_key(keyrings.latest, signer)
    forged = replace(genuine, keyring=genuine.keyring.replace("lost", "kept"))
    with pytest.raises(KeyringError):
        take_keyring_event(say("operator-1", forged), keyrings, verifier, LANES)
    assert keyrings.latest_version == 1


def test_somebody_without_that_role_cannot_bring_a_keyring(
    keyrings: Keyrings, verifier: Verifier, say: Say, signer: SignerOf
) -> None:
    with pytest.raises(TrustError):
        take_keyring_event(
            say("orchestrator-1", without_operator_key(keyrings.latest, signer)), keyrings, verifier, LANES
        )
