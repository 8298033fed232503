"""What the registry knew, from what it has said: versions, artifacts, attestations and revocations. Pure.

An artifact that was being verified, or whose number was under the pen, is verified and numbered anew: a signature that
was not said is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from ai_infra.bus.decision import Put
from ai_infra.bus.restoring import Past, Recalled, Restorer
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactProduced, ArtifactRefused, ArtifactRegistered, ArtifactRevoked
from ai_infra.manifest.registration import unverified_registration
from ai_infra_registry.service import LISTENS, SAYS
from ai_infra_registry.state import Artifact, Attestation, Versions


def recall(past: Past) -> Recalled:
    """The registry's records, and what it has answered."""
    versions: dict[str, Versions] = {}
    artifacts: dict[str, Artifact] = {}
    attested: dict[str, Attestation] = {}
    settled: set[str] = set()
    for said in past.said:
        match said.body:
            case ArtifactRegistered() as body:
                known = versions.get(body.model) or Versions(next=1, verified=0)
                versions[body.model] = Versions(next=max(known.next, body.version + 1), verified=known.verified + 1)
                artifacts[body.artifact_id] = Artifact(
                    model=body.model,
                    version=body.version,
                    attestations=body.attestation,
                    sha256=body.artifact_sha256,
                    uri=body.artifact_uri,
                )
                attested[body.manifest_sha256] = Attestation(artifact_id=body.artifact_id)
                stated = unverified_registration(body.manifest_signature.envelope)  # our own word
                if stated is not None:
                    settled.add(stated.produced_event_id)
            case ArtifactRefused() as body:
                answered = next(_refused_by(past, said, body, settled), None)
                if answered is None:
                    continue
                settled.add(answered.id)
                artifact = artifacts.get(body.artifact_id)
                if isinstance(answered.body, ArtifactRevoked) and artifact is not None:
                    artifacts[body.artifact_id] = replace(artifact, revoked=answered.body.reason)
    records = [Put(i, record) for found in (versions, artifacts, attested) for i, record in found.items()]
    return Recalled(records, settled)


def _refused_by(past: Past, said: Event[Any], body: ArtifactRefused, settled: set[str]) -> Iterator[Event[Any]]:
    """What a refusal may answer, the likeliest first: its cause, or another claim about the same artifact, which waited
    behind that one for its number."""
    cause = past.heard.get(said.causes[0].id) if said.causes else None
    if cause is not None and cause.id not in settled and _is_about(cause, body):
        yield cause
    for event in past.heard.values():
        if event.id not in settled and isinstance(event.body, ArtifactProduced) and _is_about(event, body):
            yield event


def _is_about(event: Event[Any], body: ArtifactRefused) -> bool:
    asked = event.body
    if isinstance(asked, ArtifactRevoked):
        return event.model == body.model and asked.artifact_id == body.artifact_id
    return isinstance(asked, ArtifactProduced) and (
        (asked.artifact_id, asked.artifact_sha256, asked.artifact_uri, asked.job_id)
        == (body.artifact_id, body.artifact_sha256, body.artifact_uri, body.job_id)
    )


RESTORER: Final = Restorer("registry", frozenset((*LISTENS, *SAYS)), recall)
