"""The registry's commands: is this artifact, or this manifest, what it claims to be?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, fail, progress, rows, show, stack

artifact_app = typer.Typer(help="Artifacts: where they came from and whether they are what they claim.")

Model = Annotated[
    str | None, typer.Option("--model", help="Look in the log of this model (Kafka) instead of in the index.")
]


@artifact_app.callback()
def _group() -> None:
    """A group even with a single command in it: others add theirs."""


@artifact_app.command("verify")
def verify(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Artifact id, or MODEL@VERSION.")],
    model: Model = None,
    json: Json = False,
) -> None:
    """Check an artifact from its bytes up: registration, SHA-256, manifest, provenance. Exits 1 where one fails."""
    _verify(artifact, model, json)


def verify_manifest(
    artifact_id: Annotated[
        str | None, typer.Option("--artifact-id", help="A registered artifact: id, or MODEL@VERSION.")
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="A manifest file, checked without any service.", exists=True)
    ] = None,
    artifact: Annotated[
        Path | None,
        typer.Option(
            "--artifact", help="With --manifest: the artifact's file; else where the manifest says.", exists=True
        ),
    ] = None,
    provenance: Annotated[
        Path | None,
        typer.Option("--provenance", help="With --manifest: the provenance; else <manifest>.provenance.", exists=True),
    ] = None,
    model: Model = None,
    json: Json = False,
) -> None:
    """Verify a manifest: of a registered artifact, or of a file. Exits 1 where something does not hold."""
    if (artifact_id is None) == (manifest is None):
        fail("say either --artifact-id ID or --manifest FILE", code="usage")
    if artifact_id is not None:
        _verify(artifact_id, model, json)
    elif manifest is not None:
        _verify_file(manifest, artifact, provenance, json)


def _verify(artifact: str, model: str | None, json: bool) -> None:
    from ai_infra.client.gate import Gate
    from ai_infra.objects.store import ObjectStore
    from ai_infra.settings import load_settings
    from ai_infra_registry.evidence import gather
    from ai_infra_registry.examination import examine

    settings = load_settings()
    with progress(f"looking for {artifact}") as say:
        evidence = gather(settings, artifact, model=model)
        gate = Gate(settings)
        try:
            say(f"reading {evidence.artifact_bytes} bytes of {evidence.artifact_uri}")
            with ObjectStore(settings) as objects:
                checks = examine(evidence, objects=objects, keyring=gate.keyring)
        finally:
            gate.close()
    head = {
        "artifact_id": evidence.artifact_id,
        "model": evidence.model,
        "version": evidence.version,
        "status": evidence.status,
        "artifact_uri": evidence.artifact_uri,
        "found_in": evidence.found_in,
    }
    _tell(head, f"{evidence.model} version {evidence.version} ({evidence.artifact_id})", checks, json)


def _verify_file(path: Path, artifact: Path | None, provenance: Path | None, json: bool) -> None:
    from ai_infra.settings import load_settings
    from ai_infra.trust.keyring_files import latest_keyring
    from ai_infra_registry.manifest_file import check_manifest_file

    keys = load_settings().keys.dir
    keyring = latest_keyring(keys) if keys is not None else None
    checks = check_manifest_file(path, artifact=artifact, provenance=provenance, keyring=keyring)
    _tell({"manifest": str(path)}, str(path), checks, json)


def _tell(head: dict[str, Any], title: str, checks: Any, json: bool) -> None:
    from ai_infra_registry.examination import failed

    wrong = failed(checks)
    lines = [("holds" if c.holds else "FAILS", c.name, c.statement) for c in checks]
    reasons = [(c.name, r.code, r.detail) for c in wrong for r in c.reasons]
    parts = [rows(("", "what", "statement"), lines, title=title)]
    if reasons:
        parts.append(rows(("what", "code", "why"), reasons, title="Why"))
    checked = [{"name": c.name, "holds": c.holds, "statement": c.statement, "reasons": c.reasons} for c in checks]
    show({**head, "verified": not wrong, "checks": checked}, json=json, table=lambda: stack(*parts))
    if wrong:
        raise typer.Exit(1)


commands: dict[str, Any] = {"artifact": artifact_app, "verify-manifest": verify_manifest}
