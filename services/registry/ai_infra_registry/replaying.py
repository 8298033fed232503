"""The registry's decisions, made again from the log: what its questions were answered, as far as the log has it. Pure.

The builder's provenance is judged again by the keyring that the registration names, versions are counted again, and the
manifest key's signature must be over exactly what the rules would have signed. What the registry read in the artifact
and its manifest is not in the log: it is taken from the event; `ai-infra artifact verify` reads them again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

from ai_infra.bus.replay import Answered, Asked, Disagrees, Known, Moment, Replayer
from ai_infra.bus.service import Decide
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactRefused, ArtifactRegistered, EventRefused, Reason
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.registration import Registration, open_registration, unverified_registration
from ai_infra.trust.keyring import MANIFEST
from ai_infra_registry.decide import VERSIONS
from ai_infra_registry.service import LISTENS
from ai_infra_registry.state import Claim, Facts, Finding, Signature, ToSign
from ai_infra_registry.verification import judge_provenance

READ: Final = "what the registry read in artifact and manifest"
REASONS: Final = "the reasons that the registry found in artifact, manifest and provenance"
_UNSIGNED: Final = Signature(id="", signer_id="", signature="", ts=None, envelope="")  # type: ignore[arg-type]  # unread


def moment(event: Event[Any]) -> Moment:
    """A registration was decided when its envelope says; anything else when it was said."""
    stated = _stated(event.body)
    return Moment(stated.registered_at if stated is not None else event.time, event.attributes.keyring)


def answers(asked: Asked, said: Event[Any], _: Event[Any], known: Known) -> Iterator[Answered]:
    """What the registry was answered before it said this."""
    if isinstance(asked.args, Claim):
        yield from _found(asked.args, said.body, known)
    elif isinstance(asked.args, ToSign):
        yield from _signed(asked.args.registration, said.body, known)


def _found(claim: Claim, body: Any, known: Known) -> Iterator[Answered]:
    match body:
        case ArtifactRegistered():
            stated = _stated(body)
            if stated is None or stated.produced_event_id != claim.event_id:
                return
            keyring = known.keyrings.get(body.keyring_version)
            if keyring is None:
                raise Disagrees(f"it was judged by keyring version {body.keyring_version}, which is not in the log")
            reasons: list[Reason] = []
            judge_provenance(claim, keyring, reasons)
            if reasons:
                yield Answered(Finding(reasons=tuple(reasons)))
                return
            yield Answered(Finding(reasons=(), facts=_facts(body, stated)), carried=(READ,))
        case ArtifactRefused() if _same(claim, body):
            yield Answered(Finding(reasons=tuple(body.reasons)), carried=(REASONS,))
            yield Answered(Finding(reasons=(), facts=_unsaid(claim)), carried=(READ,))
        case EventRefused() if body.event_id == claim.event_id:
            yield Answered(Finding(reasons=(), facts=_unsaid(claim)), carried=(READ,))


def _signed(wanted: Registration, body: Any, known: Known) -> Iterator[Answered]:
    if isinstance(body, ArtifactRefused) and body.artifact_id == wanted.artifact_id:
        yield Answered(_UNSIGNED)  # revoked while it was being signed: the signature was not used
    stated = _stated(body)
    if stated is None or stated.produced_event_id != wanted.produced_event_id:
        return
    signature = body.manifest_signature
    for version in dict.fromkeys((wanted.keyring_version, known.keyrings.latest_version)):
        keyring = known.keyrings.get(version)
        key = keyring.key_of(signature.signer_id, MANIFEST) if keyring is not None else None
        if key is None:
            continue
        try:
            signed = open_registration(signature.envelope, key.public_key)
        except AiInfraError as error:
            raise Disagrees(f"a registration signed by {key.id}; what it carries is none: {error.message}") from error
        different = [f.name for f in fields(signed) if getattr(signed, f.name) != getattr(wanted, f.name)]
        if different:
            raise Disagrees(
                "; ".join(f"{n} {getattr(wanted, n)!s}, not {getattr(signed, n)!s}" for n in different)
                + " in what the manifest key signed"
            )
        envelope = Envelope.parse(signature.envelope)
        yield Answered(
            Signature(
                id=envelope.signature_id,
                signer_id=key.id,
                signature=base64.b64encode(envelope.signatures[0].signature).decode(),
                ts=signed.registered_at,
                envelope=signature.envelope,
            )
        )
        return
    raise Disagrees(f"a registration signed by a manifest key; the keyring names no {signature.signer_id!r}")


def _stated(body: Any) -> Registration | None:
    return unverified_registration(body.manifest_signature.envelope) if isinstance(body, ArtifactRegistered) else None


def _same(claim: Claim, body: ArtifactRefused) -> bool:
    return (claim.artifact_id, claim.artifact_sha256, claim.artifact_uri, claim.job_id) == (
        body.artifact_id, body.artifact_sha256, body.artifact_uri, body.job_id,
    )  # fmt: skip


def _facts(body: ArtifactRegistered, stated: Registration) -> Facts:
    return Facts(
        artifact_sha256=body.artifact_sha256,
        artifact_bytes=body.artifact_bytes,
        manifest_sha256=body.manifest_sha256,
        provenance_sha256=stated.provenance_sha256,
        code_ref=body.code_ref,
        container_digest=body.container_digest,
        dataset_refs=tuple(body.dataset_refs),
        parent_artifacts=tuple(body.parent_artifacts),
        input_checksum=body.input_checksum,
        builder_id=body.builder_id,
        metadata_json=body.metadata_json,
        created_by=body.created_by,
        keyring_version=body.keyring_version,
    )


def _unsaid(claim: Claim) -> Facts:
    """Of an artifact that was found sound and then not registered: its facts are in no event, and nothing is made of
    them but a refusal, which carries none."""
    return Facts(
        artifact_sha256=claim.artifact_sha256,
        artifact_bytes=claim.artifact_bytes,
        manifest_sha256=claim.manifest_sha256,
        provenance_sha256="",
        code_ref="",
        container_digest=None,
        dataset_refs=(),
        parent_artifacts=(),
        input_checksum=claim.input_checksum,
        builder_id="",
        metadata_json="",
        created_by="",
        keyring_version=0,
    )


def _versions(_: Known) -> Mapping[str, Decide]:
    return VERSIONS


REPLAYER: Final = Replayer("registry", LISTENS, _versions, moment, answers)
