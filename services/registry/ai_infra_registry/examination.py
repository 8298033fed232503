"""Checks a registered artifact again, from its bytes up, as the registry did and as anybody may: which statement holds,
which does not, and why. It trusts the keyring alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import Reason
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.registration import Registration, open_registration
from ai_infra.objects.store import ObjectStore
from ai_infra.trust.keyring import MANIFEST, Keyring
from ai_infra_registry.evidence import Evidence
from ai_infra_registry.state import Claim
from ai_infra_registry.verification import Verification


@dataclass(frozen=True, slots=True)
class Check:
    """One statement that was checked; `reasons` is empty where it holds."""

    name: str
    statement: str
    reasons: tuple[Reason, ...]

    @property
    def holds(self) -> bool:
        return not self.reasons


def examine(evidence: Evidence, *, objects: ObjectStore, keyring: Keyring) -> tuple[Check, ...]:
    """All checks of an artifact: its registration, its bytes, its manifest, its provenance."""
    registration, why = _registration(evidence, keyring)
    checks = [
        Check("registration", f"the manifest key signed version {evidence.version} of {evidence.model}", why),
    ]
    if evidence.provenance is None or evidence.produced is None:
        missing = Reason(code="provenance_missing", detail="the artifact.produced that was registered is not to be had")
        return (*checks, Check("provenance", "a builder of the keyring made it", (missing,)))
    found = Verification(lambda: objects, lambda _: keyring).verify(_claim(evidence, evidence.provenance))
    reasons = list(found.reasons)
    if registration is not None and sha256_hex(evidence.provenance.encode()) != registration.provenance_sha256:
        why_not = "the provenance is not the one that the manifest key signed for"
        reasons.append(Reason(code="provenance_sha256", detail=why_not))
    about_provenance = [r for r in reasons if r.code.startswith("provenance")]
    about_artifact = [r for r in reasons if r.code.startswith("artifact")]
    about_manifest = [r for r in reasons if r not in about_provenance and r not in about_artifact]
    return (
        *checks,
        Check(
            "artifact", f"{evidence.artifact_bytes} bytes with SHA-256 {evidence.artifact_sha256}", (*about_artifact,)
        ),
        Check("manifest", f"SHA-256 {evidence.manifest_sha256}, canonical, in itself consistent", (*about_manifest,)),
        Check("provenance", "a builder of the keyring made this from that", (*about_provenance,)),
    )


def _registration(evidence: Evidence, keyring: Keyring) -> tuple[Registration | None, tuple[Reason, ...]]:
    """The registration, verified, and every reason why it is none."""
    try:
        envelope = Envelope.parse(evidence.envelope)
    except AiInfraError as error:
        return None, (Reason(code=error.code, detail=str(error)),)
    hints = [signature.key_id for signature in envelope.signatures]
    keys = [key for hint in hints if (key := keyring.key_of(hint, MANIFEST)) is not None]
    if not keys:
        detail = f"signed by {', '.join(hints)[:200]}, which the keyring (version {keyring.version}) does not name"
        return None, (Reason(code="unknown_manifest_key", detail=f"{detail} as a manifest key"),)
    if keys[0].id in keyring.revocations:
        return None, (Reason(code="revoked_key", detail=f"the manifest key {keys[0].id} is revoked"),)
    expected = {
        "artifact_id": evidence.artifact_id,
        "model": evidence.model,
        "version": evidence.version,
        "artifact_sha256": evidence.artifact_sha256,
        "artifact_bytes": evidence.artifact_bytes,
        "manifest_sha256": evidence.manifest_sha256,
        "input_checksum": evidence.input_checksum,
    }
    try:
        return open_registration(evidence.envelope, keys[0].public_key, expected=expected), ()
    except AiInfraError as error:
        return None, (Reason(code=error.code, detail=str(error)),)


def _claim(evidence: Evidence, provenance: str) -> Claim:
    if evidence.produced is None:
        raise ValueError("evidence without the time at which the artifact was said to exist")
    return Claim(
        event_id="",
        event_type="artifact.produced",
        event_hash="",
        signer="",
        principal="",
        model=evidence.model,
        job_id=evidence.job_id,
        artifact_id=evidence.artifact_id,
        artifact_uri=evidence.artifact_uri,
        artifact_sha256=evidence.artifact_sha256,
        artifact_bytes=evidence.artifact_bytes,
        manifest_uri=evidence.manifest_uri,
        manifest_sha256=evidence.manifest_sha256,
        provenance=provenance,
        input_checksum=evidence.input_checksum,
        appended=evidence.produced,
    )


def failed(checks: Iterable[Check]) -> list[Check]:
    """Those that do not hold."""
    return [check for check in checks if not check.holds]
