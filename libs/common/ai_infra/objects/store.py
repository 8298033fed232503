"""An object store behind one small face: conditional puts, streamed reads, locks. Safe to share between threads.

A put that meets the same bytes is a success: after a crash, or an answer that got lost, the same put is simply done
again. It must never tell that by an ETag or by metadata, only by hashing what is there.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from datetime import UTC, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from botocore.exceptions import ClientError

from ai_infra.objects.connection import connect, error_code, request
from ai_infra.objects.exceptions import Conflict, NotFound, ObjectsUnavailable
from ai_infra.objects.model import (
    OCTETS,
    Content,
    Digest,
    Head,
    Listed,
    Lock,
    LockMode,
    Put,
    Stored,
    Version,
)
from ai_infra.objects.streaming import Stream, digest, expect
from ai_infra.objects.upload import PART_BYTES, Target, file_digest, put, put_parts
from ai_infra.objects.uri import Location
from ai_infra.settings import Settings

PARALLEL_PUTS: Final = 16
DEFAULT_MAX_BYTES: Final = 64 << 20  # `get` holds the object in memory; larger ones are streamed
_ABSENT: Final = {"IfNoneMatch": "*"}
_RETRY_CONFLICTS: Final = 3
# A repeated put asks for a lock that ends a little later; not worth a request for each object.
_LOCK_SLACK: Final = timedelta(days=1)


class ObjectStore:
    """S3, or a server that behaves like it."""

    def __init__(self, source: Any, *, parallel_puts: int = PARALLEL_PUTS) -> None:
        """`source`: Settings, or a boto3 S3 client that the caller made."""
        self.client: Any = connect(source) if isinstance(source, Settings) else source
        self._pool = ThreadPoolExecutor(parallel_puts, thread_name_prefix="objects-put")

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads of put_many and the connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.client.close()

    # --- put ----------------------------------------------------------------------------------------------------------

    def put_once(
        self,
        uri: str,
        data: bytes | Path,
        *,
        content_type: str = OCTETS,
        lock: Lock | None = None,
        expected_sha256: str | None = None,
    ) -> Stored:
        """Put bytes or a file where nothing is. The same bytes there already: success (`created` False).

        Raises Conflict where other bytes are there, HashMismatch where `expected_sha256` is not that of the data (then
        nothing was put). A file is never held in memory as a whole.
        """
        location = Location.parse(uri)
        if isinstance(data, Path):
            if data.stat().st_size > PART_BYTES:
                return self._put_file_once(Target(location, _ABSENT, content_type, lock), data, expected_sha256)
            data = data.read_bytes()
        found = Digest(hashlib.sha256(data).hexdigest(), len(data))
        expect(found.sha256, expected_sha256, f"what should become {uri}")
        try:
            etag, version_id = self._put(Target(location, _ABSENT, content_type, lock), data)
        except Conflict:
            return self._same(location, found, lock)
        return Stored(str(location), found.sha256, found.bytes, version_id, etag, created=True)

    def put_if_match(
        self, uri: str, data: bytes, etag: str | None, *, content_type: str = OCTETS, lock: Lock | None = None
    ) -> Stored:
        """Put bytes over the version with this ETag; None: where nothing is. Raises Conflict otherwise.

        Our own bytes being there already (an answer got lost) is success, with `created` False.
        """
        location = Location.parse(uri)
        found = Digest(hashlib.sha256(data).hexdigest(), len(data))
        condition = _ABSENT if etag is None else {"IfMatch": etag}
        try:
            new_etag, version_id = self._put(Target(location, condition, content_type, lock), data)
        except (Conflict, NotFound) as error:
            try:
                return self._same(location, found, lock)
            except (Conflict, NotFound):
                raise Conflict(
                    f"{uri} is not at the version {etag or '(absent)'} that was read: another writer was there"
                ) from error
        return Stored(str(location), found.sha256, found.bytes, version_id, new_etag, created=True)

    def put_many(self, puts: Iterable[Put]) -> tuple[Stored, ...]:
        """Put objects once, in parallel; the results are in order.

        The first failure is raised after the puts in flight have ended and the rest were given up: what was put stays
        put, and the same call can be made again.
        """
        futures = [
            self._pool.submit(
                self.put_once,
                item.uri,
                item.data,
                content_type=item.content_type,
                lock=item.lock,
                expected_sha256=item.expected_sha256,
            )
            for item in puts
        ]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        done = [future for future in futures if not future.cancelled()]
        wait(done)
        for future in done:
            error = future.exception()
            if error is not None:
                raise error
        return tuple(future.result() for future in futures)

    def _put(self, target: Target, data: bytes) -> tuple[str, str | None]:
        """A conditional put; S3 answers 409 while another conditional put of the same key is under way."""
        for _ in range(_RETRY_CONFLICTS):
            try:
                return put(self.client, target, data)
            except ObjectsUnavailable as error:
                if error_code(error.__cause__) != "ConditionalRequestConflict":
                    raise
        return put(self.client, target, data)

    def _put_file_once(self, target: Target, path: Path, expected_sha256: str | None) -> Stored:
        uri = str(target.location)
        if self.exists(uri):  # spares sending a large file only to learn that it is there
            found = file_digest(path)
            expect(found.sha256, expected_sha256, str(path))
            return self._same(target.location, found, target.lock)
        try:
            etag, version_id, found = put_parts(self.client, target, path, expected_sha256)
        except (Conflict, NotFound) as error:
            # NotFound: the upload is gone, because its end was sent twice and the first answer got lost.
            try:
                return self._same(target.location, file_digest(path), target.lock)
            except NotFound:
                raise error from None
        return Stored(uri, found.sha256, found.bytes, version_id, etag, created=True)

    def _same(self, location: Location, wanted: Digest, lock: Lock | None) -> Stored:
        """What is there, where its bytes are the wanted ones; raises Conflict otherwise."""
        head = self.head(str(location))
        there = f"{head.bytes} bytes"
        if head.bytes == wanted.bytes:
            found = self.stream_sha256(str(location), version_id=head.version_id)
            there = f"SHA-256 {found.sha256}"
            if found == wanted:
                if lock is not None and _weaker(head.lock, lock):
                    self.extend_lock(str(location), lock, version_id=head.version_id)
                return Stored(str(location), wanted.sha256, wanted.bytes, head.version_id, head.etag, created=False)
        raise Conflict(f"{location} holds other bytes ({there}) than SHA-256 {wanted.sha256}; it is written once")

    # --- read ---------------------------------------------------------------------------------------------------------

    def read(self, uri: str, *, max_bytes: int = DEFAULT_MAX_BYTES, version_id: str | None = None) -> Content:
        """A whole object with the ETag that `put_if_match` takes. Raises TooLarge before reading past the bound."""
        stream = Stream(self.client, Location.parse(uri), max_bytes=max_bytes, version_id=version_id)
        return Content(b"".join(stream), stream.etag, stream.version_id)

    def get(self, uri: str, *, max_bytes: int = DEFAULT_MAX_BYTES, version_id: str | None = None) -> bytes:
        """The bytes of a whole object."""
        return self.read(uri, max_bytes=max_bytes, version_id=version_id).data

    def stream_sha256(self, uri: str, *, max_bytes: int | None = None, version_id: str | None = None) -> Digest:
        """Hash an object of any size in constant memory."""
        return digest(iter(Stream(self.client, Location.parse(uri), max_bytes=max_bytes, version_id=version_id)))

    def download(
        self,
        uri: str,
        path: Path,
        expected_sha256: str | None,
        *,
        max_bytes: int | None = None,
        version_id: str | None = None,
    ) -> Digest:
        """Download to `path`, which comes into being only when all bytes are there and hash as expected.

        `expected_sha256` None is for bytes that are compared later by other means; it must be said.
        """
        stream = Stream(self.client, Location.parse(uri), max_bytes=max_bytes, version_id=version_id)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                found = digest(iter(stream), file)
            expect(found.sha256, expected_sha256, uri)
            Path(name).replace(path)
        finally:
            stream.close()
            Path(name).unlink(missing_ok=True)
        return found

    def head(self, uri: str, *, version_id: str | None = None) -> Head:
        """What the store says of an object; raises NotFound."""
        location = Location.parse(uri)
        with request("head", uri):
            answer = self.client.head_object(Bucket=location.bucket, Key=location.key, **_version(version_id))
        mode, until = answer.get("ObjectLockMode"), answer.get("ObjectLockRetainUntilDate")
        return Head(
            uri=uri,
            bytes=int(answer["ContentLength"]),
            etag=str(answer["ETag"]),
            version_id=answer.get("VersionId"),
            modified=answer["LastModified"],
            content_type=str(answer.get("ContentType", OCTETS)),
            lock=Lock(LockMode(mode), until.astimezone(UTC)) if mode and until else None,
            legal_hold=answer.get("ObjectLockLegalHoldStatus") == "ON",
        )

    def locked(self, uri: str, *, version_id: str | None = None) -> tuple[Lock | None, bool]:
        """The retention of an object, and whether it is held. Raises NotFound.

        Of a version that is named it asks for both: not every store tells a lock of a covered version with `head`.
        """
        if version_id is None:
            head = self.head(uri)
            return head.lock, head.legal_hold
        location = Location.parse(uri)
        where = {"Bucket": location.bucket, "Key": location.key, **_version(version_id)}
        retention: dict[str, Any] = {}
        status = None
        with request("lock", uri), _unlocked_is_none():
            retention = self.client.get_object_retention(**where).get("Retention", {})
        with request("hold", uri), _unlocked_is_none():
            status = self.client.get_object_legal_hold(**where).get("LegalHold", {}).get("Status")
        mode, until = retention.get("Mode"), retention.get("RetainUntilDate")
        return (Lock(LockMode(mode), until.astimezone(UTC)) if mode and until else None), status == "ON"

    def exists(self, uri: str) -> bool:
        """Whether there is a current version."""
        try:
            self.head(uri)
        except NotFound:
            return False
        return True

    def list(self, prefix_uri: str) -> Iterator[Listed]:
        """The current objects whose URI starts with this one, in order of their keys."""
        location = Location.parse_prefix(prefix_uri)
        for page in self._pages("list_objects_v2", location):
            for item in page.get("Contents", ()):
                uri = f"s3://{location.bucket}/{item['Key']}"
                yield Listed(uri, int(item["Size"]), str(item["ETag"]), item["LastModified"])

    def versions(self, prefix_uri: str) -> Iterator[Version]:
        """All versions and delete markers of the objects whose URI starts with this one."""
        location = Location.parse_prefix(prefix_uri)
        for page in self._pages("list_object_versions", location):
            for kind in ("Versions", "DeleteMarkers"):
                for item in page.get(kind, ()):
                    yield Version(
                        uri=f"s3://{location.bucket}/{item['Key']}",
                        version_id=str(item["VersionId"]),
                        latest=bool(item["IsLatest"]),
                        delete_marker=kind == "DeleteMarkers",
                        bytes=int(item.get("Size", 0)),
                        etag=str(item.get("ETag", "")),
                        modified=item["LastModified"],
                    )

    def _pages(self, operation: str, location: Location) -> Iterator[dict[str, Any]]:
        pages = iter(self.client.get_paginator(operation).paginate(Bucket=location.bucket, Prefix=location.key))
        while True:
            with request("list", str(location)):
                page = next(pages, None)
            if page is None:
                return
            yield page

    # --- locks and deletion -------------------------------------------------------------------------------------------

    def extend_lock(self, uri: str, lock: Lock, *, version_id: str | None = None) -> None:
        """Set the retention of a version. A store lets a COMPLIANCE lock grow, never shrink."""
        location = Location.parse(uri)
        with request("lock", uri):
            self.client.put_object_retention(
                Bucket=location.bucket,
                Key=location.key,
                Retention={"Mode": str(lock.mode), "RetainUntilDate": lock.until},
                **_version(version_id),
            )

    def legal_hold(self, uri: str, on: bool, *, version_id: str | None = None) -> None:
        """Hold a version regardless of its retention, or end that."""
        location = Location.parse(uri)
        with request("hold", uri):
            self.client.put_object_legal_hold(
                Bucket=location.bucket,
                Key=location.key,
                LegalHold={"Status": "ON" if on else "OFF"},
                **_version(version_id),
            )

    def delete(self, uri: str, *, version_id: str | None = None, bypass_governance: bool = False) -> None:
        """Delete a version for good, or, without `version_id`, cover the object with a delete marker.

        Raises AccessDenied where a lock forbids it. Deleting what is not there is no error.
        """
        location = Location.parse(uri)
        bypass = {"BypassGovernanceRetention": True} if bypass_governance else {}
        try:
            with request("delete", uri):
                self.client.delete_object(Bucket=location.bucket, Key=location.key, **_version(version_id), **bypass)
        except NotFound:
            return


@contextmanager
def _unlocked_is_none() -> Iterator[None]:
    """What a store answers of an object that has no lock is no error."""
    try:
        yield
    except ClientError as error:
        if error_code(error) != "NoSuchObjectLockConfiguration":
            raise


def _version(version_id: str | None) -> dict[str, str]:
    return {"VersionId": version_id} if version_id and version_id != "null" else {}


def _weaker(there: Lock | None, wanted: Lock) -> bool:
    """Whether what is there is not locked as wanted."""
    if there is None or (wanted.mode is LockMode.COMPLIANCE and there.mode is LockMode.GOVERNANCE):
        return True
    return there.until < wanted.until - _LOCK_SLACK
