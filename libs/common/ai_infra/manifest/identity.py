"""Ids that anybody can recompute: of an artifact, of a manifest's signature, of a training's inputs.

Namespaces are UUIDv5 of names below the DNS namespace, so that they are documented by being derived:
`artifact.ai-infra` and `manifest-signature.ai-infra`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ai_infra.events.canonical import canonical_json_numbers
from ai_infra.events.generated import DatasetRef
from ai_infra.manifest.exceptions import BadManifest
from ai_infra.manifest.reading import SHA256_HEX

ARTIFACT_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "artifact.ai-infra")
SIGNATURE_NAMESPACE: Final = uuid.uuid5(uuid.NAMESPACE_DNS, "manifest-signature.ai-infra")


def artifact_id(model: str, artifact_sha256: str) -> str:
    """UUIDv5(ARTIFACT_NAMESPACE, "<model>/<sha256 hex>"): the same bytes for the same model are the same artifact."""
    if not SHA256_HEX.fullmatch(artifact_sha256):
        raise BadManifest(f"an artifact's SHA-256 is 64 lowercase hex digits, not {artifact_sha256[:80]!r}")
    return str(uuid.uuid5(ARTIFACT_NAMESPACE, f"{model}/{artifact_sha256}"))


def manifest_signature_id(envelope: bytes) -> str:
    """UUIDv5(SIGNATURE_NAMESPACE, hex SHA-256 of the envelope's bytes as they are in the event)."""
    return str(uuid.uuid5(SIGNATURE_NAMESPACE, hashlib.sha256(envelope).hexdigest()))


def input_checksum(
    *,
    code_ref: str,
    container_digest: str | None,
    hyperparams: Mapping[str, Any],
    dataset_refs: Sequence[DatasetRef],
    seed: int,
) -> str:
    """Hex SHA-256 over everything that goes into a training; equal inputs have equal checksums.

    Hashed are five lines, each ended by a newline: the code reference; the container digest (an empty line where there
    is none); the hyperparameters and then the list of datasets, both as RFC 8785 JSON; the seed in decimal. So a worker
    in any language can say `printf '%s\\n' "$code" "$container" "$hyperparams" "$datasets" "$seed" | sha256sum`.
    """
    lines = [
        code_ref.encode(),
        (container_digest or "").encode(),
        canonical_json_numbers(dict(hyperparams)),
        canonical_json_numbers([dataset_json(ref) for ref in dataset_refs]),
        str(seed).encode(),
    ]
    if any(b"\n" in line for line in lines):
        raise BadManifest("a code reference and a container digest are one line each")
    return hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()


def dataset_json(ref: DatasetRef) -> dict[str, str]:
    """A dataset reference as JSON: `{id, checksum, version, uri}`."""
    return {"id": ref.id, "checksum": ref.checksum, "version": ref.version, "uri": ref.uri}
