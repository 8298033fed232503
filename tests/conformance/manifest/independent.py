"""A second reading of manifests and envelopes: the standard library and an Ed25519 implementation, nothing of ours.

    python independent.py vectors.json

It knows the formats from the docstrings of `ai_infra.manifest` alone. Exits 1 and says what differs.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from nacl.signing import VerifyKey


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def uuid_below(name: str, value: str) -> str:
    return str(uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, name), value))


def canonical(value: Any) -> bytes:
    """RFC 8785 for what the vectors hold: ASCII names, and numbers that Python and JavaScript write alike."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def check_manifest(text: str, expected: dict[str, str]) -> None:
    manifest = json.loads(text)
    assert canonical(manifest) == text.encode(), "the manifest is not canonical"
    assert sha256(text.encode()) == expected["manifest_sha256"]
    artifact = f"{manifest['model']}/{manifest['artifactSha256']}"
    assert uuid_below("artifact.ai-infra", artifact) == manifest["artifactId"] == expected["artifact_id"]
    lines = [
        manifest["codeRef"].encode(),
        (manifest["containerDigest"] or "").encode(),
        canonical(manifest["hyperparams"]),
        canonical(manifest["datasetRefs"]),
        str(manifest["seed"]).encode(),
    ]
    checksum = sha256(b"".join(line + b"\n" for line in lines))
    assert checksum == manifest["inputChecksum"] == expected["input_checksum"]


def open_envelope(text: str, public_key: str) -> Any:
    envelope = json.loads(text)
    payload = base64.b64decode(envelope["payload"])
    kind = envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    assert len(message) <= 4096, "a KMS could not have signed this"
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    VerifyKey(base64.b64decode(public_key)).verify(message, signature)
    statement = json.loads(payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    return statement


def check(vectors: dict[str, Any]) -> None:
    check_manifest(vectors["manifest"], vectors)
    manifest, key = json.loads(vectors["manifest"]), vectors["public_key"]
    provenance = open_envelope(vectors["provenance"], key)
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    assert provenance["subject"][0]["digest"]["sha256"] == manifest["artifactSha256"]
    byproducts = {item["name"]: item for item in provenance["predicate"]["runDetails"]["byproducts"]}
    assert byproducts["manifest"]["digest"]["sha256"] == vectors["manifest_sha256"]
    registration = open_envelope(vectors["registration"], key)
    subjects = {item["name"]: item["digest"]["sha256"] for item in registration["subject"]}
    assert subjects == {"artifact": manifest["artifactSha256"], "manifest": vectors["manifest_sha256"]}
    assert registration["predicate"]["provenance_sha256"] == sha256(vectors["provenance"].encode())
    signature_id = uuid_below("manifest-signature.ai-infra", sha256(vectors["registration"].encode()))
    assert signature_id == vectors["manifest_signature_id"]
    decision = open_envelope(vectors["decision"], key)
    assert decision["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert decision["predicate"]["verificationResult"] == "PASSED"
    assert decision["predicate"]["aiInfra_promotion"]["manifest_signature_id"] == signature_id
    approval = open_envelope(vectors["approval"], key)
    assert decision["predicate"]["inputAttestations"] == [{"digest": {"sha256": sha256(vectors["approval"].encode())}}]
    assert approval["predicate"]["decision"] == "approve"


if __name__ == "__main__":
    try:
        check(json.loads(Path(sys.argv[1]).read_text()))
    except AssertionError as error:
        sys.exit(f"the vectors do not hold: {error}")
    print("all vectors hold")
