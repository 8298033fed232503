"""The heads' writer against a real bucket and database: it signs only what verifies, and never goes back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import ObjectStore
from ai_infra.readmodel import connect, migrate
from ai_infra.settings import Settings
from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.heads import Heads, LaneHead, heads_origin, open_heads, sign_heads
from ai_infra.tlog.note import COSIGNATURE, NoteSigner
from ai_infra.tlog.tree import EMPTY_ROOT
from ai_infra.trust.keyring import AUDIT, Key, Keyring, Revocation, Roots
from ai_infra.trust.log_keys import audit_keys
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.archive import LaneArchive
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cosignatures import CosignatureRefused, cosignature_path, read_cosigned, take_in
from ai_infra_indexer.heads import HeadsWriter
from ai_infra_indexer.store import ensure_lane

ORIGIN = "example.org/log"
LANES = 3
AUDIT_KEY = LocalSigner.fresh("audit-1")
NOW = datetime.now(UTC)


def _keyring() -> Keyring:
    """As much of a keyring as reading a checkpoint takes."""
    key = Key("audit-1", AUDIT_KEY.public_key, "", AUDIT)
    return Keyring(1, 0, Roots({"root-1": bytes(32)}, 1), {"audit-1": key}, {}, {}, {})


@dataclass
class Place:
    """An archive of three lanes below a prefix of the bucket, and a database with their checkpoints' copies."""

    store: ObjectStore
    uri: str
    database: str
    keyring: Keyring = field(default_factory=_keyring)
    edges: dict[int, RightEdge] = field(default_factory=dict)

    @property
    def lanes(self) -> list[ArchivedLane]:
        reader = BucketReader(self.store, self.uri)
        return [ArchivedLane(reader, ORIGIN, number) for number in range(LANES)]

    def writer(self, clock: Any = None) -> HeadsWriter:
        lanes = self.lanes
        more = {"clock": clock} if clock is not None else {}
        return HeadsWriter(self.store, self.uri, lanes, ORIGIN, lambda: AUDIT_KEY, lambda: self.keyring, **more)

    def grow(self, lane: int, size: int, *, kind: str = "a") -> str:
        """Archive a lane up to a size; its checkpoint's note."""
        edge = self.edges.get(lane, RightEdge())
        growth = grow(edge, [f"{kind} {n}".encode() for n in range(edge.size, size)])
        self.edges[lane] = growth.edge
        for write in growth.writes:
            self.store.put_once(f"{self.uri}/lanes/{lane}/{write.path}", write.data)
        return self.show(lane, Checkpoint(self.lanes[lane].origin, size, growth.edge.root()))

    def show(self, lane: int, checkpoint: Checkpoint, signer: LocalSigner = AUDIT_KEY) -> str:
        """Put a checkpoint over the lane's newest one."""
        note = sign_checkpoint(checkpoint, [NoteSigner(checkpoint.origin, signer)])
        place = f"{self.uri}/lanes/{lane}/checkpoint"
        etag = self.store.head(place).etag if self.store.exists(place) else None
        self.store.put_if_match(place, note, etag)
        return note.decode()

    def copy(self, connection: Any, lane: int, note: str) -> None:
        connection.execute("UPDATE lane_progress SET checkpoint_note = %s WHERE lane = %s", (note, lane))

    def heads(self) -> Heads:
        origin = heads_origin(ORIGIN)
        note = self.store.get(f"{self.uri}/heads")
        return open_heads(note, origin=origin, log_keys=audit_keys(self.keyring, origin)).heads

    def sizes(self) -> list[int]:
        return [head.size for head in self.heads().lanes]


@pytest.fixture
def place(settings: Settings, database: str) -> Any:
    migrate(database)
    with connect(database, autocommit=True) as connection:
        for lane in range(LANES):
            ensure_lane(connection, lane, f"{ORIGIN}/lanes/{lane}")
    with ObjectStore(settings) as store:
        yield Place(store, f"s3://{settings.objects.archive_bucket}/{secrets.token_hex(6)}", database)


def test_heads_follow_the_lanes_and_are_written_only_when_one_has_moved(place: Place) -> None:
    writer = place.writer()
    with connect(place.database, autocommit=True) as connection:
        assert writer.write(connection) is False  # nothing is there yet
        place.copy(connection, 1, place.grow(1, 5))
        assert writer.write(connection) is True
        assert place.sizes() == [0, 5, 0]
        assert writer.write(connection) is False
        place.copy(connection, 2, place.grow(2, 300))
        assert writer.write(connection) is True
        assert place.sizes() == [0, 5, 300]


def test_a_restored_database_does_not_take_the_heads_back(place: Place) -> None:
    with connect(place.database, autocommit=True) as connection:
        early = place.grow(0, 5)
        place.copy(connection, 0, place.grow(0, 9))
        place.writer().write(connection)
        place.copy(connection, 0, early)
        place.copy(connection, 1, "")
        place.grow(1, 4)
        assert place.writer().write(connection) is True  # lane 1 is read from the archive
        assert place.sizes() == [9, 4, 0]


def test_what_does_not_verify_is_never_signed(place: Place) -> None:
    with connect(place.database, autocommit=True) as connection:
        good = place.grow(0, 5)
        place.copy(connection, 0, good)
        writer = place.writer()
        writer.write(connection)
        other = LocalSigner.fresh("audit-1")
        forged = sign_checkpoint(
            Checkpoint(f"{ORIGIN}/lanes/0", 50, bytes(32)), [NoteSigner(f"{ORIGIN}/lanes/0", other)]
        )
        lane_1 = sign_checkpoint(
            Checkpoint(f"{ORIGIN}/lanes/1", 50, bytes(32)), [NoteSigner(f"{ORIGIN}/lanes/1", AUDIT_KEY)]
        )
        for note in (forged.decode(), lane_1.decode(), "nonsense", good.replace("\n5\n", "\n6\n")):
            place.copy(connection, 0, note)
            assert writer.write(connection) is False
        assert place.sizes() == [5, 0, 0]


def test_an_archive_that_was_taken_back_does_not_take_the_heads_back(place: Place) -> None:
    with connect(place.database, autocommit=True) as connection:
        place.grow(0, 5)
        early = place.lanes[0].note()
        assert early is not None
        place.copy(connection, 0, place.grow(0, 9))
        writer = place.writer()
        writer.write(connection)
        place.store.put_if_match(
            f"{place.uri}/lanes/0/checkpoint", early, place.store.head(f"{place.uri}/lanes/0/checkpoint").etag
        )
        place.copy(connection, 0, early.decode())
        place.copy(connection, 1, place.grow(1, 3))
        assert place.writer().write(connection) is True
        assert place.sizes() == [9, 3, 0]


def test_two_writers_never_put_an_older_one_over_a_newer(place: Place) -> None:
    """A replica that lost lane 0 and does not know it yet writes at the same time."""
    with connect(place.database, autocommit=True) as connection:
        place.copy(connection, 0, place.grow(0, 5))
        stalled, current = place.writer(), place.writer()
        stalled.write(connection)
        place.copy(connection, 0, place.grow(0, 9))
        assert current.write(connection) is True
        place.copy(connection, 1, place.grow(1, 2))
        before = place.heads()
        assert stalled.write(connection) is False  # what it knew is not there any more
        assert place.heads() == before
        assert stalled.write(connection) is True
        assert place.sizes() == [9, 2, 0]


def test_heads_that_somebody_put_there_are_written_over_and_time_never_goes_back(place: Place) -> None:
    origin = heads_origin(ORIGIN)
    stranger = NoteSigner(origin, LocalSigner.fresh("audit-1"))
    lanes = tuple(LaneHead(0, EMPTY_ROOT) for _ in range(LANES))
    place.store.put_once(f"{place.uri}/heads", sign_heads(Heads(origin, 1, lanes), [stranger]))
    with connect(place.database, autocommit=True) as connection:
        place.copy(connection, 0, place.grow(0, 5))
        assert place.writer(lambda: 5000.0).write(connection) is True
        assert place.heads().time_ms == 5_000_000
        place.copy(connection, 0, place.grow(0, 6))
        assert place.writer(lambda: 1000.0).write(connection) is True  # the clock went back an hour
        assert place.heads().time_ms == 5_000_001


def test_a_head_whose_key_was_revoked_is_signed_anew_and_so_are_the_heads(place: Place) -> None:
    second = LocalSigner.fresh("audit-2")
    place.grow(0, 300)
    with connect(place.database, autocommit=True) as connection:
        place.writer().write(connection)

        def archive(audit: LocalSigner) -> LaneArchive:
            return LaneArchive(place.store, place.uri, ORIGIN, 0, lambda _: audit, retention_days=1)

        same = archive(AUDIT_KEY)
        opened = same.open(place.keyring)
        assert opened is not None
        assert same.signed_anew(opened, place.edges[0], place.keyring) is opened

        keys = {**place.keyring.keys, "audit-2": Key("audit-2", second.public_key, "", AUDIT)}
        place.keyring = replace(place.keyring, keys=keys, revocations={"audit-1": Revocation("audit-1", 0, "stolen")})
        new = archive(second)
        opened = new.open(place.keyring)
        assert opened is not None
        new.signed_anew(opened, place.edges[0], place.keyring)
        note = place.lanes[0].note()
        assert note is not None
        assert place.lanes[0].checkpoint(note, place.keyring, standing=True).checkpoint == opened.checkpoint

        lanes, origin = place.lanes, heads_origin(ORIGIN)
        writer = HeadsWriter(place.store, place.uri, lanes, ORIGIN, lambda: second, lambda: place.keyring)
        assert writer.write(connection) is True
        assert writer.write(connection) is False
        standing = audit_keys(place.keyring, origin, standing=True)
        assert (
            open_heads(place.store.get(f"{place.uri}/heads"), origin=origin, log_keys=standing).heads == place.heads()
        )


# --- what witnesses hand over -----------------------------------------------------------------------------------------

WITNESS = NoteSigner("witness.example/w1", LocalSigner.fresh("w1"), COSIGNATURE)
SECOND = NoteSigner("witness.example/w2", LocalSigner.fresh("w2"), COSIGNATURE)


def taken(place: Place, note: bytes, *, now: datetime = NOW) -> list[tuple[str, int, bool]]:
    known = [WITNESS.verifier, SECOND.verifier]
    done = take_in(place.store, place.uri, place.lanes[0], note, keyring=place.keyring, witnesses=known, now=now)
    return [(item.witness, item.size, fresh) for item, fresh in done]


def test_the_newest_word_of_each_witness_is_kept_and_nothing_older_replaces_it(place: Place) -> None:
    stamp = int(NOW.timestamp())
    first = place.grow(0, 5).encode()
    second = place.grow(0, 300).encode()
    assert taken(place, cosign(cosign(first, WITNESS, stamp), SECOND, stamp)) == [
        (WITNESS.name, 5, True),
        (SECOND.name, 5, True),
    ]
    assert taken(place, cosign(second, WITNESS, stamp)) == [(WITNESS.name, 300, True)]
    assert taken(place, cosign(first, WITNESS, stamp + 60)) == [(WITNESS.name, 5, False)]
    known = [WITNESS.verifier, SECOND.verifier]
    kept = {item.witness: item for item in read_cosigned(place.lanes[0], place.keyring, known)}
    assert {name: item.size for name, item in kept.items()} == {WITNESS.name: 300, SECOND.name: 5}
    assert kept[SECOND.name].note.count("—".encode()) == 2  # the log's, and its own
    assert taken(place, cosign(second, WITNESS, stamp + 60)) == [(WITNESS.name, 300, True)]
    assert taken(place, cosign(second, WITNESS, stamp)) == [(WITNESS.name, 300, False)]


def test_what_a_witness_did_not_see_of_this_log_is_refused(place: Place) -> None:
    stamp = int(NOW.timestamp())
    place.grow(0, 300)
    origin = place.lanes[0].origin
    signer = NoteSigner(origin, AUDIT_KEY)

    def signed(size: int, root: bytes, by: NoteSigner = signer) -> bytes:
        return sign_checkpoint(Checkpoint(origin, size, root), [by])

    root = place.edges[0].root()
    stranger = NoteSigner("witness.example/w3", LocalSigner.fresh("w3"), COSIGNATURE)
    refused = {
        "forked": cosign(signed(5, bytes(32)), WITNESS, stamp),
        "older": cosign(signed(301, bytes(32)), WITNESS, stamp),
        "cosignature_refused": cosign(signed(300, root), WITNESS, stamp + 3600),
    }
    for code, note in refused.items():
        with pytest.raises(CosignatureRefused) as error:
            taken(place, note)
        assert error.value.code == code
    with pytest.raises(CosignatureRefused):
        taken(place, cosign(signed(300, root), WITNESS, 0))
    for note in (
        cosign(signed(300, root), stranger, stamp),
        cosign(signed(300, root, NoteSigner(origin, LocalSigner.fresh("a"))), WITNESS, stamp),
        signed(300, root),
    ):
        with pytest.raises(Exception, match=r"cosigned|signed"):
            taken(place, note)
    assert not place.store.exists(f"{place.uri}/lanes/0/{cosignature_path(WITNESS.verifier)}")
    assert taken(place, cosign(signed(300, root), WITNESS, stamp), now=NOW + timedelta(days=1)) == [
        (WITNESS.name, 300, True)
    ]
