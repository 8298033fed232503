"""Checks a manifest that lies in a file, with no service at all: its form, its ids, its artifact, its provenance."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import Reason
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.exceptions import ManifestError
from ai_infra.manifest.provenance import disagreements
from ai_infra.manifest.training import TrainingManifest
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.provenance import delegation_of, open_built
from ai_infra_registry.examination import Check


def check_manifest_file(
    path: Path, *, artifact: Path | None = None, provenance: Path | None = None, keyring: Keyring | None = None
) -> tuple[Check, ...]:
    """All checks that the files at hand allow. The provenance is `<manifest>.provenance` where none is named."""
    data = path.read_bytes()
    try:
        manifest = TrainingManifest.from_bytes(data)
    except ManifestError as error:
        return (Check("manifest", "canonical, and complete", (Reason(code=error.code, detail=str(error)),)),)
    checks = [Check("manifest", "canonical, complete, ids follow from what it says", manifest.problems())]
    checks.append(_artifact(manifest, artifact))
    beside = path.with_name(path.name + ".provenance")
    found = provenance or (beside if beside.is_file() else None)
    if found is not None:
        checks.append(_provenance(manifest, sha256_hex(data), found, keyring))
    return tuple(checks)


def _artifact(manifest: TrainingManifest, given: Path | None) -> Check:
    statement = f"{manifest.artifact_bytes} bytes with SHA-256 {manifest.artifact_sha256}"
    parts = urlsplit(manifest.artifact_uri)
    path = given or (Path(unquote(parts.path)) if parts.scheme == "file" else None)
    if path is None or not path.is_file():
        where = path or manifest.artifact_uri
        why = f"{where} is no file here; name the artifact's file with --artifact"
        return Check("artifact", statement, (Reason(code="artifact_missing", detail=why),))
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if sha256 == manifest.artifact_sha256 and path.stat().st_size == manifest.artifact_bytes:
        return Check("artifact", statement, ())
    why = f"{path} has {path.stat().st_size} bytes with SHA-256 {sha256}"
    return Check("artifact", statement, (Reason(code="artifact_sha256", detail=why),))


def _provenance(manifest: TrainingManifest, sha256: str, path: Path, keyring: Keyring | None) -> Check:
    statement = f"{path.name} is of this manifest, by a builder of the keyring"
    if keyring is None:
        why = "there is no keyring here to check it by: set AI_INFRA_KEYS_DIR"
        return Check("provenance", statement, (Reason(code="no_keyring", detail=why),))
    try:
        envelope = Envelope.parse(path.read_bytes())
        # No broker has seen it, so there is no time but its own: it is judged as of when the delegation began.
        time_ms = delegation_of(envelope).not_before * 1000
        built = open_built(envelope, keyring, model=manifest.model, time_ms=time_ms)
    except AiInfraError as error:
        return Check("provenance", statement, (Reason(code=error.code, detail=str(error)),))
    return Check("provenance", statement, disagreements(built.provenance, manifest, sha256))
