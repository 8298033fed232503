"""SLSA provenance v1 over a training manifest: what the builder signs.

| manifest                 | field of the statement                                                              |
|--------------------------|-------------------------------------------------------------------------------------|
| model, artifactSha256    | subject[0].name, subject[0].digest.sha256                                           |
| template                 | buildDefinition.buildType                                                           |
| hyperparams, seed,       | buildDefinition.externalParameters (hyperparams, seed, trainingCmd)                 |
| trainingCmd              |                                                                                     |
| codeRef                  | resolvedDependencies: name "code", git+https URI, digest.gitCommit (or image, sha256)|
| containerDigest          | resolvedDependencies: name "container", OCI URI, digest.sha256                      |
| datasetRefs              | resolvedDependencies: name "dataset", URI, digest.sha256, annotations {id, version} |
| parentArtifacts          | resolvedDependencies: name "parent", urn:uuid:<artifact id>                         |
| the trainer              | runDetails.builder.id                                                               |
| trainingJobId, times     | runDetails.metadata (invocationId, startedOn, finishedOn)                           |
| the manifest itself      | runDetails.byproducts: name "manifest", URI, digest.sha256                          |
| metrics                  | runDetails.byproducts: name "metrics", digest of their RFC 8785 JSON                |
| logs                     | runDetails.byproducts: name "log:<name>", URI, digest.sha256                        |

A statement is at most 4,096 bytes (with its DSSE encoding): what does not fit is given by the SHA-256 of its RFC 8785
JSON, in this order: logs, datasets, parents, trainingCmd, hyperparams. The manifest, whose digest is always there, has
the whole lists. This module must never take a fact from the statement that the manifest contradicts: `disagreements`
lists every one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ai_infra.events.avro import rfc3339
from ai_infra.events.canonical import canonical_json_numbers, sha256_hex
from ai_infra.events.exceptions import CanonicalError
from ai_infra.events.generated import Reason
from ai_infra.manifest.code_ref import CodeRef
from ai_infra.manifest.dsse import MAX_SIGNED_BYTES, Envelope, signed_size
from ai_infra.manifest.exceptions import BadStatement, StatementTooLarge
from ai_infra.manifest.identity import dataset_json
from ai_infra.manifest.reading import SHA256_HEX, Fields
from ai_infra.manifest.statement import Statement, Subject, open_statement
from ai_infra.manifest.training import TrainingManifest

PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
_SHORTENED: Final = ("logs", "datasets", "parents", "trainingCmd", "hyperparams")
_MAX_ITEMS: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What the builder knows of a run beside the manifest. `invocation_id` None: the manifest's job id."""

    builder_id: str
    started_on: datetime
    finished_on: datetime
    manifest_uri: str
    invocation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """A verified provenance statement, read."""

    statement: Statement
    builder_id: str
    build_type: str
    artifact_sha256: str
    manifest_sha256: str
    invocation_id: str | None
    started_on: datetime | None
    finished_on: datetime | None


def provenance_statement(manifest: TrainingManifest, run: Run) -> Statement:
    """The statement that a builder signs over its manifest. Raises StatementTooLarge where even digests do not fit."""
    size, manifest_sha256 = 0, manifest.sha256
    for count in range(len(_SHORTENED) + 1):
        statement = _statement(manifest, manifest_sha256, run, frozenset(_SHORTENED[:count]))
        size = signed_size(statement.to_bytes())
        if size <= MAX_SIGNED_BYTES:
            return statement
    raise StatementTooLarge(
        f"the provenance of {manifest.model} has {size} bytes even with lists by digest; at most {MAX_SIGNED_BYTES} "
        "can be signed: shorten its URIs and names"
    )


def open_provenance(envelope: Envelope, public_key: bytes) -> Provenance:
    """Verify an envelope against the builder's key and read it.

    Raises BadEnvelopeSignature, BadEnvelope or BadStatement.
    """
    statement = open_statement(envelope, public_key, PREDICATE_TYPE)
    if len(statement.subjects) != 1:
        raise BadStatement(f"provenance is of one artifact, not of {len(statement.subjects)} subjects")
    predicate = Fields(statement.predicate, BadStatement, "provenance")
    definition, details = predicate.fields("buildDefinition"), predicate.fields("runDetails")
    metadata = details.fields("metadata") if details.has("metadata") else Fields({}, BadStatement, "metadata")
    manifests = [
        item for item in _named(details.list("byproducts", _MAX_ITEMS), "byproducts") if item.get("name") == "manifest"
    ]
    if len(manifests) != 1:
        raise BadStatement(f"provenance names its manifest among the byproducts once, not {len(manifests)} times")
    digest = Fields(manifests[0].get("digest"), BadStatement, "provenance.byproducts[manifest].digest")
    return Provenance(
        statement=statement,
        builder_id=details.fields("builder").text("id"),
        build_type=definition.text("buildType"),
        artifact_sha256=statement.subjects[0].sha256,
        manifest_sha256=digest.text("sha256", SHA256_HEX),
        invocation_id=metadata.optional_text("invocationId") if metadata.has("invocationId") else None,
        started_on=metadata.optional_time("startedOn") if metadata.has("startedOn") else None,
        finished_on=metadata.optional_time("finishedOn") if metadata.has("finishedOn") else None,
    )


def disagreements(provenance: Provenance, manifest: TrainingManifest, manifest_sha256: str) -> tuple[Reason, ...]:
    """Every point in which a verified provenance and the manifest (of this SHA-256, as computed) differ."""
    definition = provenance.statement.predicate["buildDefinition"]
    external = definition.get("externalParameters")
    external = external if isinstance(external, dict) else {}
    dependencies = _named(_list(definition.get("resolvedDependencies")), "resolvedDependencies")
    byproducts = _named(_list(provenance.statement.predicate["runDetails"].get("byproducts")), "byproducts")
    found = [
        _equal("artifact", provenance.artifact_sha256, manifest.artifact_sha256),
        _equal("manifest", provenance.manifest_sha256, manifest_sha256),
        _equal("template", provenance.build_type, manifest.template),
        _equal("job", provenance.invocation_id, manifest.training_job_id) if manifest.training_job_id else None,
        _parameter(external, "hyperparams", dict(manifest.hyperparams)),
        _parameter(external, "trainingCmd", list(manifest.training_cmd)),
        _equal("seed", external.get("seed"), manifest.seed),
        _items("code", dependencies, [_code(manifest)], ()),
        _items("container", dependencies, _container(manifest), ()),
        _items("dataset", dependencies, _datasets(manifest), [dataset_json(ref) for ref in manifest.dataset_refs]),
        _items("parent", dependencies, _parents(manifest), list(manifest.parent_artifacts)),
        _items("metrics", byproducts, [_metrics(manifest)], ()),
    ]
    return tuple(reason for reason in found if reason is not None)


def _statement(manifest: TrainingManifest, manifest_sha256: str, run: Run, short: frozenset[str]) -> Statement:
    external: dict[str, Any] = {"seed": manifest.seed}
    for name, value in (("hyperparams", dict(manifest.hyperparams)), ("trainingCmd", list(manifest.training_cmd))):
        if name in short:
            external[f"{name}Sha256"] = _digest(value)
        else:
            external[name] = value
    datasets = [dataset_json(ref) for ref in manifest.dataset_refs]
    parents = list(manifest.parent_artifacts)
    logs = [log.to_json() for log in manifest.logs]
    return Statement(
        (Subject(manifest.model, manifest.artifact_sha256),),
        PREDICATE_TYPE,
        {
            "buildDefinition": {
                "buildType": manifest.template,
                "externalParameters": external,
                "resolvedDependencies": [
                    _code(manifest),
                    *_container(manifest),
                    *(_whole("dataset", datasets) if "datasets" in short else _datasets(manifest)),
                    *(_whole("parent", parents) if "parents" in short else _parents(manifest)),
                ],
            },
            "runDetails": {
                "builder": {"id": run.builder_id},
                "metadata": {
                    "invocationId": run.invocation_id or manifest.training_job_id,
                    "startedOn": rfc3339(run.started_on),
                    "finishedOn": rfc3339(run.finished_on),
                },
                "byproducts": [
                    {"name": "manifest", "uri": run.manifest_uri, "digest": {"sha256": manifest_sha256}},
                    _metrics(manifest),
                    *(_whole("log", logs) if "logs" in short else _logs(manifest)),
                ],
            },
        },
    )


def _code(manifest: TrainingManifest) -> dict[str, Any]:
    code = CodeRef.parse(manifest.code_ref)
    if code.image_digest is not None:
        return {"name": "code", "uri": f"oci://{code.image_digest}", "digest": _sha256_of(code.image_digest)}
    return {"name": "code", "uri": manifest.code_ref, "digest": {"gitCommit": code.commit}}


def _container(manifest: TrainingManifest) -> list[dict[str, Any]]:
    digest = manifest.container_digest
    return [] if digest is None else [{"name": "container", "uri": f"oci://{digest}", "digest": _sha256_of(digest)}]


def _datasets(manifest: TrainingManifest) -> list[dict[str, Any]]:
    return [
        {
            "name": "dataset",
            "uri": ref.uri,
            "digest": _sha256_of(ref.checksum),
            "annotations": {"id": ref.id, "version": ref.version},
        }
        for ref in manifest.dataset_refs
    ]


def _parents(manifest: TrainingManifest) -> list[dict[str, Any]]:
    return [{"name": "parent", "uri": f"urn:uuid:{parent}"} for parent in manifest.parent_artifacts]


def _metrics(manifest: TrainingManifest) -> dict[str, Any]:
    return {"name": "metrics", "digest": {"sha256": _digest(dict(manifest.metrics))}}


def _logs(manifest: TrainingManifest) -> list[dict[str, Any]]:
    return [{"name": f"log:{log.name}", "uri": log.uri, "digest": {"sha256": log.sha256}} for log in manifest.logs]


def _whole(name: str, value: list[Any]) -> list[dict[str, Any]]:
    """A list by the SHA-256 of its RFC 8785 JSON in place of its items; nothing where there are none."""
    if not value:
        return []
    return [{"name": f"{name}s", "digest": {"sha256": _digest(value)}, "annotations": {"count": len(value)}}]


def _items(
    name: str, listed: Sequence[Mapping[str, Any]], expected: list[dict[str, Any]], whole: Sequence[Any]
) -> Reason | None:
    """Compare the descriptors of one name with those that the manifest makes, or their common digest with the whole."""
    found = [dict(item) for item in listed if item.get("name") == name]
    summary = [dict(item) for item in listed if item.get("name") == f"{name}s"]
    if summary and not found:
        return _equal(name, summary, _whole(name, list(whole)))
    return _equal(name, found + summary, expected)


def _parameter(external: Mapping[str, Any], name: str, expected: Any) -> Reason | None:
    if name in external:
        try:
            said = _canonical(external[name])
        except CanonicalError as error:  # an outside builder's JSON: a number that no two parsers read alike
            said = str(error)
        return _equal(name, said, _canonical(expected))
    return _equal(name, external.get(f"{name}Sha256"), _digest(expected))


def _equal(name: str, said: Any, expected: Any) -> Reason | None:
    if said == expected:
        return None
    return Reason(
        code=f"provenance_{name.lower()}",
        detail=f"the provenance says of {name}: {str(said)[:300]}; the manifest makes it {str(expected)[:300]}",
    )


def _named(items: Sequence[Any], where: str) -> list[Mapping[str, Any]]:
    for item in items:
        if not isinstance(item, dict):
            raise BadStatement(f"provenance.{where}: expected objects, got {type(item).__name__}")
    return list(items)


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _sha256_of(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _canonical(value: Any) -> str:
    return canonical_json_numbers(value).decode()


def _digest(value: Any) -> str:
    return sha256_hex(canonical_json_numbers(value))
