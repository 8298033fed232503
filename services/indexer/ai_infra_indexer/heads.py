"""The signed note `heads`, written: all lanes' heads at one moment, so that no lane can be shown older than another.

The replica that holds lane 0 writes it, after its own checkpoints, when a lane has a newer head. It signs nothing but
heads that it has read from verified checkpoints: the copies that the lanes' writers leave in Postgres, or the archive's
own where such a copy is missing or older than what was signed before (a restored database). It never goes back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from ai_infra.objects.exceptions import Conflict, NotFound
from ai_infra.objects.lane_files import MAX_NOTE_BYTES
from ai_infra.objects.model import Lock
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.uri import join
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.exceptions import MalformedNote, TlogError
from ai_infra.tlog.heads import Heads, LaneHead, heads_origin, open_heads, sign_heads
from ai_infra.tlog.note import NoteSigner, SigningKey
from ai_infra.tlog.tree import EMPTY_ROOT
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archive import SUPERSEDED_LOCK
from ai_infra_indexer.archived import ArchivedLane

log = structlog.get_logger(__name__)

PATH: Final = "heads"
_EMPTY: Final = LaneHead(0, EMPTY_ROOT)


class HeadsWriter:
    """Writes `heads`. `write` is called by one thread, at the checkpoint interval."""

    def __init__(
        self,
        store: ObjectStore,
        uri: str,
        lanes: list[ArchivedLane],
        log_origin: str,
        audit: Callable[[], SigningKey],
        keyring: Callable[[], Keyring],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`lanes`: the read side of every lane's archive, lane 0 first. `audit`: the key that signs now."""
        self._store = store
        self._uri = join(uri, PATH)
        self._lanes = lanes
        self._origin = heads_origin(log_origin)
        self._audit = audit
        self._keyring = keyring
        self._clock = clock
        self._last: Heads | None = None
        self._etag: str | None = None
        self._known: dict[int, tuple[str, LaneHead]] = {}
        self._asked: set[int] = set()  # lanes without a copy in Postgres, of which the archive was asked
        self._revoked = False  # whether the key that signed the archived heads is revoked since
        self._off = False

    def write(self, connection: Any) -> bool:
        """Sign and put the heads as they are now, if one is newer; False where nothing is to be said.

        Raises UnavailableError, and what Postgres raises.
        """
        if self._off:
            return False
        if self._last is None:
            self._read()
        before = self._last.lanes if self._last is not None else (_EMPTY,) * len(self._lanes)
        now = self._heads(connection, before)
        if now == before and self._last is not None and not self._revoked:
            return False
        if not any(head.size for head in now):
            return False
        since = self._last.time_ms if self._last is not None else 0
        heads = Heads(self._origin, max(int(self._clock() * 1000), since + 1), now)
        try:
            note = sign_heads(heads, [NoteSigner(self._origin, self._audit())])
        except MalformedNote as error:
            self._off = True  # a KMS signs 4,096 bytes: some 50 lanes
            log.error("the heads of so many lanes can't be signed in one note", lanes=len(now), why=str(error))
            return False
        lock = Lock.governance(datetime.now(UTC) + SUPERSEDED_LOCK)
        try:
            stored = self._store.put_if_match(
                self._uri, note, self._etag, content_type="text/plain; charset=utf-8", lock=lock
            )
        except Conflict:
            # Another replica has lane 0 now, or had it: what it wrote is read before the next try.
            self._last = None
            return False
        self._last, self._etag, self._revoked = heads, stored.etag, False
        return True

    def _read(self) -> None:
        """What was signed last. Heads that do not verify are somebody else's bytes: they are written over, and the
        bucket's versions keep them."""
        try:
            content = self._store.read(self._uri, max_bytes=MAX_NOTE_BYTES)
        except NotFound:
            self._last, self._etag = None, None
            return
        self._etag = content.etag
        try:
            keyring = self._keyring()
            opened = open_heads(content.data, origin=self._origin, log_keys=audit_keys(keyring, self._origin))
            self._revoked = not set(opened.signed_by) & set(audit_keys(keyring, self._origin, standing=True))
            if len(opened.heads.lanes) == len(self._lanes):
                self._last = opened.heads
        except TlogError as error:
            log.error("the archived heads do not verify", why=str(error))

    def _heads(self, connection: Any, before: tuple[LaneHead, ...]) -> tuple[LaneHead, ...]:
        rows = connection.execute("SELECT lane, checkpoint_note FROM lane_progress ORDER BY lane").fetchall()
        notes: dict[int, str] = dict(rows)
        return tuple(
            self._head(archived, notes.get(archived.lane, ""), before[archived.lane]) for archived in self._lanes
        )

    def _head(self, archived: ArchivedLane, note: str, before: LaneHead) -> LaneHead:
        """One lane's newest verified head, never behind the one before."""
        head = self._verified(archived, note) if note else _EMPTY
        first = not note and archived.lane not in self._asked
        if head.size > before.size or (head == before and not first):
            return head
        self._asked.add(archived.lane)
        raw = archived.note()
        head = self._verified(archived, raw.decode()) if raw is not None else _EMPTY
        if head.size > before.size or head == before:
            return head
        log.error("a lane is older than its heads", lane=archived.lane, was=before.size, shown=head.size)
        return before

    def _verified(self, archived: ArchivedLane, note: str) -> LaneHead:
        known = self._known.get(archived.lane)
        if known is not None and known[0] == note:
            return known[1]
        try:
            found: Checkpoint = archived.checkpoint(note.encode(), self._keyring()).checkpoint
        except TlogError as error:
            log.error("a checkpoint that is no checkpoint of the lane", lane=archived.lane, why=str(error))
            return _EMPTY
        head = LaneHead(found.size, found.root)
        self._known[archived.lane] = (note, head)
        return head
