"""What can go wrong with objects. `ObjectsUnavailable` alone is worth repeating."""

from __future__ import annotations

from ai_infra.errors import AiInfraError, UnavailableError


class ObjectsError(AiInfraError):
    """Base of this room's errors."""

    code = "objects"


class NotFound(ObjectsError):
    """There is no such object, version or bucket."""

    code = "object_not_found"


class NotAFile(NotFound):
    """What lies there in a folder is no file of it: a link that leads out or to itself, a pipe, a device."""

    code = "not_a_file"


class Conflict(ObjectsError):
    """Something else is there: other content under a name that is written once, or a newer version than expected."""

    code = "object_conflict"


class HashMismatch(ObjectsError):
    """The bytes are not those of the expected SHA-256."""

    code = "object_hash_mismatch"


class TooLarge(ObjectsError):
    """The object is longer than the reader's bound."""

    code = "object_too_large"


class AccessDenied(ObjectsError):
    """The store refuses: credentials, policy, or a lock that has not ended."""

    code = "object_access_denied"


class BadUri(ObjectsError):
    """Not an object's address: s3://bucket/key, or file:///absolute/path where a folder is allowed."""

    code = "bad_object_uri"


class ObjectsUnavailable(ObjectsError, UnavailableError):
    """The store does not answer, or asks to come back later. Repeating the same call is safe."""

    code = "objects_unavailable"
