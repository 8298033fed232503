"""One lane of the archive, written: bundles, tiles, checkpoints, each once and locked.

Full tiles and bundles can never change: COMPLIANCE for the retention of the policy. Partial ones and the newest
`checkpoint` are superseded: GOVERNANCE for a day, after which the bucket's lifecycle may take them. Names and contents
depend on positions only, so whatever was half done is simply done again; other bytes under a name mean that two
histories of this lane exist, and nothing more is written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import structlog

from ai_infra.objects.exceptions import AccessDenied, Conflict, NotFound
from ai_infra.objects.model import Content, Lock, Put
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

log = structlog.get_logger(__name__)

LOOKED_BACK: Final = 16  # versions of the checkpoint: a writer that was stopped left the last true one near the top
SUPERSEDED_LOCK: Final = timedelta(days=1)
KEPT_EVERY: Final = 3_600.0  # seconds: of a lane that grows by less than a tile an hour, heads are kept for good too
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`audit`: the key that signs what covers this version of the keyring, and no newer one. `clock`: seconds."""
        self.audit = audit
        self.read_side = ArchivedLane(BucketReader(store, uri), log_origin, lane)
        self._store = store
        self._uri = join(uri, f"lanes/{lane}")
        self._retention = timedelta(days=retention_days)
        self._etag: str | None = None
        self._covered = False  # whether something else lies over the newest checkpoint
        self.written: dict[str, str] = {}
        """VersionIds of what was written for good, by path below the lane; whoever has recorded them takes them out."""
        self._clock = clock
        self._kept = (-1, -math.inf)  # the tile that was being filled at the checkpoint that was kept last, and when

    def open(self, keyring: Keyring) -> OpenedCheckpoint | None:
        """The newest checkpoint, verified; remembers its version, so that only its successor can be put over it.

        Where somebody has covered it (a delete marker, or what is none of the lane's) the newest version that verifies
        counts: a lane whose checkpoint is out of sight has still promised it. Raises Forked where none does.
        """
        uri, lane = join(self._uri, "checkpoint"), self.read_side.lane
        self._covered = False
        try:
            content = self._store.read(uri)
        except NotFound:
            found = self._uncovered(uri)
            if found is None:
                self._etag = None
                return None
            content = found
        self._etag = content.etag
        try:
            return self.read_side.checkpoint(content.data, keyring)
        except (TlogError, UnicodeDecodeError) as error:
            why = str(error)
        older = (v for v in self._store.versions(uri) if v.uri == uri and not v.delete_marker)
        for version in islice(older, LOOKED_BACK):
            with suppress(TlogError, UnicodeDecodeError):
                opened = self.read_side.checkpoint(self._store.get(uri, version_id=version.version_id), keyring)
                log.error("the checkpoint does not verify; the one before it counts", lane=lane, why=why)
                self._covered = True
                return opened
        raise Forked(
            f"what lies in the archive as the checkpoint of lane {lane} does not verify ({why}), nor does what lay "
            f"there before; `ai-infra audit verify --lane {lane}` says more"
        )

    def _uncovered(self, uri: str) -> Content | None:
        """The checkpoint below a delete marker, which is taken away: not every store lets a put that expects nothing
        there go over it. None where there never was a checkpoint."""
        versions = [version for version in self._store.versions(uri) if version.uri == uri]
        below = next((version for version in versions if not version.delete_marker), None)
        for marker in versions if below is not None else ():
            if marker.delete_marker:
                log.error(
                    "somebody put a delete marker over the checkpoint; it is taken away",
                    lane=self.read_side.lane,
                    at=marker.modified.isoformat(),
                    version=marker.version_id,
                )
                with suppress(AccessDenied):  # a store that lets a put go over a marker needs no such right
                    self._store.delete(uri, version_id=marker.version_id)
        return self._store.read(uri, version_id=below.version_id) if below is not None else None

    def put_tiles(self, writes: Iterable[TileWrite]) -> None:
        """Write bundles and tiles; what is there already with the same bytes is done. Raises Forked."""
        now = datetime.now(UTC)
        full, partial = Lock.compliance(now + self._retention), Lock.governance(now + SUPERSEDED_LOCK)
        writes = list(writes)
        puts = [Put(join(self._uri, w.path), w.data, lock=full if w.full else partial) for w in writes]
        try:
            stored = self._store.put_many(puts)
        except Conflict as error:
            raise Forked(
                f"the archive holds another history of lane {self.read_side.lane} ({error.message}); nothing more is "
                f"written there. Find out which is true with `ai-infra audit verify --lane {self.read_side.lane}`"
            ) from error
        self.written |= {w.path: s.version_id for w, s in zip(writes, stored, strict=True) if w.full and s.version_id}

    def sign(self, edge: RightEdge, audit: SigningKey) -> OpenedCheckpoint:
        """The checkpoint of `edge`, which is nowhere yet."""
        checkpoint = Checkpoint(self.read_side.origin, edge.size, edge.root())
        return OpenedCheckpoint(checkpoint, (), (), sign_checkpoint(checkpoint, [NoteSigner(checkpoint.origin, audit)]))

    def put_checkpoint(self, signed: OpenedCheckpoint) -> None:
        """Put it over the one that was read or written last. Raises Conflict, where somebody else has put one since:
        then this writer has lost the lane."""
        lock = Lock.governance(datetime.now(UTC) + SUPERSEDED_LOCK)
        uri = join(self._uri, "checkpoint")
        self._etag = self._store.put_if_match(uri, signed.note, self._etag, content_type=_NOTE_TYPE, lock=lock).etag

    def keep(self, signed: OpenedCheckpoint) -> None:
        """A checkpoint stays for good where it is the first behind a full tile, or the first in an hour, or the first
        of this writer: the lane's history of heads. Kept behind its own put as the newest one, so that a kept one that
        is newer than the lane's tells of somebody who put an older one back. What a crash between the two leaves out,
        the successor's first one makes up for."""
        size, now = signed.checkpoint.size, self._clock()
        tile, at = self._kept
        if size // TILE_WIDTH == tile and now - at < KEPT_EVERY:
            return
        lock = Lock.compliance(datetime.now(UTC) + self._retention)
        path = f"checkpoints/{size:020d}"
        try:
            stored = self._store.put_once(join(self._uri, path), signed.note, content_type=_NOTE_TYPE, lock=lock)
        except Conflict:
            pass  # the same head signed by an older audit key: either is as good
        else:
            if stored.version_id:
                self.written[path] = stored.version_id
        self._kept = (size // TILE_WIDTH, now)

    def signed_anew(self, opened: OpenedCheckpoint, edge: RightEdge, keyring: Keyring) -> OpenedCheckpoint:
        """The newest checkpoint, which `open` gave; signed anew where its key is revoked since, or something else lies
        over it, so that a lane that is idle does not go on showing a head that nobody may believe. Raises Conflict as
        `put_checkpoint` does."""
        standing = set(audit_keys(keyring, self.read_side.origin, standing=True))
        if standing & set(opened.signed_by) and not self._covered:
            return opened
        signed = self.sign(edge, self.audit(keyring.version))
        self.put_checkpoint(signed)
        return signed
