"""Reading objects of any size in constant memory, hashed on the way, resumed where a connection breaks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError

from ai_infra.objects.connection import request
from ai_infra.objects.exceptions import Conflict, HashMismatch, ObjectsUnavailable, TooLarge
from ai_infra.objects.model import Digest
from ai_infra.objects.uri import Location
from ai_infra.telemetry.metrics import OBJECTS_BYTES

CHUNK_BYTES: Final = 1 << 20
_RESUMES: Final = 3  # broken connections in a row, without a byte between them, before giving up


class Writable(Protocol):
    """What chunks are written to, beside being hashed."""

    def write(self, data: bytes, /) -> object:
        """Take one chunk."""
        ...


class Stream:
    """One version of an object as a stream of chunks. `etag` and `version_id` are known once it has been opened.

    A broken connection is resumed at its offset, from the same version: bytes of two versions are never mixed.
    """

    def __init__(self, client: Any, location: Location, *, max_bytes: int | None, version_id: str | None) -> None:
        self._client = client
        self._location = location
        self.version_id = version_id
        self.etag = ""
        self.bytes = 0
        self._body: Any = self._open(0)
        if max_bytes is not None and self.bytes > max_bytes:
            self.close()
            raise TooLarge(f"{location} has {self.bytes} bytes, at most {max_bytes} are allowed")

    def _open(self, offset: int) -> Any:
        extra: dict[str, str] = {}
        if self.version_id:
            extra["VersionId"] = self.version_id
        if offset:
            extra |= {"Range": f"bytes={offset}-", "IfMatch": self.etag}
        with request("get", str(self._location)):
            answer = self._client.get_object(Bucket=self._location.bucket, Key=self._location.key, **extra)
        if offset == 0:
            self.bytes = int(answer["ContentLength"])
            self.etag = str(answer["ETag"])
            # A store without versions says "null"; asking for that version again would be refused by some.
            version = answer.get("VersionId")
            self.version_id = self.version_id or (str(version) if version and version != "null" else None)
        elif answer["ETag"] != self.etag:
            answer["Body"].close()
            raise Conflict(f"{self._location} changed while it was read")
        return answer["Body"]

    def __iter__(self) -> Iterator[bytes]:
        offset, failures = 0, 0
        try:
            while True:
                try:
                    chunk = self._body.read(CHUNK_BYTES)
                    if not chunk and offset < self.bytes:
                        raise ObjectsUnavailable(f"{self._location} ended after {offset} of {self.bytes} bytes")
                except (BotoCoreError, ObjectsUnavailable, OSError) as error:
                    failures += 1
                    if failures > _RESUMES:
                        raise ObjectsUnavailable(f"reading {self._location} broke off repeatedly: {error}") from error
                    self.close()
                    self._body = self._open(offset)
                    continue
                if not chunk:
                    return
                failures = 0
                offset += len(chunk)
                OBJECTS_BYTES.labels("in").inc(len(chunk))
                yield chunk
        finally:
            self.close()

    def close(self) -> None:
        """Give the connection back. Safe to call again."""
        self._body.close()


def digest(chunks: Iterator[bytes], into: Writable | None = None) -> Digest:
    """Hash chunks, writing them to `into` where given."""
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        sha256.update(chunk)
        size += len(chunk)
        if into is not None:
            into.write(chunk)
    return Digest(sha256.hexdigest(), size)


def expect(found: str, expected: str | None, what: str) -> None:
    """Raise HashMismatch unless the SHA-256 is the expected one (None: nothing is expected)."""
    if expected is not None and found != expected:
        raise HashMismatch(f"{what} has SHA-256 {found}, expected {expected}: the bytes were changed or mixed up")
