"""Looks at an artifact: its bytes, its manifest and its provenance, and whether the three tell one story.

It collects every reason against an artifact rather than stopping at the first. What the object store does not answer is
no reason: it is raised (`ObjectsUnavailable`), so that somebody asks again. It reads, and never writes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.errors import AiInfraError, UnavailableError
from ai_infra.events.canonical import canonical_json, canonical_json_numbers, sha256_hex
from ai_infra.events.generated import Reason
from ai_infra.manifest.dsse import Envelope
from ai_infra.manifest.exceptions import ManifestError
from ai_infra.manifest.identity import artifact_id
from ai_infra.manifest.provenance import disagreements
from ai_infra.manifest.training import MAX_MANIFEST_BYTES, TrainingManifest
from ai_infra.objects.exceptions import NotFound, ObjectsError, TooLarge
from ai_infra.objects.store import ObjectStore
from ai_infra.telemetry import metrics
from ai_infra.trust.exceptions import TrustError
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.provenance import Built, delegation_of, open_built
from ai_infra_registry.state import Claim, Facts, Finding

MAX_LISTS_BYTES: Final = 24 << 10
"""Datasets and parents of a manifest, together: `artifact.registered` repeats them, and has at most 48 KiB."""

MAX_METADATA_BYTES: Final = 6 << 10


@dataclass(frozen=True, slots=True)
class Verification:
    """`keyring(version)` gives the newest keyring, after a short wait for that version where it is not known yet."""

    objects: Callable[[], ObjectStore]
    keyring: Callable[[int], Keyring]

    def verify(self, claim: Claim) -> Finding:
        """Everything that is wrong with what is claimed, or the facts. Raises UnavailableError, worth another try."""
        reasons: list[Reason] = []
        keyring = self.keyring(_named_keyring(claim))
        self._artifact(claim, reasons)
        manifest = self._manifest(claim, reasons)
        built = judge_provenance(claim, keyring, reasons)
        if manifest is not None:
            reasons += _contradictions(claim, manifest)
            reasons += _too_large(manifest)
            if built is not None:
                reasons += _disagreements(built, manifest, claim)
        if reasons or manifest is None or built is None:
            metrics.ARTIFACT_REGISTRATION_LATENCY.labels("refused").observe(_since(claim))
            return Finding(reasons=_distinct(reasons))
        return Finding(reasons=(), facts=_facts(claim, manifest, built, keyring))

    def _artifact(self, claim: Claim, reasons: list[Reason]) -> None:
        expected = artifact_id(claim.model, claim.artifact_sha256) if _is_hex(claim.artifact_sha256) else None
        if expected != claim.artifact_id:
            made = expected or "none: it is no SHA-256"
            why = f"artifact_id is {claim.artifact_id}; model and artifact_sha256 make {made}"
            reasons.append(Reason(code="artifact_id", detail=why))
        try:
            found = self.objects().stream_sha256(claim.artifact_uri, max_bytes=max(claim.artifact_bytes, 0))
        except UnavailableError:
            raise
        except NotFound as error:
            reasons.append(Reason(code="artifact_missing", detail=str(error)))
            return
        except TooLarge as error:
            reasons.append(Reason(code="artifact_bytes", detail=f"longer than was said: {error}"))
            return
        except ObjectsError as error:
            reasons.append(Reason(code="artifact_unreadable", detail=str(error)))
            return
        if found.sha256 != claim.artifact_sha256:
            why = f"{claim.artifact_uri} has SHA-256 {found.sha256}, not {claim.artifact_sha256}"
            reasons.append(Reason(code="artifact_sha256", detail=why))
        if found.bytes != claim.artifact_bytes:
            why = f"{claim.artifact_uri} has {found.bytes} bytes, not {claim.artifact_bytes}"
            reasons.append(Reason(code="artifact_bytes", detail=why))

    def _manifest(self, claim: Claim, reasons: list[Reason]) -> TrainingManifest | None:
        try:
            data = self.objects().get(claim.manifest_uri, max_bytes=MAX_MANIFEST_BYTES)
        except UnavailableError:
            raise
        except NotFound as error:
            reasons.append(Reason(code="manifest_missing", detail=str(error)))
            return None
        except ObjectsError as error:
            reasons.append(Reason(code="manifest_unreadable", detail=str(error)))
            return None
        if (sha256 := sha256_hex(data)) != claim.manifest_sha256:
            why = f"{claim.manifest_uri} has SHA-256 {sha256}, not {claim.manifest_sha256}"
            reasons.append(Reason(code="manifest_sha256", detail=why))
            return None
        try:
            manifest = TrainingManifest.from_bytes(data)
        except ManifestError as error:
            reasons.append(Reason(code=error.code, detail=str(error)))
            return None
        reasons += manifest.problems()
        return manifest


def _named_keyring(claim: Claim) -> int:
    try:
        return delegation_of(Envelope.parse(claim.provenance)).keyring
    except (ManifestError, TrustError):
        return 0  # what is wrong with it is told by `_provenance`


def judge_provenance(claim: Claim, keyring: Keyring, reasons: list[Reason]) -> Built | None:
    """Who built it, by a keyring; where nobody that counts did, the reason is added. Pure."""
    time_ms = int(claim.appended.timestamp() * 1000)
    try:
        envelope = Envelope.parse(claim.provenance)
        return open_built(envelope, keyring, model=claim.model, time_ms=time_ms)
    except (ManifestError, TrustError) as error:
        reasons.append(Reason(code=f"provenance_{error.code}", detail=str(error)))
        return None


def _disagreements(built: Built, manifest: TrainingManifest, claim: Claim) -> tuple[Reason, ...]:
    try:
        return disagreements(built.provenance, manifest, claim.manifest_sha256)
    except ManifestError as error:  # an outside builder's statement, signed and all, may have any form
        return (Reason(code=f"provenance_{error.code}", detail=str(error)),)


def _contradictions(claim: Claim, manifest: TrainingManifest) -> list[Reason]:
    """Every field in which the event and the manifest differ."""
    pairs = (
        ("model", claim.model, manifest.model),
        ("artifact_id", claim.artifact_id, manifest.artifact_id),
        ("artifact_uri", claim.artifact_uri, manifest.artifact_uri),
        ("artifact_sha256", claim.artifact_sha256, manifest.artifact_sha256),
        ("artifact_bytes", claim.artifact_bytes, manifest.artifact_bytes),
        ("job_id", claim.job_id, manifest.training_job_id),
        ("input_checksum", claim.input_checksum, manifest.input_checksum),
    )
    return [
        Reason(
            code=f"manifest_{name}", detail=f"the event says {name} {str(said)[:200]}; the manifest {str(found)[:200]}"
        )
        for name, said, found in pairs
        if said != found
    ]


def _too_large(manifest: TrainingManifest) -> list[Reason]:
    texts = [*manifest.parent_artifacts, manifest.code_ref, manifest.template]
    texts += [part for ref in manifest.dataset_refs for part in (ref.id, ref.checksum, ref.version, ref.uri)]
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
    if size <= MAX_LISTS_BYTES:
        return []
    why = f"datasets and parents have {size} bytes; {MAX_LISTS_BYTES} fit into an event"
    return [Reason(code="manifest_too_large", detail=why)]


def _facts(claim: Claim, manifest: TrainingManifest, built: Built, keyring: Keyring) -> Facts:
    return Facts(
        artifact_sha256=manifest.artifact_sha256,
        artifact_bytes=manifest.artifact_bytes,
        manifest_sha256=claim.manifest_sha256,
        provenance_sha256=sha256_hex(claim.provenance.encode()),
        code_ref=manifest.code_ref,
        container_digest=manifest.container_digest,
        dataset_refs=manifest.dataset_refs,
        parent_artifacts=manifest.parent_artifacts,
        input_checksum=manifest.input_checksum,
        builder_id=built.provenance.builder_id,
        metadata_json=metadata(manifest),
        created_by=built.requested_by or claim.principal,
        keyring_version=keyring.version,
    )


def metadata(manifest: TrainingManifest) -> str:
    """Task, template and metrics as canonical JSON without fractions: `<name>_e6` in millionths where a number fits,
    else its text as `<name>`. Metrics that are too many for an event are given by their SHA-256."""
    measured: dict[str, Any] = {}
    for name, value in manifest.metrics.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if number and abs(value) < 1e9:
            measured[f"{name}_e6"] = round(value * 1_000_000)
        else:
            measured[name] = value if isinstance(value, str) else canonical_json_numbers(value).decode()
    found = {"task": manifest.task, "template": manifest.template, "metrics": measured}
    try:
        text = canonical_json(found).decode()
    except AiInfraError:
        text = ""
    if not text or len(text) > MAX_METADATA_BYTES:
        digest = sha256_hex(canonical_json_numbers(dict(manifest.metrics)))
        text = canonical_json({"task": manifest.task, "template": manifest.template, "metrics_sha256": digest}).decode()
    return text


def _distinct(reasons: list[Reason]) -> tuple[Reason, ...]:
    """Each reason once, in their order."""
    return tuple({(r.code, r.detail): r for r in reasons}.values())


def _since(claim: Claim) -> float:
    return max(0.0, time.time() - claim.appended.timestamp())


def _is_hex(text: str) -> bool:
    return len(text) == 64 and all(c in "0123456789abcdef" for c in text)
