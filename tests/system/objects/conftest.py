"""Buckets of our own on the stack's S3 server, and URIs that no other test uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from ai_infra.objects.buckets import ensure_buckets
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings


@pytest.fixture(scope="session")
def changed() -> Callable[..., Settings]:
    """Settings with other values in their section `objects`."""

    def change(settings: Settings, **objects: object) -> Settings:
        return settings.model_copy(update={"objects": settings.objects.model_copy(update=objects)})

    return change


@pytest.fixture(scope="session")
def own(settings: Settings, changed: Callable[..., Settings]) -> Settings:
    """Settings with buckets of our own."""
    name = uuid4().hex[:12]
    mine = changed(
        settings, models_bucket=f"models-{name}", drift_bucket=f"drift-{name}", archive_bucket=f"archive-{name}"
    )
    assert all(report.created for report in ensure_buckets(mine))
    return mine


@pytest.fixture(scope="session")
def store(own: Settings) -> Iterator[ObjectStore]:
    with ObjectStore(own) as opened:
        yield opened


@pytest.fixture
def at(own: Settings) -> Callable[[str], str]:
    """URIs below a prefix of this test alone, in the archive bucket."""
    prefix = f"s3://{own.objects.archive_bucket}/{uuid4().hex}"
    return lambda path: f"{prefix}/{path}"


@pytest.fixture
def at_models(own: Settings) -> Callable[[str], str]:
    """The same in the models bucket, whose own retention is GOVERNANCE too."""
    prefix = f"s3://{own.objects.models_bucket}/{uuid4().hex}"
    return lambda path: f"{prefix}/{path}"
