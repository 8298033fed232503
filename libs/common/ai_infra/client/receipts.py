"""The receipt of an own event: that it is in the log, provable offline to anybody who has the audit key's public half.

A receipt is the log entry and a C2SP tlog-proof file. Finding the entry is only a search; what counts is that the entry
holds the very statement that was signed, and that the proof leads from it to a checkpoint signed by the audit key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import orjson

from ai_infra.client.exceptions import AnswerTimeout, ClientError
from ai_infra.client.handles import Published
from ai_infra.events.canonical import canonical_json
from ai_infra.events.event import Record
from ai_infra.events.exceptions import CanonicalError
from ai_infra.events.parse import parse_headers
from ai_infra.events.statement import EVENT_PAYLOAD_TYPE, event_hash, pae
from ai_infra.objects.lane_files import LaneFiles
from ai_infra.objects.reader import BucketReader, ObjectReader, open_store
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings
from ai_infra.tlog.checkpoint import OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.proof_file import LogProof, verify_log_proof
from ai_infra.tlog.proofs import TileHashes
from ai_infra.tlog.tiles import TILE_WIDTH, bundle_width
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys

_EARLIER: Final = timedelta(minutes=10)  # an entry older than the event by more than any clock's error can't be it


class BadReceipt(ClientError):
    """A receipt that does not prove what it should."""

    code = "bad_receipt"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that an event is in the log. `entry` is the log entry, `proof` the text of a C2SP tlog-proof file."""

    event_id: str
    event_hash: str
    origin: str
    lane: int
    position: int
    size: int
    """Size of the tree that the proof is in: the checkpoint's."""
    entry: bytes = field(repr=False)
    proof: bytes = field(repr=False)

    def verify(self, keyring: Keyring) -> OpenedCheckpoint:
        """The checkpoint that covers the event, by the audit keys that the keyring does not revoke. Raises BadReceipt
        or a TlogError; for an event that is in the log, there is a receipt by the new key then."""
        if _hash_of(self.entry) != self.event_hash:
            raise BadReceipt(f"the entry does not hold event {self.event_id} with hash {self.event_hash}")
        log_keys = audit_keys(keyring, self.origin, standing=True)
        return verify_log_proof(self.proof, entry=self.entry, origin=self.origin, log_keys=log_keys)


@contextmanager
def archive_at(uri: str, settings: Settings) -> Iterator[ObjectReader]:
    """An archive to read from: `s3://bucket/prefix`, or a folder."""
    if not uri.startswith("s3://"):
        yield open_store(uri)
        return
    with ObjectStore(settings) as store:
        yield BucketReader(store, uri)


class Receipts:
    """Looks for entries in the archive of one lane, the newest first, each bundle once."""

    def __init__(self, reader: ObjectReader, log_origin: str, lane: int, keyring: Callable[[], Keyring]) -> None:
        self._files = LaneFiles(reader, log_origin, lane)
        self._keyring = keyring

    def find(self, published: Published, *, searched: int = 0) -> tuple[Receipt | None, int]:
        """The receipt, if a checkpoint covers the event, and the size up to which was searched.

        Entries below `searched` are known not to be it.
        """
        opened = self._checkpoint()
        if opened is None:
            return None, searched
        size = opened.checkpoint.size
        for position, entry in self._backwards(size, searched, published):
            if _hash_of(entry) != published.hash:
                continue
            proof = LogProof.make(position, opened, TileHashes(size, self._files.read_tile))
            receipt = Receipt(
                event_id=published.id,
                event_hash=published.hash,
                origin=self._files.origin,
                lane=self._files.lane,
                position=position,
                size=size,
                entry=entry,
                proof=proof.to_bytes(),
            )
            receipt.verify(self._keyring())
            return receipt, size
        return None, size

    def _checkpoint(self) -> OpenedCheckpoint | None:
        note, origin = self._files.note(), self._files.origin
        if note is None:
            return None
        return open_checkpoint(note, origin=origin, log_keys=audit_keys(self._keyring(), origin, standing=True))

    def _backwards(self, size: int, searched: int, published: Published) -> Iterator[tuple[int, bytes]]:
        record = published.record
        said = parse_headers(
            Record(record.topic, record.partition, 0, 0, record.key, record.value, tuple(record.headers))
        ).time
        oldest_ms = int((said - _EARLIER).timestamp() * 1000)
        for index in range((size - 1) // TILE_WIDTH, searched // TILE_WIDTH - 1, -1):
            entries = self._files.bundle(index, bundle_width(index, size))
            for offset in range(len(entries) - 1, -1, -1):
                position = index * TILE_WIDTH + offset
                if searched <= position < size:
                    yield position, entries[offset]
            if entries and (_head(entries[0]).get("append_time_ms") or 0) < oldest_ms:
                return


def await_receipt(
    receipts: Receipts, published: Published, news: Callable[[float], Any], closed: threading.Event, timeout: float
) -> Receipt:
    """The receipt, as soon as a checkpoint covers the event. `news(seconds)` returns when a checkpoint was said, or
    after so many seconds. Raises AnswerTimeout."""
    deadline = time.monotonic() + timeout
    searched = 0
    while True:
        receipt, searched = receipts.find(published, searched=searched)
        if receipt is not None:
            return receipt
        left = deadline - time.monotonic()
        if left <= 0 or closed.is_set():
            raise AnswerTimeout(
                f"no checkpoint covers {published.type} {published.id} within {timeout:.0f} s; is the indexer well? "
                "(`ai-infra status`)"
            )
        news(left)


def _head(entry: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(entry.partition(b"\n")[0])
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _hash_of(entry: bytes) -> str | None:
    """event_hash of the statement in an entry: what was signed, and so what the sender knows it by."""
    try:
        return event_hash(pae(EVENT_PAYLOAD_TYPE, canonical_json(_head(entry).get("statement"))))
    except CanonicalError:
        return None
