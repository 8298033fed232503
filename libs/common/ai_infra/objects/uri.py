"""Addresses of objects. One spelling each, so that an address can be compared, signed and logged."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ai_infra.objects.exceptions import BadUri

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAX_KEY_BYTES: Final = 1024  # S3's own limit


@dataclass(frozen=True, slots=True)
class Location:
    """A bucket and a key in it; `str()` is the URI."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> Location:
        """Read `s3://bucket/key`. The key is taken as it is written: nothing is decoded."""
        location = cls.parse_prefix(uri)
        if not location.key or location.key.endswith("/"):
            raise BadUri(f"expected s3://<bucket>/<key> of one object, got {uri!r}")
        return location

    @classmethod
    def parse_prefix(cls, uri: str) -> Location:
        """Read `s3://bucket/prefix`, whose prefix may be empty or end in a slash."""
        scheme, colon, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not colon or not _BUCKET.fullmatch(bucket):
            raise BadUri(f"expected s3://<bucket>/<key>, got {uri!r}")
        # Gateways over a file system would read '..', '.' and '//' as other names for other objects.
        if any(part in ("", ".", "..") for part in key.split("/")[:-1]) or key.split("/")[-1] in (".", ".."):
            raise BadUri(f"a key has no empty, '.' or '..' segment: {uri!r}")
        if any(char < " " for char in key) or len(key.encode()) > _MAX_KEY_BYTES:
            raise BadUri(f"a key has no control characters and at most {_MAX_KEY_BYTES} bytes: {uri!r}")
        return cls(bucket, key)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def object_uri(bucket: str, key: str) -> str:
    """The URI of an object, checked."""
    return str(Location.parse(f"s3://{bucket}/{key}"))


def join(uri: str, path: str) -> str:
    """The URI of `path` below `uri`."""
    return f"{uri.rstrip('/')}/{path.lstrip('/')}"
