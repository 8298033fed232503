"""What the registry answers to a claim: registered, refused with every reason, or heard before. Pure.

With the answer the claim is forgotten: it waits for nothing any more.
"""

from __future__ import annotations

from ai_infra.bus.decision import Context, Decision, Delete, Put, Say, Timer
from ai_infra.bus.fitting import fitted
from ai_infra.events.generated import ArtifactRefused, ArtifactRegistered, EventRefused, ManifestSignature, Reason
from ai_infra_registry.state import Claim, Facts, Signature, Signing, Verified, Waiting


def registered(claim: Claim, facts: Facts, signing: Signing, signature: Signature, context: Context) -> Say:
    """The artifact has a version, and the manifest key's signature."""
    body = ArtifactRegistered(
        artifact_id=claim.artifact_id,
        model=claim.model,
        version=signing.registration.version,
        new_version=signing.new_version,
        attestation=signing.attestation,
        job_id=claim.job_id,
        artifact_uri=claim.artifact_uri,
        artifact_sha256=facts.artifact_sha256,
        artifact_bytes=facts.artifact_bytes,
        manifest_uri=claim.manifest_uri,
        manifest_sha256=facts.manifest_sha256,
        manifest_signature_id=signature.id,
        manifest_signature=ManifestSignature(
            signer_id=signature.signer_id,
            signature=signature.signature,
            ts=signature.ts,
            envelope=signature.envelope,
        ),
        code_ref=facts.code_ref,
        container_digest=facts.container_digest,
        dataset_refs=facts.dataset_refs,
        parent_artifacts=facts.parent_artifacts,
        input_checksum=facts.input_checksum,
        builder_id=facts.builder_id,
        metadata_json=facts.metadata_json,
        created_by=facts.created_by,
        keyring_version=facts.keyring_version,
        rules=context.rules,
    )
    return Say(body, subject=claim.artifact_id)


def refused(claim: Claim, reasons: tuple[Reason, ...], context: Context) -> Decision:
    """The artifact is not registered, for these reasons."""
    body = ArtifactRefused(
        artifact_id=claim.artifact_id,
        model=claim.model,
        job_id=claim.job_id,
        artifact_uri=claim.artifact_uri,
        artifact_sha256=claim.artifact_sha256,
        reasons=tuple(Reason(code=r.code, detail=r.detail[:1000]) for r in reasons[:32]),
        rules=context.rules,
    )
    body = fitted(body, "artifact_id", "job_id", "artifact_uri", "artifact_sha256")
    # Two claims about one artifact may be refused by one trigger: the event that is answered tells them apart.
    return forget(claim, Say(body, subject=claim.artifact_id, kind=claim.event_id))


def answered_before(claim: Claim, context: Context) -> Decision:
    """The same manifest was registered by another event meanwhile: this event is answered, the artifact is not."""
    body = EventRefused(
        model=claim.model,
        event_id=claim.event_id,
        event_type=claim.event_type,
        event_hash=claim.event_hash,
        service=context.service,
        signer=claim.signer,
        reasons=(attested_before(claim.manifest_sha256),),
        rules=context.rules,
    )
    return forget(claim, Say(body, subject=claim.event_id))


def attested_before(manifest_sha256: str) -> Reason:
    """Why the same manifest counts once."""
    why = f"manifest {manifest_sha256} is registered already; another run has another manifest"
    return Reason(code="attested_before", detail=why)


def forget(claim: Claim, say: Say, *changes: Put) -> Decision:
    """The answer to a claim, after which nothing of it waits."""
    return Decision(
        events=(say,),
        state=(*changes, Delete(Waiting, claim.event_id), Delete(Verified, claim.event_id)),
        timers=(Timer(f"verify/{claim.event_id}", None),),
    )
