"""The connection to an S3 server: time-outs, retries, metrics, and one reading of its errors.

boto3 repeats what failed before an answer came (`standard` mode, bounded). A put that is repeated that way may meet its
own first attempt: every conditional put above compares content before it calls that a conflict.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)

from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.objects.exceptions import AccessDenied, Conflict, NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.settings import Settings
from ai_infra.telemetry.metrics import OBJECTS_REQUEST

CONNECTIONS: Final = 32  # as many threads as put_many and parallel uploads may use at once
_CONFIG: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "read_timeout": 30,
    "retries": {"mode": "standard", "total_max_attempts": 4},
    "max_pool_connections": CONNECTIONS,
    # We send SHA-256 ourselves and hash whatever we read: boto3's own CRCs would only cost time.
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
    "user_agent_extra": "ai-infra",
}
_NOT_FOUND: Final = {"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NotFound", "NoSuchUpload"}
_CONFLICT: Final = {"412", "PreconditionFailed"}
_DENIED: Final = {"403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_BUSY: Final = {"ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown", "RequestTimeTooSkewed"}


def connect(settings: Settings) -> Any:
    """A boto3 S3 client for these settings. Makes no request yet."""
    # Not above: who reads an archive in a folder, or the help of a command, need not wait for them.
    import boto3
    from botocore.config import Config

    arguments = settings.objects.client_arguments()
    # Servers that are not AWS seldom have a DNS name for each bucket.
    addressing = {"s3": {"addressing_style": "path"}} if settings.objects.endpoint_url else {}
    # A session of its own: boto3's default session is not safe to make clients from in several threads.
    return boto3.session.Session().client("s3", config=Config(**_CONFIG, **addressing), **arguments)


@contextmanager
def request(operation: str, what: str) -> Iterator[None]:
    """Time a request and raise this room's errors in place of botocore's. `what` names the object for people."""
    started, outcome = perf_counter(), "ok"
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        translated = _translate(error, operation, what)
        outcome = _outcome(translated)
        raise translated from error
    except ObjectsError as error:
        outcome = _outcome(error)
        raise
    finally:
        OBJECTS_REQUEST.labels(operation, outcome).observe(perf_counter() - started)


def error_code(error: BaseException | None) -> str:
    """The S3 error code behind one of our errors, or an empty string."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _translate(error: ClientError | BotoCoreError, operation: str, what: str) -> AiInfraError:
    if isinstance(error, ClientError):
        return _refusal(error, operation, what)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return ConfigurationError(
            f"the object store needs credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY ({error})"
        )
    if isinstance(error, HTTPClientError | ResponseStreamingError) or "Connection" in type(error).__name__:
        return ObjectsUnavailable(
            f"the object store does not answer ({operation} {what}): {error}; is it up, and is AWS_ENDPOINT_URL_S3 "
            "right? (`ai-infra doctor`)"
        )
    return ObjectsError(f"the object store cannot be used ({operation} {what}): {error}")


def _refusal(error: ClientError, operation: str, what: str) -> ObjectsError:
    code = error_code(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{code} ({status}): {error.response.get('Error', {}).get('Message', '')}"
    if code in _BUSY or (status >= 500 and status != 501):
        return ObjectsUnavailable(f"the object store is busy or failing ({operation} {what}): {said}")
    if code in _NOT_FOUND or status == 404:
        return NotFound(f"{what} is not there: {said}")
    if code in _CONFLICT or status == 412:
        return Conflict(f"{what} is not as expected: {said}")
    refused = AccessDenied if code in _DENIED or status == 403 else ObjectsError
    return refused(f"the object store refuses to {operation} {what}: {said}")


def _outcome(error: AiInfraError) -> str:
    if isinstance(error, NotFound):
        return "not_found"
    if isinstance(error, Conflict):
        return "conflict"
    return "unavailable" if isinstance(error, ObjectsUnavailable) else "error"
