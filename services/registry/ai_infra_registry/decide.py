"""What the registry decides: pure, rules `registry/v1`.

Versions of a model are dense, from 1, in the order in which verifications end. The same bytes for the same model are
the same artifact: a further run that produced them is one more attestation, never a version. An artifact is refused for
what is wrong with it, never for a store or a signing service that did not answer: that is tried again until it does.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never

from ai_infra.bus.decision import (
    NOTHING,
    Context,
    Decision,
    Delete,
    Done,
    Put,
    Refuse,
    Say,
    StateView,
    Tick,
    Timer,
    Trigger,
    Work,
)
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    ArtifactRevoked,
    EventRefused,
    ManifestSignature,
    Reason,
)
from ai_infra_registry.state import Artifact, Attestation, Claim, Facts, Signature, Verdict, Versions, Waiting

RULES: Final = "registry/v1"
FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(minutes=5)
OWN_FAILURES: Final = 6
"""After so many tries that ended in an error of our own (a bug, a wrong setting), whoever waits gets an answer."""


def decide(state: StateView, trigger: Trigger, context: Context) -> Decision:
    """The registry's answer to a trigger."""
    match trigger:
        case Event(body=ArtifactProduced() as body):
            return _produced(state, trigger, body, context)
        case Event(body=ArtifactRevoked() as body):
            return _revoked(state, trigger, body, context)
        case Done():
            return _done(state, trigger, context)
        case Tick():
            return _tick(state, trigger)
        case Event():
            return NOTHING
        case _:
            assert_never(trigger)


def _produced(state: StateView, event: Event[ArtifactProduced], body: ArtifactProduced, context: Context) -> Decision:
    if state.get(Attestation, body.manifest_sha256) is not None:
        raise Refuse(_attested_before(body.manifest_sha256))
    claim = Claim(
        event_id=event.id,
        event_type=event.type,
        event_hash=event.hash,
        signer=event.signer,
        principal=event.principal,
        model=event.model,
        job_id=body.job_id,
        artifact_id=body.artifact_id,
        artifact_uri=body.artifact_uri,
        artifact_sha256=body.artifact_sha256,
        artifact_bytes=body.artifact_bytes,
        manifest_uri=body.manifest_uri,
        manifest_sha256=body.manifest_sha256,
        provenance=body.provenance,
        input_checksum=body.input_checksum,
        appended=event.append_time,
        now=context.now,
    )
    return Decision(work=(Work("verify", event.id, claim),))


def _revoked(state: StateView, event: Event[ArtifactRevoked], body: ArtifactRevoked, context: Context) -> Decision:
    artifact = state.get(Artifact, body.artifact_id)
    if artifact is None or artifact.model != event.model:
        raise Refuse(Reason(code="unknown_artifact", detail=f"model {event.model} has no artifact {body.artifact_id}"))
    if artifact.revoked is not None:
        raise Refuse(Reason(code="revoked_before", detail=f"{body.artifact_id} is revoked already: {artifact.revoked}"))
    revoked = replace(artifact, revoked=body.reason)
    why = f"version {artifact.version} is revoked by {body.revoked_by}: {body.reason}"
    said = ArtifactRefused(
        artifact_id=body.artifact_id,
        model=artifact.model,
        job_id=None,
        artifact_uri=artifact.uri,
        artifact_sha256=artifact.sha256,
        reasons=(Reason(code="artifact_revoked", detail=why),),
        rules=context.rules,
    )
    return Decision(events=(Say(said, subject=body.artifact_id),), state=(Put(body.artifact_id, revoked),))


def _done(state: StateView, done: Done, context: Context) -> Decision:
    claim: Claim = done.args
    if done.error is not None:
        before = state.get(Waiting, claim.event_id) or Waiting(claim=claim, tries=0, failures=0)
        failures = before.failures + (not done.error.retriable)
        if failures < OWN_FAILURES:
            return _wait(Waiting(claim=claim, tries=before.tries + 1, failures=failures), context)
        return _refused(claim, (Reason(code=done.error.code, detail=done.error.message),), context)
    verdict: Verdict = done.result
    reasons = verdict.reasons
    known = state.get(Artifact, claim.artifact_id)
    if known is not None and known.revoked is not None:
        why = f"these bytes are {claim.artifact_id}, version {known.version}, which is revoked: {known.revoked}"
        reasons = (*reasons, Reason(code="artifact_revoked", detail=why))
    if reasons or verdict.facts is None or verdict.signature is None:
        return _refused(claim, reasons, context)
    if state.get(Attestation, claim.manifest_sha256) is not None:  # its twin was verified at the same time
        return _forget(claim, Say(_answer(claim, context), subject=claim.event_id))
    return _registered(state, claim, verdict.facts, verdict.signature, known, context)


def _registered(
    state: StateView, claim: Claim, facts: Facts, signature: Signature, known: Artifact | None, context: Context
) -> Decision:
    numbering = state.get(Versions, claim.model) or Versions(next=1)
    artifact = Artifact(
        model=claim.model,
        version=known.version if known else numbering.next,
        attestations=known.attestations + 1 if known else 1,
        sha256=facts.artifact_sha256,
        uri=claim.artifact_uri,
    )
    body = ArtifactRegistered(
        artifact_id=claim.artifact_id,
        model=claim.model,
        version=artifact.version,
        new_version=known is None,
        attestation=artifact.attestations,
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
    changes = (
        Put(claim.artifact_id, artifact),
        Put(claim.manifest_sha256, Attestation(artifact_id=claim.artifact_id)),
        *(() if known else (Put(claim.model, Versions(next=numbering.next + 1)),)),
    )
    return _forget(claim, Say(body, subject=claim.artifact_id), *changes)


def _refused(claim: Claim, reasons: tuple[Reason, ...], context: Context) -> Decision:
    body = ArtifactRefused(
        artifact_id=claim.artifact_id,
        model=claim.model,
        job_id=claim.job_id,
        artifact_uri=claim.artifact_uri,
        artifact_sha256=claim.artifact_sha256,
        reasons=reasons,
        rules=context.rules,
    )
    return _forget(claim, Say(body, subject=claim.artifact_id))


def _forget(claim: Claim, say: Say, *changes: Put) -> Decision:
    """The answer to a claim, after which it no longer waits for anything."""
    return Decision(
        events=(say,),
        state=(*changes, Delete(Waiting, claim.event_id)),
        timers=(Timer(_key(claim.event_id), None),),
    )


def _wait(waiting: Waiting, context: Context) -> Decision:
    event_id = waiting.claim.event_id
    wait = min(FIRST_WAIT * 2 ** min(waiting.tries - 1, 16), LONGEST_WAIT)
    return Decision(state=(Put(event_id, waiting),), timers=(Timer(_key(event_id), context.now + wait),))


def _tick(state: StateView, tick: Tick) -> Decision:
    event_id = tick.key.removeprefix("verify/")
    waiting = state.get(Waiting, event_id)
    if waiting is None:
        return NOTHING
    return Decision(work=(Work("verify", event_id, waiting.claim),))


def _attested_before(manifest_sha256: str) -> Reason:
    why = f"manifest {manifest_sha256} is registered already; another run has another manifest"
    return Reason(code="attested_before", detail=why)


def _answer(claim: Claim, context: Context) -> EventRefused:
    return EventRefused(
        model=claim.model,
        event_id=claim.event_id,
        event_type=claim.event_type,
        event_hash=claim.event_hash,
        service=context.service,
        signer=claim.signer,
        reasons=(_attested_before(claim.manifest_sha256),),
        rules=context.rules,
    )


def _key(event_id: str) -> str:
    return f"verify/{event_id}"
