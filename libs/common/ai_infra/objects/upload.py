"""Sending bytes: one request for small objects, parts for large files, always on a condition, hashed on the way."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ai_infra.objects.connection import request
from ai_infra.objects.exceptions import ObjectsError, TooLarge
from ai_infra.objects.model import Digest, Lock
from ai_infra.objects.streaming import CHUNK_BYTES, expect
from ai_infra.objects.uri import Location
from ai_infra.telemetry.metrics import OBJECTS_BYTES

PART_BYTES: Final = (
    16 << 20
)  # files up to this size travel in one request; it is also the memory that a large one takes
_MAX_PARTS: Final = 10_000
MAX_BYTES: Final = 5 << 40  # S3's own limit of an object


@dataclass(frozen=True, slots=True)
class Target:
    """Where bytes go, what must be there before (S3's own condition arguments), and how they are kept."""

    location: Location
    condition: Mapping[str, str]
    content_type: str
    lock: Lock | None

    def retention(self) -> dict[str, Any]:
        """The lock, as arguments of a put."""
        if self.lock is None:
            return {}
        return {"ObjectLockMode": str(self.lock.mode), "ObjectLockRetainUntilDate": self.lock.until}


def put(client: Any, target: Target, data: bytes) -> tuple[str, str | None]:
    """One conditional PutObject. Returns ETag and VersionId; raises Conflict where the condition fails."""
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    with request("put", str(target.location)):
        answer = client.put_object(
            Bucket=target.location.bucket,
            Key=target.location.key,
            Body=data,
            ContentType=target.content_type,
            ChecksumSHA256=checksum,  # the server refuses bytes that were damaged on the way
            **target.condition,
            **target.retention(),
        )
    OBJECTS_BYTES.labels("out").inc(len(data))
    return str(answer["ETag"]), answer.get("VersionId")


def put_parts(client: Any, target: Target, path: Path, expected_sha256: str | None) -> tuple[str, str | None, Digest]:
    """A multipart upload of a file, one part in memory at a time; nothing becomes visible before all was hashed."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise TooLarge(f"{path} has {size} bytes; an object has at most {MAX_BYTES}")
    what = str(target.location)
    upload = {"Bucket": target.location.bucket, "Key": target.location.key}
    with request("put", what):
        begun = client.create_multipart_upload(
            **upload, ContentType=target.content_type, ChecksumAlgorithm="SHA256", **target.retention()
        )
    upload["UploadId"] = begun["UploadId"]
    try:
        parts, digest = _send_parts(client, upload, path, max(PART_BYTES, -(-size // _MAX_PARTS)))
        if digest.bytes != size:
            raise ObjectsError(f"{path} changed while it was uploaded: {digest.bytes} bytes, {size} before")
        expect(digest.sha256, expected_sha256, str(path))
        with request("put", what):
            answer = client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, **target.condition)
    except BaseException:
        _abort(client, upload)
        raise
    return str(answer["ETag"]), answer.get("VersionId"), digest


def file_digest(path: Path) -> Digest:
    """SHA-256 and length of a file."""
    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            sha256.update(chunk)
            size += len(chunk)
    return Digest(sha256.hexdigest(), size)


def _send_parts(
    client: Any, upload: Mapping[str, str], path: Path, part_bytes: int
) -> tuple[list[dict[str, Any]], Digest]:
    sha256, size = hashlib.sha256(), 0
    parts: list[dict[str, Any]] = []
    with path.open("rb") as file:
        while part := file.read(part_bytes):
            sha256.update(part)
            size += len(part)
            checksum = base64.b64encode(hashlib.sha256(part).digest()).decode()
            number = len(parts) + 1
            with request("put_part", upload["Key"]):
                answer = client.upload_part(**upload, PartNumber=number, Body=part, ChecksumSHA256=checksum)
            OBJECTS_BYTES.labels("out").inc(len(part))
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
    return parts, Digest(sha256.hexdigest(), size)


def _abort(client: Any, upload: Mapping[str, str]) -> None:
    """Free what was uploaded so far. Where that fails too, the bucket's lifecycle does it."""
    try:
        with request("abort", upload["Key"]):
            client.abort_multipart_upload(**upload)
    except ObjectsError:
        return
