"""The buckets as they must be: versions, Object Lock, encryption, no public access, no deletion of what is history.

Object Lock is not negotiable: a bucket without it is refused. The rest is set where the server knows it, and reported
where it does not (a gateway on one machine encrypts nothing), so that `doctor` can say it. This module must never
change what an operator has already set.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.errors import ConfigurationError
from ai_infra.objects.connection import error_code, request
from ai_infra.objects.exceptions import NotFound, ObjectsError, ObjectsUnavailable
from ai_infra.objects.model import LockMode
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings

_ABORT_UPLOADS_DAYS: Final = 7
_SUPERSEDED_DAYS: Final = 2  # one day of GOVERNANCE retention on partial tiles and checkpoints, and one to spare
_OURS: Final = {"BucketAlreadyOwnedByYou"}


@dataclass(frozen=True, slots=True)
class BucketReport:
    """One bucket: whether it was made now, and what the server does not offer or does not let us set."""

    bucket: str
    created: bool
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Bucket:
    name: str
    mode: LockMode
    days: int
    encryption: str
    archive: bool


def ensure_buckets(settings: Settings, store: ObjectStore | None = None) -> list[BucketReport]:
    """Make the models, drift and archive buckets where they are not there; check and complete them where they are.

    Raises ConfigurationError where a bucket lacks versions or Object Lock, ObjectsUnavailable where nothing answers.
    """
    objects, own = settings.objects, store or ObjectStore(settings)
    wanted = [
        _Bucket(objects.models_bucket, LockMode.GOVERNANCE, objects.retention_days, "AES256", archive=False),
        _Bucket(objects.drift_bucket, LockMode.GOVERNANCE, objects.retention_days, "AES256", archive=False),
        _Bucket(objects.archive_bucket, LockMode.COMPLIANCE, objects.retention_days, "aws:kms", archive=True),
    ]
    try:
        return [_ensure(own.client, bucket, objects.region) for bucket in wanted]
    finally:
        if store is None:
            own.close()


def _ensure(client: Any, bucket: _Bucket, region: str | None) -> BucketReport:
    name = bucket.name
    created = _create(client, name, region)
    _check_lock(client, bucket, created)
    missing: list[str] = []

    def complete(what: str, read: Callable[[], object], write: Callable[[], object]) -> None:
        """Set one property unless it is set already; note what the server does not know."""
        try:
            with request("bucket", f"{what} of {name}"):
                read()
        except ObjectsUnavailable:
            raise
        except ObjectsError as unset:
            if not isinstance(unset, NotFound) and error_code(unset.__cause__) not in _UNSET:
                missing.append(what)
                return
            try:
                with request("bucket", f"{what} of {name}"):
                    write()
            except ObjectsUnavailable:
                raise
            except ObjectsError:
                missing.append(what)

    complete(
        "encryption",
        lambda: client.get_bucket_encryption(Bucket=name),
        lambda: client.put_bucket_encryption(
            Bucket=name,
            ServerSideEncryptionConfiguration={
                "Rules": [
                    {
                        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": bucket.encryption},
                        "BucketKeyEnabled": True,
                    }
                ]
            },
        ),
    )
    complete(
        "public access block",
        lambda: client.get_public_access_block(Bucket=name),
        lambda: client.put_public_access_block(
            Bucket=name,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        ),
    )
    complete(
        "lifecycle",
        lambda: client.get_bucket_lifecycle_configuration(Bucket=name),
        lambda: client.put_bucket_lifecycle_configuration(
            Bucket=name, LifecycleConfiguration={"Rules": _lifecycle(archive=bucket.archive)}
        ),
    )
    if bucket.archive:
        complete(
            "delete policy",
            lambda: client.get_bucket_policy(Bucket=name),
            lambda: client.put_bucket_policy(Bucket=name, Policy=json.dumps(_deny_deletes(name))),
        )
    return BucketReport(name, created, tuple(missing))


# What servers answer where a property has simply not been set yet.
_UNSET: Final = {
    "NoSuchBucketPolicy",
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
    "ObjectLockConfigurationNotFoundError",
}


def _create(client: Any, name: str, region: str | None) -> bool:
    """Make the bucket with Object Lock (which brings versions); False where it is there."""
    try:
        with request("bucket", f"bucket {name}"):
            client.head_bucket(Bucket=name)
    except NotFound:
        pass
    else:
        return False
    where = {} if region in (None, "us-east-1") else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        with request("bucket", f"bucket {name}"):
            client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True, **where)
    except ObjectsError as error:
        if error_code(error.__cause__) in _OURS:  # two processes at once
            return False
        raise
    return True


def _check_lock(client: Any, bucket: _Bucket, created: bool) -> None:
    try:
        with request("bucket", f"Object Lock of {bucket.name}"):
            found = client.get_object_lock_configuration(Bucket=bucket.name).get("ObjectLockConfiguration", {})
    except ObjectsUnavailable:
        raise
    except ObjectsError as error:
        if error_code(error.__cause__) != "ObjectLockConfigurationNotFoundError":
            raise
        found = {}
    if found.get("ObjectLockEnabled") != "Enabled":
        raise ConfigurationError(
            f"bucket {bucket.name} has no Object Lock, which can only be switched on where a bucket is made: "
            "make a new one, or let this command make it under another name"
        )
    with request("bucket", f"versions of {bucket.name}"):
        versioning = client.get_bucket_versioning(Bucket=bucket.name).get("Status")
    if versioning != "Enabled":
        raise ConfigurationError(f"bucket {bucket.name} keeps no versions (status {versioning}): enable versioning")
    retention = found.get("Rule", {}).get("DefaultRetention", {})
    if not retention or created:
        with request("bucket", f"default retention of {bucket.name}"):
            client.put_object_lock_configuration(
                Bucket=bucket.name,
                ObjectLockConfiguration={
                    "ObjectLockEnabled": "Enabled",
                    "Rule": {"DefaultRetention": {"Mode": str(bucket.mode), "Days": bucket.days}},
                },
            )
    elif bucket.archive and retention.get("Mode") != LockMode.COMPLIANCE:
        raise ConfigurationError(
            f"archive bucket {bucket.name} has default retention {retention.get('Mode')}: it must be COMPLIANCE"
        )


def _lifecycle(*, archive: bool) -> list[dict[str, Any]]:
    """Unfinished uploads go; in the archive also what has been superseded: old versions, once their lock has ended."""
    rules: list[dict[str, Any]] = [
        {
            "ID": "unfinished-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _ABORT_UPLOADS_DAYS},
        }
    ]
    if archive:
        rules += [
            {
                "ID": f"superseded-versions-{prefix.rstrip('/')}",
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "NoncurrentVersionExpiration": {"NoncurrentDays": _SUPERSEDED_DAYS},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
            }
            for prefix in ("lanes/", "heads")
        ]
    return rules


def _deny_deletes(bucket: str) -> dict[str, Any]:
    """Nobody deletes anything but partial tiles and superseded checkpoints."""
    names = ("*.p/*", "*checkpoint", "*/cosignatures/*", "heads")
    superseded = [f"arn:aws:s3:::{bucket}/{name}" for name in names]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "HistoryStays",
                "Effect": "Deny",
                "Principal": "*",
                "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
                "NotResource": superseded,
            }
        ],
    }
