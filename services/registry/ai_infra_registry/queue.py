"""The queue of a model's sound artifacts for a number and a signature: one at a time, in the order they were found
sound, so that numbers are dense and said in order. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ai_infra.bus.decision import NOTHING, Context, Decision, Delete, Put, StateView, Timer, Work
from ai_infra.events.generated import Reason
from ai_infra.manifest.registration import Registration
from ai_infra_registry.answers import answered_before, forget, refused, registered
from ai_infra_registry.state import Artifact, Attestation, Claim, Facts, Signature, Signing, ToSign, Verified, Versions


@dataclass
class _Model:
    """A model's share of the state, with what the present decision has already changed."""

    name: str
    versions: Versions
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    attested: set[str] = field(default_factory=set)

    def artifact(self, state: StateView, artifact_id: str) -> Artifact | None:
        return self.artifacts.get(artifact_id) or state.get(Artifact, artifact_id)

    def was_attested(self, state: StateView, manifest_sha256: str) -> bool:
        return manifest_sha256 in self.attested or state.get(Attestation, manifest_sha256) is not None


def found_sound(state: StateView, claim: Claim, facts: Facts, context: Context) -> Decision:
    """A verified artifact joins the queue, and is signed at once when nobody is before it."""
    versions = state.get(Versions, claim.model) or Versions(next=1, verified=0)
    versions = replace(versions, verified=versions.verified + 1)
    verified = Verified(claim=claim, facts=facts, order=versions.verified)
    joined = Decision(state=(Put(claim.model, versions), Put(claim.event_id, verified)))
    if state.get(Signing, claim.model) is not None:
        return joined
    return _together(joined, _next(state, _Model(claim.model, versions), [verified], context))


def finish_signing(state: StateView, model: str, signing: Signing, signature: Signature, context: Context) -> Decision:
    """The signed registration is said (or refused, if it was revoked meanwhile), and the next one begins."""
    verified = state.get(Verified, signing.event_id)
    versions = state.get(Versions, model)
    if verified is None or versions is None:
        return NOTHING
    claim, facts = verified.claim, verified.facts
    here = _Model(model, versions)
    known = state.get(Artifact, claim.artifact_id)
    if known is not None and known.revoked is not None:
        answer = refused(claim, (_is_revoked(claim, known),), context)
    else:
        if known is None:
            here.versions = replace(versions, next=signing.registration.version + 1)
        artifact = Artifact(
            model=model,
            version=signing.registration.version,
            attestations=signing.attestation,
            sha256=facts.artifact_sha256,
            uri=claim.artifact_uri,
        )
        here.artifacts[claim.artifact_id] = artifact
        here.attested.add(claim.manifest_sha256)
        answer = forget(
            claim,
            registered(claim, facts, signing, signature, context),
            Put(model, here.versions),
            Put(claim.artifact_id, artifact),
            Put(claim.manifest_sha256, Attestation(artifact_id=claim.artifact_id)),
        )
    queue = sorted(
        (v for i, v in state.all(Verified) if v.claim.model == model and i != signing.event_id), key=lambda v: v.order
    )
    done = Decision(state=(Delete(Signing, model),), timers=(Timer(f"sign/{model}", None),))
    return _together(answer, done, _next(state, here, queue, context))


def sign_again(state: StateView, model: str) -> Decision:
    """Ask once more for the signature that the model waits for."""
    signing = state.get(Signing, model)
    if signing is None or (verified := state.get(Verified, signing.event_id)) is None:
        return NOTHING
    return Decision(work=(_work(signing, verified),))


def _next(state: StateView, model: _Model, queue: list[Verified], context: Context) -> Decision:
    """Begin with the first of the queue that may still be registered; answer those before it that may not."""
    answers: list[Decision] = []
    for verified in queue:
        claim = verified.claim
        known = model.artifact(state, claim.artifact_id)
        if model.was_attested(state, claim.manifest_sha256):
            answers.append(answered_before(claim, context))
        elif known is not None and known.revoked is not None:
            answers.append(refused(claim, (_is_revoked(claim, known),), context))
        else:
            signing = Signing(
                event_id=claim.event_id,
                registration=_registration(verified, known.version if known else model.versions.next, context),
                new_version=known is None,
                attestation=known.attestations + 1 if known else 1,
                tries=0,
            )
            return _together(*answers, Decision(state=(Put(model.name, signing),), work=(_work(signing, verified),)))
    return _together(*answers)


def _registration(verified: Verified, version: int, context: Context) -> Registration:
    claim, facts = verified.claim, verified.facts
    return Registration(
        artifact_id=claim.artifact_id,
        model=claim.model,
        version=version,
        artifact_sha256=facts.artifact_sha256,
        artifact_bytes=facts.artifact_bytes,
        manifest_sha256=facts.manifest_sha256,
        provenance_sha256=facts.provenance_sha256,
        input_checksum=facts.input_checksum,
        builder_id=facts.builder_id,
        produced_event_id=claim.event_id,
        keyring_version=facts.keyring_version,
        rules=context.rules,
        registered_at=context.now,
    )


def _work(signing: Signing, verified: Verified) -> Work:
    args = ToSign(registration=signing.registration, appended=verified.claim.appended)
    return Work("sign", signing.event_id, args)


def _is_revoked(claim: Claim, artifact: Artifact) -> Reason:
    why = f"these bytes are {claim.artifact_id}, version {artifact.version}, which is revoked: {artifact.revoked}"
    return Reason(code="artifact_revoked", detail=why)


def _together(*decisions: Decision) -> Decision:
    """Several decisions as one, in their order."""
    return Decision(
        events=tuple(e for d in decisions for e in d.events),
        state=tuple(s for d in decisions for s in d.state),
        timers=tuple(t for d in decisions for t in d.timers),
        work=tuple(w for d in decisions for w in d.work),
    )
