"""Reading an archive that is served as static files: what a C2SP tlog-tiles log is to the outside. Read-only.

Names are asked for one by one; nothing is listed. What comes back is believed as little as any other archive's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import httpx

from ai_infra.objects.exceptions import AccessDenied, BadUri, NotFound, ObjectsUnavailable, TooLarge
from ai_infra.objects.model import Digest
from ai_infra.objects.store import DEFAULT_MAX_BYTES

_TIMEOUT_S: Final = 30.0


class WebReader:
    """An archive below an `https://` or `http://` address."""

    def __init__(self, uri: str) -> None:
        try:
            parsed = httpx.URL(uri)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in ("https", "http") or not parsed.host or parsed.query or parsed.fragment:
            raise BadUri(f"expected https://host/path of an archive's files, got {uri!r}")
        self.uri = uri.rstrip("/")
        self._client = httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True)

    def get(self, path: str, *, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
        """The bytes at a path. Raises NotFound, TooLarge, AccessDenied, ObjectsUnavailable."""
        data = bytearray()
        try:
            with self._client.stream("GET", self._url(path)) as response:
                self._check(path, response)
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > max_bytes:
                        raise TooLarge(f"{path} at {self.uri} is longer than {max_bytes} bytes")
        except httpx.HTTPError as error:
            raise ObjectsUnavailable(
                f"{self.uri} does not answer for {path}: {error or type(error).__name__}"
            ) from error
        return bytes(data)

    def list(self, prefix: str = "") -> Iterator[str]:
        """Static files can't be listed. Raises BadUri."""
        raise BadUri(f"what is below {prefix!r} at {self.uri} can't be listed: copy the archive to a folder for that")

    def exists(self, path: str) -> bool:
        """Whether something is at the path."""
        try:
            response = self._client.head(self._url(path))
        except httpx.HTTPError as error:
            raise ObjectsUnavailable(
                f"{self.uri} does not answer for {path}: {error or type(error).__name__}"
            ) from error
        try:
            self._check(path, response)
        except NotFound:
            return False
        return True

    def sha256(self, path: str, *, max_bytes: int | None = None) -> Digest:
        """Hash what is at the path."""
        data = self.get(path, max_bytes=DEFAULT_MAX_BYTES if max_bytes is None else max_bytes)
        return Digest(hashlib.sha256(data).hexdigest(), len(data))

    def _url(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise BadUri(f"{path!r} leads out of {self.uri}")
        return f"{self.uri}/{quote(path)}"

    def _check(self, path: str, response: httpx.Response) -> None:
        if response.status_code == httpx.codes.OK:
            return
        if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            raise NotFound(f"{path} is not at {self.uri}")
        if response.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise AccessDenied(f"{self.uri} refuses {path} ({response.status_code})")
        raise ObjectsUnavailable(f"{self.uri} answers {response.status_code} for {path}")
