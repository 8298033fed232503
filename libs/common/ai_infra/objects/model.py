"""What is said about objects: locks, what was stored, what is there. Plain facts, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

OCTETS: Final = "application/octet-stream"


class LockMode(StrEnum):
    """Who may shorten a retention: nobody (COMPLIANCE), or those with a right of their own (GOVERNANCE)."""

    COMPLIANCE = "COMPLIANCE"
    GOVERNANCE = "GOVERNANCE"


@dataclass(frozen=True, slots=True)
class Lock:
    """Object Lock retention of one version. Until then the version cannot be deleted; a newer one can cover it."""

    mode: LockMode
    until: datetime

    def __post_init__(self) -> None:
        if self.until.tzinfo is None:
            raise ValueError("a lock ends at a time with a time zone")

    @classmethod
    def compliance(cls, until: datetime) -> Lock:
        """A lock that nobody can shorten."""
        return cls(LockMode.COMPLIANCE, until)

    @classmethod
    def governance(cls, until: datetime) -> Lock:
        """A lock that an operator with a right of their own can shorten."""
        return cls(LockMode.GOVERNANCE, until)


@dataclass(frozen=True, slots=True)
class Put:
    """One object to put once, for `put_many`."""

    uri: str
    data: bytes | Path
    content_type: str = OCTETS
    lock: Lock | None = None
    expected_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is now there. `created` is False where the same bytes were there before."""

    uri: str
    sha256: str
    bytes: int
    version_id: str | None
    etag: str
    created: bool


@dataclass(frozen=True, slots=True)
class Head:
    """What the store says of an object without sending it."""

    uri: str
    bytes: int
    etag: str
    version_id: str | None
    modified: datetime
    content_type: str
    lock: Lock | None
    legal_hold: bool


@dataclass(frozen=True, slots=True)
class Content:
    """A whole small object: its bytes, and what identifies that version."""

    data: bytes
    etag: str
    version_id: str | None


@dataclass(frozen=True, slots=True)
class Digest:
    """SHA-256 (64 hex digits) and length of what was streamed."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Listed:
    """One current object of a listing."""

    uri: str
    bytes: int
    etag: str
    modified: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an object, or a delete marker."""

    uri: str
    version_id: str
    latest: bool
    delete_marker: bool
    bytes: int
    etag: str
    """The same for the same content; empty for a delete marker."""
    modified: datetime
