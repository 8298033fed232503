"""What witnesses have cosigned, beside the log: `lanes/<p>/cosignatures/<witness>`, the newest of each.

A witness has no right to write into our bucket. It hands over the checkpoint with its cosignature, as a file, and the
operator takes that in: after the witness's signature has verified by a key of the settings, and the checkpoint as one
of this very log. Nothing that is taken in is ever replaced by something older.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from ai_infra.errors import ConfigurationError
from ai_infra.objects.exceptions import NotFound
from ai_infra.objects.lane_files import MAX_NOTE_BYTES
from ai_infra.objects.model import Lock
from ai_infra.objects.store import ObjectStore
from ai_infra.objects.uri import join
from ai_infra.settings import Settings
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.exceptions import MalformedNote, TlogError
from ai_infra.tlog.note import COSIGNATURE, Note, VerifiedSignature, VerifierKey, parse_note, parse_vkey
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archive import SUPERSEDED_LOCK
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.continuity import Continuity, continuity
from ai_infra_indexer.exceptions import IndexerError

_AHEAD: Final = timedelta(minutes=5)  # a witness's clock may be so much before ours


class CosignatureRefused(IndexerError):
    """A cosignature that is not taken in."""

    code = "cosignature_refused"


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness's newest word on a lane."""

    lane: int
    witness: str
    size: int
    root: bytes
    at: datetime
    note: bytes
    """The checkpoint with the log's signature and this cosignature."""


def configured_witnesses(settings: Settings) -> tuple[VerifierKey, ...]:
    """The witnesses of the settings. Raises ConfigurationError for what is no vkey of a witness."""
    keys = []
    for text in settings.log.witnesses:
        try:
            key = parse_vkey(text)
        except MalformedNote as error:
            raise ConfigurationError(f"AI_INFRA_WITNESSES: {error}") from None
        if key.kind != COSIGNATURE:
            raise ConfigurationError(
                f"AI_INFRA_WITNESSES: {key.name} is a log's key (type 0x01); a witness's has type 0x04. "
                "`ai-infra audit witness --show-vkey` prints it"
            )
        keys.append(key)
    if settings.log.witness_quorum > len({key.public_key for key in keys}):
        raise ConfigurationError(
            f"AI_INFRA_WITNESS_QUORUM is {settings.log.witness_quorum}, AI_INFRA_WITNESSES has {len(keys)}"
        )
    return tuple(keys)


def cosignature_path(key: VerifierKey) -> str:
    """Where a witness's newest cosignature lies below the lane."""
    return f"cosignatures/{re.sub(r'[^A-Za-z0-9.-]', '_', key.name)}-{key.key_id.hex()}"


def read_cosigned(archived: ArchivedLane, keyring: Keyring, witnesses: Sequence[VerifierKey]) -> list[Cosigned]:
    """What known witnesses have cosigned of a lane; none where it does not verify: see the audit for why."""
    found = []
    for key in witnesses:
        try:
            note = archived.beside(cosignature_path(key))
            opened = open_by_witnesses(note, archived.origin, keyring, [key])
        except (NotFound, TlogError):
            continue
        found.append(cosigned_of(archived.lane, opened, opened.witnessed[0]))
    return found


def open_by_witnesses(note: bytes, origin: str, keyring: Keyring, witnesses: Sequence[VerifierKey]) -> OpenedCheckpoint:
    """A checkpoint that the log has signed and at least one of these witnesses cosigned. Raises a TlogError."""
    return open_checkpoint(note, origin=origin, log_keys=audit_keys(keyring, origin), witnesses=witnesses, quorum=1)


def cosigned_of(lane: int, opened: OpenedCheckpoint, signature: VerifiedSignature) -> Cosigned:
    """One witness's part of a cosigned checkpoint."""
    head = opened.checkpoint
    at = datetime.fromtimestamp(min(signature.timestamp or 0, 1 << 37), UTC)
    return Cosigned(lane, signature.key.name, head.size, head.root, at, opened.note)


def merged(cosigned: Sequence[Cosigned]) -> dict[Checkpoint, bytes]:
    """Notes of the same checkpoint as one note with all their signatures, by checkpoint."""
    lines: dict[bytes, dict[bytes, None]] = {}
    for item in cosigned:
        note = parse_note(item.note)
        lines.setdefault(note.text, {}).update(dict.fromkeys(s.line for s in note.signatures))
    return {Checkpoint.parse(text): text + b"\n" + b"".join(signatures) for text, signatures in lines.items()}


def take_in(
    store: ObjectStore,
    uri: str,
    archived: ArchivedLane,
    note: bytes,
    *,
    keyring: Keyring,
    witnesses: Sequence[VerifierKey],
    now: datetime,
) -> list[tuple[Cosigned, bool]]:
    """Verify a cosigned checkpoint of a lane and put it beside the log; False where a newer one was there already.

    Raises TlogError, CosignatureRefused, Conflict where two took in at once.
    """
    opened = open_by_witnesses(note, archived.origin, keyring, witnesses)
    newest = archived.note()
    if newest is None:
        raise CosignatureRefused(f"lane {archived.lane} has no checkpoint yet")
    shown = archived.checkpoint(newest, keyring).checkpoint
    verdict = continuity(opened.checkpoint, shown, archived.read_tile)
    if verdict is not Continuity.CONTINUES:
        why = {
            Continuity.OLDER: f"it has {opened.checkpoint.size} entries, the archive only {shown.size}: that was taken "
            "back, or is not the one that the witness looked at",
            Continuity.FORKED: "it is of another history than the archive's: both are signed by the log's key. Keep "
            "the file, it is the evidence",
            Continuity.UNREADABLE: "the archive's tiles do not lead to it; `ai-infra audit verify` says why",
        }[verdict]
        raise CosignatureRefused(f"the cosigned checkpoint of lane {archived.lane} is refused: {why}", code=verdict)
    parsed, done = parse_note(note), []
    for signature in opened.witnessed:
        item = cosigned_of(archived.lane, opened, signature)
        if not signature.timestamp or item.at > now + _AHEAD:
            raise CosignatureRefused(
                f"{item.witness} says that it cosigned at {item.at.isoformat()}, which is not yet (or never)"
            )
        kept = {*opened.signed_by, signature.key}
        ids = {(key.name, key.key_id) for key in kept}
        lines = tuple(line for line in parsed.signatures if (line.name, line.key_id) in ids)
        done.append(
            (item, _put(store, uri, archived, signature.key, Note(parsed.text, lines).to_bytes(), item, keyring))
        )
    return done


def _put(
    store: ObjectStore,
    uri: str,
    archived: ArchivedLane,
    key: VerifierKey,
    note: bytes,
    item: Cosigned,
    keyring: Keyring,
) -> bool:
    place, etag = join(uri, f"lanes/{archived.lane}/{cosignature_path(key)}"), None
    try:
        content = store.read(place, max_bytes=MAX_NOTE_BYTES)
    except NotFound:
        pass
    else:
        etag = content.etag
        try:
            there = open_by_witnesses(content.data, archived.origin, keyring, [key])
        except TlogError:
            there = None  # what does not verify vouches for nothing
        if there is not None:
            known = cosigned_of(archived.lane, there, there.witnessed[0])
            if (known.size, known.at) >= (item.size, item.at):
                return False
    lock = Lock.governance(datetime.now(UTC) + SUPERSEDED_LOCK)
    store.put_if_match(place, note, etag, content_type="text/plain; charset=utf-8", lock=lock)
    return True
