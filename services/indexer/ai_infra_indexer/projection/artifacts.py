"""Artifacts: produced, registered with a version, refused, revoked, evaluated; and where they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ai_infra.events.generated import (
    ArtifactProduced,
    ArtifactRefused,
    ArtifactRegistered,
    ArtifactRevoked,
    DatasetRef,
    EvaluationRecorded,
)
from ai_infra.manifest.registration import unverified_registration
from ai_infra_indexer.projection.rows import Mode, RowChange, Sequenced, Value, as_json, foreign_json


def edge(
    said: Sequenced[Any], child: tuple[str, str], relation: str, parent: tuple[str, str], detail: Any = None
) -> RowChange:
    """child <- parent, noted by the first event that says so."""
    return RowChange(
        "lineage_edges",
        {
            "child_kind": child[0],
            "child_id": child[1],
            "relation": relation,
            "parent_kind": parent[0],
            "parent_id": parent[1],
        },
        {"model": said.body.model, "detail": as_json(detail or {}), "position": said.position},
        Mode.FIRST,
    )


def produced(said: Sequenced[ArtifactProduced]) -> tuple[RowChange, ...]:
    body = said.body
    claimed: dict[str, Value] = {
        "status": "produced",
        "job_id": body.job_id,
        "artifact_uri": body.artifact_uri,
        "artifact_sha256": body.artifact_sha256,
        "artifact_bytes": body.artifact_bytes,
        "manifest_uri": body.manifest_uri,
        "manifest_sha256": body.manifest_sha256,
        "input_checksum": body.input_checksum,
        "reasons": None,
        "updated_at": said.at,
        "last_position": said.position,
    }
    birth: dict[str, Value] = {"model": body.model, "created_at": said.at, "first_position": said.position}
    # Until it is registered the newest claim is shown: the one before was refused, or will be told by an attestation.
    # No lineage yet: what a claim says of its origin is a fact once the registry has verified it.
    unless = ("status", ("registered", "revoked"))
    return (
        RowChange("artifacts", {"artifact_id": body.artifact_id}, claimed, on_insert=birth, unless=unless),
        RowChange(
            "productions",
            {"event_id": said.event.id},
            {
                "artifact_id": body.artifact_id,
                "model": body.model,
                "job_id": body.job_id,
                "manifest_uri": body.manifest_uri,
                "manifest_sha256": body.manifest_sha256,
                "provenance": body.provenance,
                "input_checksum": body.input_checksum,
                "produced_at": said.at,
                "position": said.position,
            },
            Mode.FIRST,
        ),
    )


def registered(said: Sequenced[ArtifactRegistered]) -> tuple[RowChange, ...]:
    body = said.body
    values: dict[str, Value] = {
        "version": body.version,
        "attestations": body.attestation,
        "artifact_uri": body.artifact_uri,
        "artifact_sha256": body.artifact_sha256,
        "artifact_bytes": body.artifact_bytes,
        "updated_at": said.at,
        "last_position": said.position,
    }
    # A bit-equal repetition is one more attestation; the artifact keeps what its first registration said.
    first: dict[str, Value] = {
        "job_id": body.job_id,
        "manifest_uri": body.manifest_uri,
        "manifest_sha256": body.manifest_sha256,
        "manifest_signature_id": body.manifest_signature_id,
        "manifest_signer_id": body.manifest_signature.signer_id,
        "manifest_signature": body.manifest_signature.signature,
        "manifest_signed_at": body.manifest_signature.ts,
        "manifest_envelope": body.manifest_signature.envelope,
        "builder_id": body.builder_id,
        "input_checksum": body.input_checksum,
        "code_ref": body.code_ref,
        "container_digest": body.container_digest,
        "dataset_refs": as_json(body.dataset_refs),
        "parent_artifacts": as_json(body.parent_artifacts),
        "metadata": foreign_json(body.metadata_json),
        "created_by": body.created_by,
        "keyring_version": body.keyring_version,
        "registered_at": said.at,
        "status": "registered",
        "reasons": None,
    }
    birth: dict[str, Value] = {"model": body.model, "created_at": said.at, "first_position": said.position}
    key = {"artifact_id": body.artifact_id}
    stated = unverified_registration(body.manifest_signature.envelope)
    changes = [
        RowChange("artifacts", key, {**first, **values}, on_insert=birth, unless=("status", ("revoked",)))
        if body.attestation == 1
        else RowChange("artifacts", key, values, on_insert={**birth, **first}),
        RowChange(
            "attestations",
            {"artifact_id": body.artifact_id, "attestation": body.attestation},
            {
                "job_id": body.job_id,
                "manifest_uri": body.manifest_uri,
                "manifest_sha256": body.manifest_sha256,
                "manifest_signature_id": body.manifest_signature_id,
                "builder_id": body.builder_id,
                "input_checksum": body.input_checksum,
                "created_by": body.created_by,
                "produced_event_id": stated.produced_event_id if stated is not None else None,
                "registered_at": said.at,
                **said.said,
            },
            Mode.FIRST,
        ),
    ]
    if body.new_version:
        changes.append(
            RowChange(
                "versions",
                {"model": body.model, "version": body.version},
                {"artifact_id": body.artifact_id, "registered_at": said.at, "position": said.position},
                Mode.FIRST,
            )
        )
    changes += _origins(said, body.artifact_id, body.dataset_refs, body.parent_artifacts)
    changes.append(edge(said, ("artifact", body.artifact_id), "built_from", ("code", body.code_ref)))
    if body.job_id is not None:
        changes.append(edge(said, ("artifact", body.artifact_id), "trained_by", ("job", body.job_id)))
    return tuple(changes)


def _origins(
    said: Sequenced[Any], artifact_id: str, datasets: Iterable[DatasetRef], parents: Iterable[str]
) -> list[RowChange]:
    child = ("artifact", artifact_id)
    return [
        *(edge(said, child, "trained_on", ("dataset", ref.checksum), ref) for ref in datasets),
        *(edge(said, child, "derived_from", ("artifact", parent)) for parent in parents),
    ]


def refused(said: Sequenced[ArtifactRefused]) -> tuple[RowChange, ...]:
    body = said.body
    values: dict[str, Value] = {
        "status": "refused",
        "reasons": as_json(body.reasons),
        "updated_at": said.at,
        "last_position": said.position,
    }
    birth: dict[str, Value] = {
        "model": body.model,
        "job_id": body.job_id,
        "artifact_uri": body.artifact_uri,
        "artifact_sha256": body.artifact_sha256,
        "created_at": said.at,
        "first_position": said.position,
    }
    # What was registered stays registered: another attestation of the same bytes was refused, not the artifact.
    unless = ("status", ("registered", "revoked"))
    return (RowChange("artifacts", {"artifact_id": body.artifact_id}, values, on_insert=birth, unless=unless),)


def revoked(said: Sequenced[ArtifactRevoked]) -> tuple[RowChange, ...]:
    body = said.body
    values: dict[str, Value] = {
        "status": "revoked",
        "revoked_by": body.revoked_by,
        "revoked_reason": body.reason,
        "revoked_at": said.at,
        "updated_at": said.at,
        "last_position": said.position,
    }
    return (RowChange("artifacts", {"artifact_id": body.artifact_id}, values, Mode.SET),)


def evaluated(said: Sequenced[EvaluationRecorded]) -> tuple[RowChange, ...]:
    body = said.body
    return (
        RowChange(
            "evaluations",
            {"evaluation_id": body.evaluation_id},
            {
                "model": body.model,
                "artifact_id": body.artifact_id,
                "dataset_ref": as_json(body.dataset_ref),
                "score_e6": body.score_e6,
                "metrics_e6": as_json(body.metrics_e6),
                "evaluator": body.evaluator,
                "report_uri": body.report_uri,
                "report_sha256": body.report_sha256,
                "recorded_at": said.at,
                **said.said,
            },
            Mode.FIRST,
        ),
        edge(said, ("evaluation", body.evaluation_id), "evaluates", ("artifact", body.artifact_id)),
        edge(
            said,
            ("evaluation", body.evaluation_id),
            "evaluated_on",
            ("dataset", body.dataset_ref.checksum),
            body.dataset_ref,
        ),
    )


RULES: Final[Mapping[type[Any], Any]] = {
    ArtifactProduced: produced,
    ArtifactRegistered: registered,
    ArtifactRefused: refused,
    ArtifactRevoked: revoked,
    EvaluationRecorded: evaluated,
}
