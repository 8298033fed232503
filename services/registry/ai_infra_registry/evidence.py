"""What is known of a registered artifact, gathered for somebody who wants to check it: from the index, or from the log.

Nothing here is believed: it says where to look and what was signed. `examination.py` judges it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ai_infra.client.client import Client
from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactProduced, ArtifactRegistered
from ai_infra.manifest.registration import unverified_registration
from ai_infra.readmodel.queries import ReadModel
from ai_infra.readmodel.rows import ArtifactRow
from ai_infra.settings import Settings


class NotRegistered(AiInfraError):
    """There is no such registered artifact where it was looked for."""

    code = "artifact_not_registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A registration and what it is about. `produced` is when the broker appended the artifact.produced."""

    artifact_id: str
    model: str
    version: int
    status: str
    job_id: str | None
    artifact_uri: str
    artifact_sha256: str
    artifact_bytes: int
    manifest_uri: str
    manifest_sha256: str
    input_checksum: str
    envelope: str
    provenance: str | None
    produced: datetime | None
    found_in: str


def gather(settings: Settings, artifact: str, *, model: str | None = None) -> Evidence:
    """The evidence for an artifact id, or `<model>@<version>`. With `model`, from the log itself, else from the index.

    Raises NotRegistered, or what the index or the broker raises.
    """
    name, at, version = artifact.partition("@")
    if at and version.isdigit():
        model = model or (None if settings.database.configured else name)
    if model is not None or not settings.database.configured:
        if model is None:
            raise NotRegistered(
                "without a database an artifact is looked for in the log of its model: say --model, or set "
                "AI_INFRA_DATABASE_URL"
            )
        return _from_log(settings, model, artifact)
    with ReadModel(settings.database.url) as index:
        row = index.artifact_version(name, int(version)) if at and version.isdigit() else index.artifact(artifact)
    if row is None or row.version is None:
        state = "not known to the index" if row is None else f"{row.status}, and has no version"
        raise NotRegistered(f"artifact {artifact} is {state}; `ai-infra artifact list` shows what is registered")
    return _from_row(settings, row, row.version)


def _from_row(settings: Settings, row: ArtifactRow, version: int) -> Evidence:
    envelope = row.manifest_envelope or ""
    provenance, produced = row.provenance, row.produced_at
    stated = unverified_registration(envelope)
    if stated is not None and (provenance is None or sha256_hex(provenance.encode()) != stated.provenance_sha256):
        # An index from before it kept each production: the one that the registration names is still in Kafka.
        event = _produced(settings, row.model, stated.produced_event_id)
        provenance, produced = (event.body.provenance, event.append_time) if event else (None, None)
    return Evidence(
        artifact_id=row.artifact_id,
        model=row.model,
        version=version,
        status=row.status,
        job_id=row.job_id,
        artifact_uri=row.artifact_uri,
        artifact_sha256=row.artifact_sha256,
        artifact_bytes=row.artifact_bytes or 0,
        manifest_uri=row.manifest_uri or "",
        manifest_sha256=row.manifest_sha256 or "",
        input_checksum=row.input_checksum or "",
        envelope=envelope,
        provenance=provenance,
        produced=produced,
        found_in="index",
    )


def _produced(settings: Settings, model: str, event_id: str) -> Event[ArtifactProduced] | None:
    with Client(settings) as client:
        found = client.history([ArtifactProduced], model=model)
    return next((event for event in found if event.id == event_id), None)


def _from_log(settings: Settings, model: str, artifact: str) -> Evidence:
    with Client(settings) as client:
        events = client.history([ArtifactProduced, ArtifactRegistered], model=model)
    found = in_log(events, model, artifact)
    if found is None:
        raise NotRegistered(f"the log of {model}, as far as Kafka still has it, registers no artifact {artifact}")
    return found


def in_log(events: Sequence[Event[Any]], model: str, artifact: str) -> Evidence | None:
    """What a model's events say about an artifact (id, or `model@version`); None where they register none such."""
    version = int(artifact.rpartition("@")[2]) if artifact.rpartition("@")[2].isdigit() else None
    for event in events:
        body = event.body
        if not isinstance(body, ArtifactRegistered) or (body.artifact_id != artifact and body.version != version):
            continue
        stated = unverified_registration(body.manifest_signature.envelope)
        # Not the first cause: what waited in the queue was begun by the end of the registration before it.
        produced = next((e for e in events if stated is not None and e.id == stated.produced_event_id), None)
        return Evidence(
            artifact_id=body.artifact_id,
            model=model,
            version=body.version,
            status="registered",
            job_id=body.job_id,
            artifact_uri=body.artifact_uri,
            artifact_sha256=body.artifact_sha256,
            artifact_bytes=body.artifact_bytes,
            manifest_uri=body.manifest_uri,
            manifest_sha256=body.manifest_sha256,
            input_checksum=body.input_checksum,
            envelope=body.manifest_signature.envelope,
            provenance=produced.body.provenance if produced else None,
            produced=produced.append_time if produced else None,
            found_in="log",
        )
    return None
