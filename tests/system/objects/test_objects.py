"""The object store on a real S3 server with versions and Object Lock."""

from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic

import pytest

from ai_infra.objects.exceptions import (
    AccessDenied,
    BadUri,
    Conflict,
    HashMismatch,
    NotFound,
    ObjectsError,
    TooLarge,
)
from ai_infra.objects.model import Digest, Lock, Put
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.upload import PART_BYTES


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def days(count: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=count)


# --- put --------------------------------------------------------------------------------------------------------------


def test_bytes_are_put_once_and_the_same_bytes_again_are_a_success(
    store: ObjectStore, at: Callable[[str], str]
) -> None:
    first = store.put_once(at("a"), b"hello")
    again = store.put_once(at("a"), b"hello")
    assert first.created
    assert (first.sha256, first.bytes) == (sha256(b"hello"), 5)
    assert first.version_id
    assert not again.created
    assert again.version_id == first.version_id
    assert len(list(store.versions(at("a")))) == 1


def test_other_bytes_under_a_name_that_is_written_once_are_a_conflict(
    store: ObjectStore, at: Callable[[str], str]
) -> None:
    store.put_once(at("a"), b"hello")
    for other in (b"hellO", b"hello!", b""):
        with pytest.raises(Conflict, match="written once"):
            store.put_once(at("a"), other)
    assert store.get(at("a")) == b"hello"
    assert len(list(store.versions(at("a")))) == 1


def test_of_many_that_write_one_name_at_once_exactly_one_wins(store: ObjectStore, at: Callable[[str], str]) -> None:
    def write(number: int) -> bool:
        try:
            return store.put_once(at("raced"), b"writer %d" % number).created
        except Conflict:
            return False

    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(write, range(12)))
    assert won.count(True) == 1
    assert store.get(at("raced")) == b"writer %d" % won.index(True)


def test_what_is_not_of_the_expected_hash_is_never_put(
    store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(PART_BYTES + 1))
    for data in (b"hello", large):
        with pytest.raises(HashMismatch):
            store.put_once(at("a"), data, expected_sha256=sha256(b"other"))
        assert not store.exists(at("a"))
    bucket, _, prefix = at("").removeprefix("s3://").partition("/")
    assert not store.client.list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads")


def test_a_large_file_goes_up_in_parts_and_memory_does_not_grow_with_it(
    store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "large"
    block = os.urandom(1 << 20)
    with file.open("wb") as out:
        for number in range(3 * PART_BYTES // len(block) + 1):
            out.write(number.to_bytes(4, "big") + block[4:])
    expected = Digest(sha256(file.read_bytes()), file.stat().st_size)
    tracemalloc.start()
    try:
        stored = store.put_once(at("large"), file, expected_sha256=expected.sha256, lock=Lock.compliance(days(400)))
        assert store.stream_sha256(at("large")) == expected
        store.download(at("large"), tmp_path / "copy", expected.sha256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert stored.created
    assert (stored.sha256, stored.bytes) == (expected.sha256, expected.bytes)
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()
    assert peak < 2 * PART_BYTES + (4 << 20)
    assert store.head(at("large")).lock is not None
    assert not store.put_once(at("large"), file).created
    with file.open("ab") as out:
        out.write(b"!")
    with pytest.raises(Conflict):
        store.put_once(at("large"), file)


def test_many_objects_are_put_in_parallel_and_answered_in_order(store: ObjectStore, at: Callable[[str], str]) -> None:
    puts = [Put(at(f"{number:03}"), b"object %d" % number, lock=Lock.governance(days(1))) for number in range(60)]
    stored = store.put_many(puts)
    assert [item.uri for item in stored] == [item.uri for item in puts]
    assert [item.sha256 for item in stored] == [sha256(b"object %d" % number) for number in range(60)]
    assert not any(item.created for item in store.put_many(puts))


def test_the_first_failure_of_many_is_raised_and_the_call_can_be_made_again(
    store: ObjectStore, at: Callable[[str], str]
) -> None:
    store.put_once(at("007"), b"something else")
    puts = [Put(at(f"{number:03}"), b"object %d" % number) for number in range(40)]
    with pytest.raises(Conflict, match="007"):
        store.put_many(puts)
    store.put_many(item for item in puts if not item.uri.endswith("007"))
    assert len(list(store.list(at("")))) == 40


# --- compare-and-swap -------------------------------------------------------------------------------------------------


def test_a_checkpoint_moves_from_the_version_that_was_read_only(store: ObjectStore, at: Callable[[str], str]) -> None:
    first = store.put_if_match(at("checkpoint"), b"1", None)
    second = store.put_if_match(at("checkpoint"), b"2", first.etag)
    for stale in (first.etag, None, '"never"'):
        with pytest.raises(Conflict, match="another writer"):
            store.put_if_match(at("checkpoint"), b"3", stale)
    with pytest.raises(Conflict):
        store.put_if_match(at("absent"), b"3", second.etag)
    content = store.read(at("checkpoint"))
    assert (content.data, content.etag, content.version_id) == (b"2", second.etag, second.version_id)


def test_of_many_that_swap_from_one_version_exactly_one_wins(store: ObjectStore, at: Callable[[str], str]) -> None:
    etag = store.put_if_match(at("checkpoint"), b"0", None).etag

    def swap(number: int) -> bool:
        try:
            return store.put_if_match(at("checkpoint"), b"writer %d" % number, etag).created
        except Conflict:
            return False

    with ThreadPoolExecutor(12) as pool:
        won = list(pool.map(swap, range(12)))
    assert won.count(True) == 1
    assert store.get(at("checkpoint")) == b"writer %d" % won.index(True)


# --- locks ------------------------------------------------------------------------------------------------------------


def test_a_compliance_lock_holds_its_version_against_everybody(store: ObjectStore, at: Callable[[str], str]) -> None:
    until = days(400)
    stored = store.put_once(at("tile"), b"tile", lock=Lock.compliance(until))
    lock = store.head(at("tile")).lock
    assert lock is not None
    assert lock.mode == "COMPLIANCE"
    assert abs(lock.until - until) < timedelta(seconds=2)
    for bypass in (False, True):
        with pytest.raises(AccessDenied):
            store.delete(at("tile"), version_id=stored.version_id, bypass_governance=bypass)
    with pytest.raises(ObjectsError):
        store.extend_lock(at("tile"), Lock.compliance(days(1)))
    store.delete(at("tile"))  # a delete marker covers it, the version stays
    assert not store.exists(at("tile"))
    assert store.get(at("tile"), version_id=stored.version_id) == b"tile"
    assert [version.delete_marker for version in store.versions(at("tile")) if version.latest] == [True]


def test_a_governance_lock_yields_to_those_who_may(store: ObjectStore, at_models: Callable[[str], str]) -> None:
    stored = store.put_once(at_models("partial"), b"partial", lock=Lock.governance(days(1)))
    with pytest.raises(AccessDenied):
        store.delete(at_models("partial"), version_id=stored.version_id)
    store.delete(at_models("partial"), version_id=stored.version_id, bypass_governance=True)
    assert not list(store.versions(at_models("partial")))


def test_what_has_a_short_lock_of_its_own_can_go_from_the_archive_when_that_has_ended(
    store: ObjectStore, at: Callable[[str], str]
) -> None:
    """The archive's default retention of 400 days must not hold superseded partial tiles."""
    until = datetime.now(UTC) + timedelta(seconds=2)
    stored = store.put_once(at("tile/0/000.p/7"), b"partial", lock=Lock.governance(until))
    with pytest.raises(AccessDenied):
        store.delete(at("tile/0/000.p/7"), version_id=stored.version_id)
    tick, deadline = threading.Event(), monotonic() + 20
    while list(store.versions(at("tile/0/000.p/7"))):
        assert monotonic() < deadline, "the lock did not end"
        tick.wait(0.1)
        if datetime.now(UTC) > until:
            store.delete(at("tile/0/000.p/7"), version_id=stored.version_id)


def test_a_repeated_put_that_asks_for_a_longer_lock_extends_it(store: ObjectStore, at: Callable[[str], str]) -> None:
    store.put_once(at("tile"), b"tile", lock=Lock.compliance(days(400)))
    store.put_once(at("tile"), b"tile", lock=Lock.compliance(days(800)))
    lock = store.head(at("tile")).lock
    assert lock is not None
    assert lock.until > days(799)
    store.put_once(at("tile"), b"tile", lock=Lock.compliance(days(400)))
    unchanged = store.head(at("tile")).lock
    assert unchanged == lock


def test_a_legal_hold_outlasts_every_bypass(store: ObjectStore, at_models: Callable[[str], str]) -> None:
    stored = store.put_once(at_models("held"), b"held", lock=Lock.governance(days(1)))
    store.legal_hold(at_models("held"), on=True)
    assert store.head(at_models("held")).legal_hold
    with pytest.raises(AccessDenied):
        store.delete(at_models("held"), version_id=stored.version_id, bypass_governance=True)
    store.legal_hold(at_models("held"), on=False)
    store.delete(at_models("held"), version_id=stored.version_id, bypass_governance=True)


# --- read -------------------------------------------------------------------------------------------------------------


def test_reading_more_than_the_bound_is_refused_before_it_is_read(
    store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    store.put_once(at("a"), bytes(1000))
    assert store.get(at("a"), max_bytes=1000) == bytes(1000)
    for read in (
        lambda: store.get(at("a"), max_bytes=999),
        lambda: store.stream_sha256(at("a"), max_bytes=999),
        lambda: store.download(at("a"), tmp_path / "a", None, max_bytes=999),
    ):
        with pytest.raises(TooLarge):
            read()


def test_a_download_that_does_not_hash_as_expected_leaves_nothing(
    store: ObjectStore, at: Callable[[str], str], tmp_path: Path
) -> None:
    store.put_once(at("a"), b"hello")
    with pytest.raises(HashMismatch):
        store.download(at("a"), tmp_path / "a", sha256(b"other"))
    assert list(tmp_path.iterdir()) == []
    assert store.download(at("a"), tmp_path / "a", sha256(b"hello")) == Digest(sha256(b"hello"), 5)


def test_an_empty_object_is_an_object(store: ObjectStore, at: Callable[[str], str]) -> None:
    assert store.put_once(at("empty"), b"").bytes == 0
    assert store.get(at("empty")) == b""
    assert store.stream_sha256(at("empty")) == Digest(sha256(b""), 0)


def test_what_is_not_there_is_named(store: ObjectStore, at: Callable[[str], str], tmp_path: Path) -> None:
    for read in (
        lambda: store.get(at("absent")),
        lambda: store.head(at("absent")),
        lambda: store.stream_sha256(at("absent")),
        lambda: store.download(at("absent"), tmp_path / "a", None),
        lambda: store.get("s3://no-such-bucket-anywhere/absent"),
    ):
        with pytest.raises(NotFound, match="absent"):
            read()
    assert not store.exists(at("absent"))
    store.delete(at("absent"))


def test_listings_are_complete_beyond_one_page(store: ObjectStore, at: Callable[[str], str]) -> None:
    store.put_many(Put(at(f"page/{number:04}"), b"x") for number in range(1010))
    store.put_once(at("pages"), b"another prefix")
    assert [item.uri for item in store.list(at("page/"))] == [at(f"page/{number:04}") for number in range(1010)]


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3://b/k",
        "s3://Bucket/k",
        "S3://bucket/k",
        "https://bucket/k",
        "bucket/k",
        "s3://bucket/..",
        "s3://bucket/./a",
        "s3://bucket/a/",
        "s3://bucket/a//b",
        "s3://bucket/a/../b",
        "s3://bucket/a\nb",
        "s3://bucket/" + "x" * 1025,
    ],
)
def test_what_is_no_address_of_an_object_is_refused(store: ObjectStore, uri: str) -> None:
    with pytest.raises(BadUri):
        store.put_once(uri, b"x")
