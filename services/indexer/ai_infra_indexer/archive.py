"""One lane of the archive, written: bundles, tiles, checkpoints, each once and locked.

Full tiles and bundles can never change: COMPLIANCE for the retention of the policy. Partial ones and the newest
`checkpoint` are superseded: GOVERNANCE for a day, after which the bucket's lifecycle may take them. Names and contents
depend on positions only, so whatever was half done is simply done again; other bytes under a name mean that two
histories of this lane exist, and nothing more is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from ai_infra.objects.exceptions import Conflict, NotFound
from ai_infra.objects.model import Lock, Put
from ai_infra.objects.reader import BucketReader
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.uri import join
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, sign_checkpoint
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.growth import RightEdge, TileWrite
from ai_infra.tlog.note import NoteSigner, SigningKey
from ai_infra.tlog.tiles import TILE_WIDTH
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.exceptions import Forked

SUPERSEDED_LOCK: Final = timedelta(days=1)
_NOTE_TYPE: Final = "text/plain; charset=utf-8"


class LaneArchive:
    """The write side of one lane's log. `etag`: of the checkpoint that this writer read or wrote last."""

    def __init__(
        self,
        store: ObjectStore,
        uri: str,
        log_origin: str,
        lane: int,
        audit: Callable[[int], SigningKey],
        *,
        retention_days: int,
    ) -> None:
        """`audit`: the key that signs what covers this version of the keyring, and no newer one."""
        self.audit = audit
        self.read_side = ArchivedLane(BucketReader(store, uri), log_origin, lane)
        self._store = store
        self._uri = join(uri, f"lanes/{lane}")
        self._retention = timedelta(days=retention_days)
        self._etag: str | None = None

    def open(self, keyring: Keyring) -> OpenedCheckpoint | None:
        """The newest checkpoint, verified; remembers its version, so that only its successor can be put over it.

        Raises Forked where what lies there is none of this lane.
        """
        try:
            content = self._store.read(join(self._uri, "checkpoint"))
        except NotFound:
            self._etag = None
            return None
        self._etag = content.etag
        try:
            return self.read_side.checkpoint(content.data, keyring)
        except (TlogError, UnicodeDecodeError) as error:
            raise Forked(
                f"what lies in the archive as the checkpoint of lane {self.read_side.lane} does not verify ({error}); "
                f"`ai-infra audit verify --lane {self.read_side.lane}` says more"
            ) from error

    def put_tiles(self, writes: Iterable[TileWrite]) -> None:
        """Write bundles and tiles; what is there already with the same bytes is done. Raises Forked."""
        now = datetime.now(UTC)
        full, partial = Lock.compliance(now + self._retention), Lock.governance(now + SUPERSEDED_LOCK)
        puts = [Put(join(self._uri, w.path), w.data, lock=full if w.full else partial) for w in writes]
        try:
            self._store.put_many(puts)
        except Conflict as error:
            raise Forked(
                f"the archive holds another history of lane {self.read_side.lane} ({error.message}); nothing more is "
                f"written there. Find out which is true with `ai-infra audit verify --lane {self.read_side.lane}`"
            ) from error

    def put_checkpoint(self, edge: RightEdge, covered: int, audit: SigningKey) -> OpenedCheckpoint:
        """Sign and put the checkpoint of `edge`, over the one of size `covered`. Raises Conflict, where somebody else
        has put one since: then this writer has lost the lane."""
        checkpoint = Checkpoint(self.read_side.origin, edge.size, edge.root())
        note = sign_checkpoint(checkpoint, [NoteSigner(checkpoint.origin, audit)])
        if edge.size // TILE_WIDTH > covered // TILE_WIDTH:
            self._keep(edge.size, note)
        lock = Lock.governance(datetime.now(UTC) + SUPERSEDED_LOCK)
        stored = self._store.put_if_match(
            join(self._uri, "checkpoint"), note, self._etag, content_type=_NOTE_TYPE, lock=lock
        )
        self._etag = stored.etag
        return OpenedCheckpoint(checkpoint, (), (), note)

    def signed_anew(self, opened: OpenedCheckpoint, edge: RightEdge, keyring: Keyring) -> OpenedCheckpoint:
        """The newest checkpoint, which `open` gave; signed anew where its key is revoked since, so that a lane that is
        idle does not go on showing a head that nobody may believe. Raises Conflict as `put_checkpoint` does."""
        standing = set(audit_keys(keyring, self.read_side.origin, standing=True))
        if standing & set(opened.signed_by):
            return opened
        return self.put_checkpoint(edge, edge.size, self.audit(keyring.version))

    def _keep(self, size: int, note: bytes) -> None:
        """A checkpoint for each full tile stays for good: the lane's history of heads. Kept before it becomes the
        newest one, so that a crash between the two loses nothing: what it covers is in the archive already."""
        lock = Lock.compliance(datetime.now(UTC) + self._retention)
        try:
            self._store.put_once(join(self._uri, f"checkpoints/{size:020d}"), note, content_type=_NOTE_TYPE, lock=lock)
        except Conflict:
            # The same head signed by an older audit key: either is as good.
            return
