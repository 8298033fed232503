"""The object store: put once, locked, streamed and hashed. For everything that is too large for an event.

What is read from here is believed only after its SHA-256 has been compared with one that somebody signed. This room
must never overwrite an object by accident: every put says what it expects to find there.

    store.py     ObjectStore(settings or boto3 S3 client), thread-safe; `with ObjectStore(settings) as store`
        .put_once(uri, data: bytes | Path, *, content_type=..., lock=None, expected_sha256=None) -> Stored
        .put_if_match(uri, data: bytes, etag: str | None, *, content_type=..., lock=None) -> Stored   (None: not there)
        .put_many(puts: Iterable[Put]) -> tuple[Stored, ...]       in parallel, in order; the first failure is raised
        .get(uri, *, max_bytes=..., version_id=None) -> bytes     .read(...) -> Content(data, head)
        .head(uri, *, version_id=None) -> Head                    .exists(uri) -> bool
        .stream_sha256(uri, *, max_bytes=None, version_id=None) -> Digest(sha256, bytes)
        .download(uri, path, expected_sha256, *, max_bytes=None, version_id=None) -> Digest
        .list(prefix_uri) -> Iterator[Listed]                     .versions(prefix_uri) -> Iterator[Version]
        .extend_lock(uri, lock, *, version_id=None)               .legal_hold(uri, on, *, version_id=None)
        .locked(uri, *, version_id=None) -> (Lock | None, held)
        .delete(uri, *, version_id=None, bypass_governance=False)
    model.py     Lock(mode, until), Put, Stored, Head, Content, Digest, Listed, Version
    uri.py       Location.parse("s3://bucket/key"), join(uri, path), object_uri(bucket, key)
    reader.py    open_store(uri, settings=None) -> ObjectReader over s3://bucket/prefix, file:///dir or /dir:
                 .get(path, max_bytes=...), .list(prefix="") -> Iterator[str], .exists(path), .sha256(path) -> Digest
    buckets.py   ensure_buckets(settings, store=None) -> list[BucketReport(bucket, created, missing)]
    exceptions.py  NotFound, Conflict, HashMismatch, TooLarge, AccessDenied, BadUri, ObjectsUnavailable (retriable)
"""
