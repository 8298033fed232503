"""Buckets as they must be, and archives read from a bucket or from a folder that somebody copied."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from ai_infra.errors import ConfigurationError
from ai_infra.objects.buckets import ensure_buckets
from ai_infra.objects.exceptions import (
    BadUri,
    NotAFile,
    NotFound,
    TooLarge,
)
from ai_infra.objects.model import Digest
from ai_infra.objects.reader import open_store
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_making_the_buckets_again_changes_nothing_and_says_what_is_missing(
    own: Settings, store: ObjectStore, changed: Callable[..., Settings]
) -> None:
    before = store.client.get_object_lock_configuration(Bucket=own.objects.archive_bucket)["ObjectLockConfiguration"]
    reports = ensure_buckets(changed(own, retention_days=800), store)
    assert [report.created for report in reports] == [False, False, False]
    after = store.client.get_object_lock_configuration(Bucket=own.objects.archive_bucket)["ObjectLockConfiguration"]
    assert before == after
    assert before["Rule"]["DefaultRetention"] == {"Mode": "COMPLIANCE", "Days": 400}
    models = store.client.get_object_lock_configuration(Bucket=own.objects.models_bucket)["ObjectLockConfiguration"]
    assert models["Rule"]["DefaultRetention"]["Mode"] == "GOVERNANCE"


def test_a_bucket_without_object_lock_is_refused(
    own: Settings, store: ObjectStore, changed: Callable[..., Settings]
) -> None:
    name = f"plain-{uuid4().hex[:12]}"
    store.client.create_bucket(Bucket=name)
    with pytest.raises(ConfigurationError, match="Object Lock"):
        ensure_buckets(changed(own, archive_bucket=name), store)


def test_two_processes_may_make_the_buckets_at_once(own: Settings, changed: Callable[..., Settings]) -> None:
    name = uuid4().hex[:12]
    mine = changed(own, models_bucket=f"m-{name}", drift_bucket=f"d-{name}", archive_bucket=f"a-{name}")
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda _: ensure_buckets(mine), range(4)))
    assert all(len(found) == 3 for found in reports)


# --- archives ---------------------------------------------------------------------------------------------------------


def test_an_archive_reads_the_same_from_its_bucket_and_from_a_copied_folder(
    own: Settings, store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    files = {"checkpoint": b"c", "tile/0/000": b"t" * 32, "tile/entries/000.p/7": b"e", "tile/1/000": b"u"}
    for path, data in files.items():
        store.put_once(at(path), data)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    for uri in (at("").rstrip("/"), at(""), tmp_path.as_uri(), str(tmp_path)):
        archive = open_store(uri, own)
        assert list(archive.list()) == sorted(files)
        assert list(archive.list("tile/0")) == ["tile/0/000"]
        assert list(archive.list("tile/e")) == ["tile/entries/000.p/7"]
        assert list(archive.list("absent/")) == []
        assert {path: archive.get(path) for path in files} == files
        assert archive.sha256("tile/0/000") == Digest(sha256(b"t" * 32), 32)
        assert archive.exists("checkpoint")
        assert not archive.exists("tile")
        with pytest.raises(NotFound):
            archive.get("tile/0/001")
        with pytest.raises(NotFound):
            archive.get("tile")
        with pytest.raises(TooLarge):
            archive.get("tile/0/000", max_bytes=31)
        with pytest.raises(BadUri):
            archive.get("../secret")


def test_a_copied_folder_never_leads_out_of_itself(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "link").symlink_to(tmp_path / "secret")
    archive = open_store(str(tmp_path / "archive"))
    for path in ("../secret", "a/../../secret", str(tmp_path / "secret")):
        with pytest.raises(BadUri):
            archive.get(path)
    with pytest.raises(NotAFile, match="leads out"):
        archive.get("link")


@pytest.mark.parametrize("uri", ["s3://bucket/prefix", "ftp://example.com/archive", "file://host/archive", "file:a"])
def test_an_archive_that_cannot_be_opened_says_what_was_expected(uri: str) -> None:
    with pytest.raises(BadUri):
        open_store(uri)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="copy the archive"):
        open_store(str(tmp_path / "absent"))
