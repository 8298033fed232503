"""Reading an archive, wherever it lies: a bucket, or a folder that an auditor copied. Read-only.

Paths are relative to the archive's root and never lead out of it; a link that does is no file of it. Like everything
read from the outside, what comes back is believed only after it has been verified.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from ai_infra.objects.exceptions import BadUri, NotAFile, NotFound, ObjectsUnavailable, TooLarge
from ai_infra.objects.model import Digest, Version
from ai_infra.objects.store import DEFAULT_MAX_BYTES, ObjectStore
from ai_infra.objects.upload import file_digest
from ai_infra.objects.uri import Location, join
from ai_infra.settings import Settings


class ObjectReader(Protocol):
    """The read side of an archive."""

    @property
    def uri(self) -> str:
        """Where the archive lies, for messages."""
        ...

    def get(self, path: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
        """The bytes at a path. Raises NotFound, TooLarge, ObjectsUnavailable."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """The paths that start with `prefix`, sorted by their bytes."""
        ...

    def exists(self, path: str) -> bool:
        """Whether something is at the path."""
        ...

    def sha256(self, path: str, *, max_bytes: int | None = None) -> Digest:
        """Hash what is at the path, in constant memory."""
        ...


class BucketReader:
    """An archive below `s3://bucket/prefix`, as it is now, or with some paths as they were."""

    def __init__(self, store: ObjectStore, uri: str, versions: Mapping[str, str] | None = None) -> None:
        """`versions`: ids of the versions to read at these paths in place of the current ones."""
        location = Location.parse_prefix(uri)
        self._store = store
        self._versions = versions or {}
        self.uri = f"s3://{location.bucket}/{location.key}".rstrip("/")

    def at(self, versions: Mapping[str, str]) -> BucketReader:
        """The same archive, read at these versions of some paths, whatever covers them now."""
        return BucketReader(self._store, self.uri, {**self._versions, **versions})

    def history(self, prefix: str) -> Iterator[tuple[str, Version]]:
        """All versions and delete markers of the paths that start with `prefix`, of a path the newest first."""
        root = f"{self.uri}/"
        for version in self._store.versions(f"{root}{prefix}"):
            yield version.uri.removeprefix(root), version

    def get(self, path: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
        """The bytes at a path."""
        return self._store.get(join(self.uri, path), max_bytes=max_bytes, version_id=self._versions.get(path))

    def list(self, prefix: str = "") -> Iterator[str]:
        """The paths that start with `prefix`."""
        root = f"{self.uri}/"
        current = (item.uri.removeprefix(root) for item in self._store.list(f"{root}{prefix}"))
        if not self._versions:
            yield from current
            return
        covered = {path for path in self._versions if path.startswith(prefix)}
        yield from sorted(covered | set(current), key=str.encode)

    def exists(self, path: str) -> bool:
        """Whether something is at the path."""
        return path in self._versions or self._store.exists(join(self.uri, path))

    def sha256(self, path: str, *, max_bytes: int | None = None) -> Digest:
        """Hash what is at the path."""
        version_id = self._versions.get(path)
        return self._store.stream_sha256(join(self.uri, path), max_bytes=max_bytes, version_id=version_id)


class FolderReader:
    """An archive that lies in a folder, as copied out of its bucket."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotFound(f"there is no folder {root}: copy the archive there first, or name its bucket")
        self._root = root.resolve()
        self.uri = self._root.as_uri()

    def get(self, path: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
        """The bytes at a path."""
        file = self._file(path)
        try:
            # A pipe would keep its reader waiting for ever: it is opened without that, and looked at before it is read.
            with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                if not stat.S_ISREG(mode):
                    raise NotAFile(f"{path} in {self.uri} is a pipe or a device, not a file")
                data = opened.read(max_bytes + 1)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(f"{path} is not in {self.uri}") from None
        except OSError as error:
            raise ObjectsUnavailable(f"{path} in {self.uri} cannot be read: {error}") from error
        if len(data) > max_bytes:
            raise TooLarge(f"{path} in {self.uri} is longer than {max_bytes} bytes")
        return data

    def list(self, prefix: str = "") -> Iterator[str]:
        """The paths that start with `prefix`."""
        try:
            below = self._file(prefix.rpartition("/")[0]) if "/" in prefix else self._root
        except NotAFile:
            return
        if not below.is_dir():
            return
        paths = (file.relative_to(self._root).as_posix() for file in below.rglob("*") if file.is_file())
        yield from sorted((path for path in paths if path.startswith(prefix)), key=str.encode)

    def exists(self, path: str) -> bool:
        """Whether something is at the path."""
        try:
            return self._file(path).is_file()
        except NotAFile:
            return False

    def sha256(self, path: str, *, max_bytes: int | None = None) -> Digest:
        """Hash what is at the path."""
        file = self._file(path)
        if not file.is_file():
            raise NotFound(f"{path} is not in {self.uri}")
        if max_bytes is not None and file.stat().st_size > max_bytes:
            raise TooLarge(f"{path} in {self.uri} is longer than {max_bytes} bytes")
        return file_digest(file)

    def _file(self, path: str) -> Path:
        if path.startswith("/") or ".." in path.split("/"):
            raise BadUri(f"{path!r} leads out of {self.uri}")
        try:
            file = (self._root / path).resolve()
        except (OSError, RuntimeError) as error:  # a loop is the one or the other, by the version of Python
            raise NotAFile(f"{path} in {self.uri} is a link that leads nowhere: {error}") from None
        if not file.is_relative_to(self._root):
            raise NotAFile(f"{path} in {self.uri} is a link that leads out of it: copy the file itself")
        return file


def open_store(uri: str, settings: Settings | None = None) -> ObjectReader:
    """Open an archive for reading: `s3://bucket[/prefix]` (needs settings), `https://` static files, `file:///folder`,
    or a folder's path."""
    if uri.startswith("s3://"):
        if settings is None:
            raise BadUri(
                f"{uri} is in an object store: its settings are needed (AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID)"
            )
        return BucketReader(ObjectStore(settings), uri)
    if uri.startswith(("https://", "http://")):
        from ai_infra.objects.web_reader import WebReader

        return WebReader(uri)
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise BadUri(f"expected file:///absolute/folder, got {uri!r}")
        return FolderReader(Path(unquote(parts.path)))
    if "://" in uri:
        raise BadUri(f"an archive is at s3://bucket/prefix, https://host/path or in a folder, not at {uri!r}")
    return FolderReader(Path(uri))
