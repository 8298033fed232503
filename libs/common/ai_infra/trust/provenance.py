"""Who built an artifact: the builder's signature over its provenance, and how anybody checks it by a keyring alone.

A builder signs with its session key. The envelope's keyid carries the delegation (`delegation:<base64url>`), so that an
envelope verifies by itself, years later and without the event that brought it. As everywhere, a keyid is only a hint:
what counts is that a key of the keyring signed that delegation, and that the delegated key signed the envelope.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.events.generated import ArtifactProduced
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.exceptions import StatementTooLarge
from ai_infra.manifest.provenance import Provenance, open_provenance
from ai_infra.manifest.statement import Statement
from ai_infra.trust.delegation import Delegation, parse_delegation
from ai_infra.trust.exceptions import BadDelegation, NotAllowed, RevokedKey
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.session import Session
from ai_infra.trust.verify import Voucher, check_life, vouch

BUILDER: Final = "urn:ai-infra:builder:"
_HINT: Final = "delegation:"


@dataclass(frozen=True, slots=True)
class Built:
    """A provenance that verified: what it says, and who vouched for the key that signed it."""

    provenance: Provenance
    voucher: Voucher
    requested_by: str | None
    """Who asked for the build, as the builder says (SLSA internalParameters.requestedBy)."""


def builder_id(principal: str) -> str:
    """The builder's id in a provenance: one principal, one builder."""
    return BUILDER + principal


def sign_provenance(statement: Statement, session: Session, *, requested_by: str | None = None) -> Envelope:
    """Sign a builder's statement, with who asked for the build where that still fits into what may be signed."""
    key_id = _HINT + base64.urlsafe_b64encode(session.delegation).decode().rstrip("=")
    if requested_by is not None:
        definition = {**statement.predicate["buildDefinition"], "internalParameters": {"requestedBy": requested_by}}
        predicate: Mapping[str, Any] = {**statement.predicate, "buildDefinition": definition}
        try:
            asked = Statement(statement.subjects, statement.predicate_type, predicate)
            return asked.sign(session.sign, key_id, public_key=session.public_key)
        except StatementTooLarge:
            pass  # the manifest is complete without it, and the job itself is in the log
    return statement.sign(session.sign, key_id, public_key=session.public_key)


def open_built(envelope: Envelope, keyring: Keyring, *, model: str, time_ms: int) -> Built:
    """Verify an envelope: by whom it is, that they could say so at that time (ms since the epoch), and of this model.

    Raises TrustError (bad_delegation, unknown_signer, expired_delegation, revoked_key, not_allowed) or what
    `open_provenance` raises.
    """
    delegation = delegation_of(envelope)
    voucher = vouch(delegation.raw, delegation.signer, keyring)
    check_life(voucher, time_ms)
    if voucher.key.id in keyring.revocations:
        raise RevokedKey(f"The builder's key {voucher.key.id} is revoked.")
    event = ArtifactProduced.TOPIC
    principal = voucher.principal
    if event not in voucher.delegation.events or not keyring.may_say(principal, event, model=model, environment=None):
        raise NotAllowed(f"{principal.id} may not build {model}: that takes a role that may say {event} of it.")
    provenance = open_provenance(envelope, voucher.delegation.key)
    if provenance.builder_id != builder_id(principal.id):
        raise NotAllowed(
            f"The provenance names the builder {provenance.builder_id[:200]}; it is signed by {principal.id}, "
            f"who is {builder_id(principal.id)}."
        )
    internal = provenance.statement.predicate["buildDefinition"].get("internalParameters")
    asked = internal.get("requestedBy") if isinstance(internal, dict) else None
    return Built(provenance, voucher, asked if isinstance(asked, str) else None)


def delegation_of(envelope: Envelope) -> Delegation:
    """The delegation that a provenance's keyid carries, read and not yet verified. Raises BadDelegation."""
    if len(envelope.signatures) != 1 or not envelope.signatures[0].key_id.startswith(_HINT):
        raise BadDelegation(f"A provenance has one signature, whose keyid is '{_HINT}<base64url of the delegation>'.")
    text = envelope.signatures[0].key_id.removeprefix(_HINT)
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadDelegation("The keyid of the provenance's signature holds no delegation.") from None
    return parse_delegation(raw)
