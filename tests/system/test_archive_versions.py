"""Somebody with the right to write into the bucket covers what is locked: it is named, and the log is read below it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from tests.unit.indexer.log_folder import LONG, ORIGIN, LogFolder
from tests.unit.indexer.voices import worlds

from ai_infra.objects.exceptions import AccessDenied
from ai_infra.objects.model import Put, Version
from ai_infra.objects.reader import BucketReader, FolderReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import connect, migrate
from ai_infra.settings import Settings
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.trust.init import init_keys
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.archive import LaneArchive
from ai_infra_indexer.audit import LaneReport, audit_archive, audit_versions, shared_history
from ai_infra_indexer.audit.versions import CHECKED, LOOKED_BACK, older_heads_of_all, versions_of_heads
from ai_infra_indexer.audit.vouched import read_heads
from ai_infra_indexer.exceptions import Forked
from ai_infra_indexer.rebuild import rebuild
from ai_infra_indexer.store import ensure_lane, record_versions, recorded_versions

LANES = 4
BUNDLE = "tile/entries/000"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> LogFolder:
    directory = tmp_path_factory.mktemp("versions") / "keys"
    init_keys(directory)
    return LogFolder.make(tmp_path_factory.mktemp("archive"), worlds(directory))


@dataclass
class Bucket:
    """Lane 0 of the log, and what lies beside the lanes, below a prefix of the archive bucket."""

    log: LogFolder
    store: ObjectStore
    uri: str

    def place(self, path: str) -> str:
        return f"{self.uri}/{path}" if path.startswith(("schemas/", "heads")) else f"{self.uri}/lanes/0/{path}"

    def cover(self, path: str, data: bytes, *, times: int = 1) -> None:
        """A newer version, whatever was there."""
        bucket, _, key = self.place(path).removeprefix("s3://").partition("/")
        for _ in range(times):
            self.store.client.put_object(Bucket=bucket, Key=key, Body=data)

    def mark(self, path: str) -> None:
        self.store.delete(self.place(path))

    def head(self, size: int) -> bytes:
        edge = RightEdge()
        for at in range(0, size, 256):
            edge = grow(edge, self.log.raws[0][at : min(size, at + 256)]).edge
        return self.log.note(0, size, edge.root())

    def version(self, path: str, at: int) -> str:
        """An id of those of a path, the newest first."""
        found = [v for v in self.store.versions(self.place(path)) if v.uri == self.place(path) and not v.delete_marker]
        return found[at].version_id

    def audited(self, recorded: dict[str, str] | None = None) -> LaneReport:
        audit = partial(audit_archive, roots=self.log.worlds[0].roots, lanes=LANES)
        return audit_versions(BucketReader(self.store, self.uri), ORIGIN, 0, audit, recorded)


@pytest.fixture
def bucket(log: LogFolder, settings: Settings) -> Iterator[Bucket]:
    uri = f"s3://{settings.objects.archive_bucket}/versions-{secrets.token_hex(4)}"
    with ObjectStore(settings) as store:
        files = [path for path in log.root.rglob("*") if path.is_file()]
        paths = {path.relative_to(log.root).as_posix(): path for path in files}
        mine = [(path, file) for path, file in paths.items() if path.startswith(("lanes/0/", "schemas/", "heads"))]
        store.put_many([Put(f"{uri}/{path}", file.read_bytes()) for path, file in mine])
        yield Bucket(log, store, uri)


def flipped(bucket: Bucket, path: str) -> bytes:
    data = bytearray(bucket.store.get(bucket.place(path)))
    data[len(data) // 2] ^= 1
    return bytes(data)


def schema(bucket: Bucket) -> str:
    return next(item.uri.removeprefix(f"{bucket.uri}/") for item in bucket.store.list(f"{bucket.uri}/schemas/"))


COVERS: dict[str, tuple[Callable[[Bucket], Any], set[tuple[int | None, str]]]] = {
    "nothing": (lambda b: None, set()),
    "a bundle": (lambda b: b.cover(BUNDLE, flipped(b, BUNDLE)), {(0, "another_version")}),
    "a bundle by the same bytes": (
        lambda b: b.cover(BUNDLE, b.store.get(b.place(BUNDLE))),
        {(0, "another_version")},
    ),
    "a marker over a bundle": (lambda b: b.mark(BUNDLE), {(0, "delete_marker")}),
    "a marker and a bundle over that": (
        lambda b: (b.mark(BUNDLE), b.cover(BUNDLE, b"junk")),
        {(0, "delete_marker"), (0, "another_version")},
    ),
    "leaf hashes": (lambda b: b.cover("tile/0/000", bytes(32 * 256)), {(0, "another_version")}),
    "a partial bundle": (lambda b: b.cover("tile/entries/001.p/44", b"junk"), {(256, "another_version")}),
    "a marker over a partial bundle that is needed": (
        lambda b: b.mark("tile/entries/001.p/44"),
        {(256, "delete_marker")},
    ),
    "a marker over a partial bundle that a full one has followed": (
        lambda b: (b.cover(f"{BUNDLE}.p/9", b"as it was"), b.mark(f"{BUNDLE}.p/9")),
        set(),
    ),
    "a marker over the checkpoint": (lambda b: b.mark("checkpoint"), {(None, "delete_marker")}),
    "junk over the checkpoint": (lambda b: b.cover("checkpoint", b"junk"), {(None, "bad_checkpoint")}),
    "a stranger's checkpoint": (
        lambda b: b.cover("checkpoint", b.log.note(0, LONG, bytes(32), audit=LocalSigner.fresh("audit-1"))),
        {(None, "bad_checkpoint")},
    ),
    "an older checkpoint": (lambda b: b.cover("checkpoint", b.head(256)), {(None, "rolled_back")}),
    "an older checkpoint, again and again": (
        lambda b: b.cover("checkpoint", b.head(256), times=LOOKED_BACK + 2),
        {(None, "rolled_back")},
    ),
    "a checkpoint, put back by the writer": (
        lambda b: (b.cover("checkpoint", b"junk"), b.cover("checkpoint", b.head(LONG))),
        {(None, "foreign_version")},
    ),
    "a checkpoint that follows its own older ones": (lambda b: b.cover("checkpoint", b.head(LONG)), set()),
    "a kept checkpoint": (
        lambda b: b.cover(f"checkpoints/{256:020d}", b.log.note(0, 256, bytes(32))),
        {(None, "another_version")},
    ),
    "a marker over a kept checkpoint": (lambda b: b.mark(f"checkpoints/{256:020d}"), {(None, "delete_marker")}),
    "something that no lane has": (lambda b: b.cover("tile/entries/000.bak", b"junk"), {(None, "unknown_object")}),
}


@pytest.mark.parametrize("what", COVERS)
def test_what_covers_a_locked_object_is_named_and_the_log_is_read_below_it(bucket: Bucket, what: str) -> None:
    cover, expected = COVERS[what]
    cover(bucket)
    report = bucket.audited()
    assert {(p.position, p.code) for p in report.problems} == expected, report.problems
    assert report.versions == CHECKED
    assert report.entries == (256 if what.startswith("an older checkpoint") else LONG)


def test_a_schema_and_the_heads_that_are_covered_are_named(bucket: Bucket) -> None:
    reader = BucketReader(bucket.store, bucket.uri)
    assert shared_history(reader).problems == []
    bucket.cover(schema(bucket), b"{}")
    bucket.mark("heads")
    assert {p.code for p in shared_history(reader).problems} == {"another_version", "delete_marker"}
    assert bucket.audited().problems == [], "the schemas are read below it"


def test_a_rebuild_reads_what_is_locked_below_what_covers_it(bucket: Bucket, database: str) -> None:
    bucket.mark(BUNDLE)
    bucket.cover("tile/entries/001.p/44", b"junk")
    bucket.mark("checkpoint")
    reader, roots = BucketReader(bucket.store, bucket.uri), bucket.log.worlds[0].roots
    [lane] = rebuild(reader, database, log_origin=ORIGIN, lanes=LANES, roots=roots, only=[0])
    assert (lane.loaded, lane.checkpoint_size) == (LONG, LONG)


def test_older_heads_are_found_to_cover_the_newest_and_a_stranger_s_to_be_one(bucket: Bucket) -> None:
    reader, world = BucketReader(bucket.store, bucket.uri), bucket.log.worlds[0]
    keyring, shorter = world.keyring, bucket.log.heads({0: (256, bytes(32))})

    def named() -> set[tuple[int | None, str]]:
        versions = versions_of_heads(reader)
        heads, problems = read_heads(reader, ORIGIN, keyring)
        assert heads is not None
        problems += older_heads_of_all(reader, ORIGIN, keyring, heads.heads, versions)
        return {(problem.lane, problem.code) for problem in problems}

    assert named() == set()
    bucket.cover("heads", shorter, times=LOOKED_BACK + 2)
    assert named() == {(0, "rolled_back")}
    bucket.cover("heads", b"junk")
    bucket.cover("heads", bucket.log.heads())
    assert named() == {(None, "foreign_version")}


def test_the_recorded_version_counts_and_one_that_is_gone_is_missed(bucket: Bucket) -> None:
    first = bucket.version(BUNDLE, 0)
    bucket.cover(BUNDLE, b"junk")
    assert {p.code for p in bucket.audited({BUNDLE: first}).problems} == {"another_version"}
    newer = {p.code for p in bucket.audited({BUNDLE: bucket.version(BUNDLE, 0)}).problems}
    assert newer >= {"another_version", "bad_bundle"}, "what was recorded is what is read"
    assert {p.code for p in bucket.audited({BUNDLE: "gone"}).problems} == {"missing_version", "another_version"}


def test_where_no_versions_are_to_be_had_that_is_said_and_nothing_concluded(log: LogFolder, bucket: Bucket) -> None:
    audit = partial(audit_archive, roots=log.worlds[0].roots, lanes=LANES)
    report = audit_versions(FolderReader(log.root), ORIGIN, 0, audit)
    assert (report.problems, report.versions) == ([], "not checked: only a bucket has versions")

    class Forbidden(BucketReader):
        """A bucket whose reader may not list versions."""

        def history(self, prefix: str) -> Iterator[tuple[str, Version]]:
            raise AccessDenied(f"the object store refuses to list {prefix}")

    report = audit_versions(Forbidden(bucket.store, bucket.uri), ORIGIN, 0, audit)
    assert report.problems == []
    assert report.versions.startswith("not checked: the object store refuses to list")


# --- the writer -------------------------------------------------------------------------------------------------------


def test_the_writer_remembers_the_versions_of_what_it_writes_for_good(
    log: LogFolder, bucket: Bucket, database: str
) -> None:
    world = log.worlds[0]
    uri = f"{bucket.uri}-written"
    archive = LaneArchive(bucket.store, uri, ORIGIN, 0, lambda _: world.signers["audit-1"], retention_days=1)
    growth = grow(RightEdge(), log.raws[0][:256])
    for _ in range(2):  # after a crash the same is done again
        archive.put_tiles(growth.writes)
        signed = archive.sign(growth.edge, archive.audit(1))
        archive.put_checkpoint(signed)
        archive.keep(signed)
        written = dict(archive.written)
    root = f"{uri}/lanes/0/"
    there = {v.uri.removeprefix(root): v.version_id for v in bucket.store.versions(root)}
    assert written == {path: there[path] for path in (BUNDLE, "tile/0/000", f"checkpoints/{256:020d}")}
    migrate(database)
    with connect(database, autocommit=True) as connection:
        ensure_lane(connection, 0, f"{ORIGIN}/lanes/0")
        record_versions(connection, 0, written)
        record_versions(connection, 0, dict.fromkeys(written, "a later one"))
        assert recorded_versions(connection, 0) == written


def test_of_a_lane_that_grows_slowly_a_checkpoint_is_kept_once_an_hour(log: LogFolder, bucket: Bucket) -> None:
    world, uri = log.worlds[0], f"{bucket.uri}-slow"
    times = {10: 0.0, 11: 3_599.0, 12: 3_600.0, 13: 7_199.0, 14: 7_201.0}
    clock = iter(times.values()).__next__
    archive = LaneArchive(
        bucket.store, uri, ORIGIN, 0, lambda _: world.signers["audit-1"], retention_days=1, clock=clock
    )
    edge = RightEdge()
    for size in times:
        edge = grow(edge, log.raws[0][edge.size : size]).edge
        archive.keep(archive.sign(edge, archive.audit(1)))
    assert archive.read_side.kept_sizes() == [10, 12, 14]


@pytest.mark.parametrize("what", ["a marker over the checkpoint", "junk over the checkpoint"])
def test_a_writer_goes_on_from_the_checkpoint_below_what_covers_it(log: LogFolder, bucket: Bucket, what: str) -> None:
    """Or a lane whose checkpoint is out of sight would be begun anew."""
    world = log.worlds[0]
    COVERS[what][0](bucket)
    archive = LaneArchive(bucket.store, bucket.uri, ORIGIN, 0, lambda _: world.signers["audit-1"], retention_days=1)
    opened = archive.open(world.keyring)
    assert opened is not None
    assert opened.checkpoint.size == LONG
    edge = archive.read_side.edge(LONG, opened.checkpoint.root)
    archive.signed_anew(opened, edge, world.keyring)
    assert archive.read_side.checkpoint(archive.read_side.note() or b"", world.keyring).checkpoint.size == LONG


def test_a_lane_that_has_nothing_but_junk_for_a_checkpoint_is_not_begun_anew(log: LogFolder, bucket: Bucket) -> None:
    world = log.worlds[0]
    uri = f"{bucket.uri}-junk"
    archive = LaneArchive(bucket.store, uri, ORIGIN, 0, lambda _: world.signers["audit-1"], retention_days=1)
    assert archive.open(world.keyring) is None
    bucket.store.put_once(f"{uri}/lanes/0/checkpoint", b"junk")
    with pytest.raises(Forked, match="does not verify"):
        archive.open(world.keyring)
