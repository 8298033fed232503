"""What the registry decides: pure, rules `registry/v1`.

Versions of a model are dense, from 1, in the order in which verifications end. The same bytes for the same model are
the same artifact: a further run that produced them is one more attestation, never a version. An artifact is refused for
what is wrong with it, never for a store or a signing service that did not answer: that is tried again until it does.

The version is part of what is signed, so a model has one registration at a time under the pen; the next gets its number
when that one is said. A signature that takes long holds up its model, and no other.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final, assert_never

from ai_infra.bus.decision import (
    NOTHING,
    Context,
    Decision,
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
from ai_infra.bus.fitting import fitted
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactProduced, ArtifactRefused, ArtifactRevoked, Reason
from ai_infra_registry.answers import attested_before, refused
from ai_infra_registry.queue import finish_signing, found_sound, sign_again
from ai_infra_registry.state import Artifact, Attestation, Claim, Finding, Signing, Waiting

RULES: Final = "registry/v1"
FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(minutes=5)
OWN_FAILURES: Final = 6
"""After so many tries that ended in an error of our own (a bug, a wrong setting), whoever waits gets an answer."""


def decide(state: StateView, trigger: Trigger, context: Context) -> Decision:
    """The registry's answer to a trigger."""
    match trigger:
        case Event(body=ArtifactProduced() as body):
            return _produced(state, trigger, body)
        case Event(body=ArtifactRevoked() as body):
            return _revoked(state, trigger, body, context)
        case Done(kind="verify"):
            return _verified(state, trigger, context)
        case Done():
            return _signed(state, trigger, context)
        case Tick():
            return _tick(state, trigger)
        case Event():
            return NOTHING
        case _:
            assert_never(trigger)


def _produced(state: StateView, event: Event[ArtifactProduced], body: ArtifactProduced) -> Decision:
    if state.get(Attestation, body.manifest_sha256) is not None:
        raise Refuse(attested_before(body.manifest_sha256))
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
    )
    return Decision(work=(Work("verify", event.id, claim),))


def _revoked(state: StateView, event: Event[ArtifactRevoked], body: ArtifactRevoked, context: Context) -> Decision:
    artifact = state.get(Artifact, body.artifact_id)
    if artifact is None or artifact.model != event.model:
        raise Refuse(Reason(code="unknown_artifact", detail=f"model {event.model} has no artifact {body.artifact_id}"))
    if artifact.revoked is not None:
        raise Refuse(Reason(code="revoked_before", detail=f"{body.artifact_id} is revoked already: {artifact.revoked}"))
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
    return Decision(
        events=(Say(fitted(said), subject=body.artifact_id),),
        state=(Put(body.artifact_id, replace(artifact, revoked=body.reason)),),
    )


def _verified(state: StateView, done: Done, context: Context) -> Decision:
    claim: Claim = done.args
    if done.error is not None:
        before = state.get(Waiting, claim.event_id) or Waiting(claim=claim, tries=0, failures=0)
        failures = before.failures + (not done.error.retriable)
        if failures < OWN_FAILURES:
            return _wait(Waiting(claim=claim, tries=before.tries + 1, failures=failures), context)
        return refused(claim, (Reason(code=done.error.code, detail=done.error.message),), context)
    finding: Finding = done.result
    if finding.reasons or finding.facts is None:
        return refused(claim, finding.reasons, context)
    return found_sound(state, claim, finding.facts, context)


def _signed(state: StateView, done: Done, context: Context) -> Decision:
    signing = state.get(Signing, done.model)
    if signing is None or signing.event_id != done.args.registration.produced_event_id:
        return NOTHING
    if done.error is not None:
        # Never given up: the fault is ours (the key, the KMS), the number is taken, and others wait behind it.
        again = replace(signing, tries=signing.tries + 1)
        at = context.now + _pause(again.tries)
        return Decision(state=(Put(done.model, again),), timers=(Timer(f"sign/{done.model}", at),))
    return finish_signing(state, done.model, signing, done.result, context)


def _tick(state: StateView, tick: Tick) -> Decision:
    purpose, _, name = tick.key.partition("/")
    if purpose == "sign":
        return sign_again(state, name)
    waiting = state.get(Waiting, name)
    return NOTHING if waiting is None else Decision(work=(Work("verify", name, waiting.claim),))


def _wait(waiting: Waiting, context: Context) -> Decision:
    event_id = waiting.claim.event_id
    at = context.now + _pause(waiting.tries)
    return Decision(state=(Put(event_id, waiting),), timers=(Timer(f"verify/{event_id}", at),))


def _pause(tries: int) -> timedelta:
    return min(FIRST_WAIT * (1 << min(tries - 1, 16)), LONGEST_WAIT)
