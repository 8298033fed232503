"""A witness: looks at another party's log, and cosigns what continues everything that it saw before.

It needs read access to the log's files, the log's public key, a key of its own, and a folder that it keeps. The folder
is its memory and its word at once: `<sha256 of the lane's origin>/checkpoint` is the newest checkpoint that it
cosigned, which is what C2SP tlog-witness has a witness serve to monitors, so the folder may be served as it is. A
cosignature is durable there before anybody can see it. It never goes back, and what it has once seen forked it never
cosigns again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Final

from ai_infra.errors import UnavailableError
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.note import Note, NoteSigner, VerifierKey, parse_note
from ai_infra.tlog.tree import EMPTY_ROOT
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.continuity import Continuity, continuity
from ai_infra_indexer.exceptions import IndexerError

RENEW: Final = timedelta(hours=1)  # an idle log is cosigned anew after this, so that its readers know it is looked at


class BadMemory(IndexerError):
    """What the witness remembers does not verify, or another process has it. It must not begin anew by itself."""

    code = "bad_memory"


class Saw(StrEnum):
    """What came of a look at a lane."""

    COSIGNED = "cosigned"
    UNCHANGED = "unchanged"
    EMPTY = "empty"
    """The lane has no checkpoint yet."""
    UNVERIFIED = "unverified"
    """The checkpoint is not signed by the log's key, or the tiles do not lead to it: it is not cosigned."""
    OLDER = "older"
    """The log shows less than was cosigned before."""
    FORKED = "forked"
    """The log has signed two histories. Both checkpoints are kept beside the memory, as evidence."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one lane."""

    lane: int
    origin: str
    saw: Saw
    size: int | None = None
    """Of the newest checkpoint that is cosigned."""
    detail: str = ""


class Witness:
    """Looks and cosigns. `log_keys`: public keys that may sign the log's checkpoints."""

    def __init__(self, signer: NoteSigner, log_keys: Collection[bytes], state: Path) -> None:
        self._signer = signer
        self._log_keys = tuple(log_keys)
        self._state = state

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the memory: two processes with one memory could cosign two histories. Raises BadMemory."""
        self._state.mkdir(parents=True, exist_ok=True)
        with (self._state / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BadMemory(f"another witness works with {self._state}; one memory has one witness") from None
            yield

    def look(self, archived: ArchivedLane, now: datetime) -> Look:
        """Look at a lane, and cosign what it shows where that continues what was seen. Inside `holding`.

        Raises BadMemory; ObjectsUnavailable where the log does not answer.
        """

        def told(saw: Saw, size: int | None = None, detail: str = "") -> Look:
            return Look(archived.lane, archived.origin, saw, size, detail)

        known = self._remembered(archived.origin)
        size = known.checkpoint.size if known is not None else None
        note = archived.note()
        if note is None:
            detail = f"the lane shows no checkpoint; {size} entries were cosigned"
            return told(Saw.EMPTY) if known is None else told(Saw.OLDER, size, detail)
        try:
            shown = open_checkpoint(note, origin=archived.origin, log_keys=self._keys(archived.origin))
        except (TlogError, UnicodeDecodeError) as error:
            return told(Saw.UNVERIFIED, size, f"the checkpoint does not verify: {error}")
        before = known.checkpoint if known is not None else Checkpoint(archived.origin, 0, EMPTY_ROOT)
        verdict = continuity(before, shown.checkpoint, archived.read_tile)
        if verdict is Continuity.CONTINUES:
            if known is not None and known.checkpoint == shown.checkpoint and not _stale(known, now):
                return told(Saw.UNCHANGED, size)
            self._cosign(shown, now)
            return told(Saw.COSIGNED, shown.checkpoint.size)
        if verdict is Continuity.FORKED and known is not None:  # nothing forks from the empty tree
            return told(Saw.FORKED, size, self._keep_evidence(known, shown))
        if verdict is Continuity.OLDER:
            saw, detail = Saw.OLDER, f"the lane shows {shown.checkpoint.size} entries; {size} were cosigned"
        else:
            saw, detail = Saw.UNVERIFIED, f"the tiles do not lead from {before.size} to {shown.checkpoint.size} entries"
        return told(saw, size, detail)

    def cosigned(self, origin: str) -> bytes | None:
        """The newest cosigned checkpoint, to hand to the log's operator."""
        known = self._remembered(origin)
        return known.note if known is not None else None

    def knows(self, origin: str) -> bool:
        """Whether anything of this lane was ever cosigned."""
        return self._file(origin).exists()

    def _keys(self, origin: str) -> list[VerifierKey]:
        return [VerifierKey(origin, key) for key in self._log_keys]

    def _cosign(self, shown: OpenedCheckpoint, now: datetime) -> None:
        """Others' signatures are left out: the witness vouches for none of them."""
        parsed = parse_note(shown.note)
        ids = {(key.name, key.key_id) for key in shown.signed_by}
        bare = Note(parsed.text, tuple(s for s in parsed.signatures if (s.name, s.key_id) in ids)).to_bytes()
        note = cosign(bare, self._signer, int(now.timestamp()))
        put_durably(self._file(shown.checkpoint.origin), note)

    def _remembered(self, origin: str) -> OpenedCheckpoint | None:
        path = self._file(origin)
        try:
            note = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            opened = open_checkpoint(
                note, origin=origin, log_keys=self._keys(origin), witnesses=[self._signer.verifier], quorum=1
            )
        except TlogError as error:
            raise BadMemory(
                f"{path} is not what this witness cosigned ({error}). Bring it back from a backup of the newest state; "
                "without it the witness would forget what it has seen"
            ) from None
        return opened

    def _file(self, origin: str) -> Path:
        return self._state / sha256(origin.encode()).hexdigest() / "checkpoint"

    def _keep_evidence(self, known: OpenedCheckpoint, shown: OpenedCheckpoint) -> str:
        """Both signed notes in files of their own: whoever has the log's key can check that they contradict."""
        folder = self._file(known.checkpoint.origin).parent
        names = []
        for which, opened in (("seen", known), ("shown", shown)):
            head = opened.checkpoint
            path = folder / f"fork-{which}-{head.size}-{head.root.hex()[:16]}"
            put_durably(path, opened.note)
            names.append(str(path))
        return f"the log has signed two histories; the evidence is in {names[0]} and {names[1]}"


def _stale(known: OpenedCheckpoint, now: datetime) -> bool:
    return now - datetime.fromtimestamp(known.witnessed[0].timestamp or 0, UTC) >= RENEW


def put_durably(path: Path, data: bytes) -> None:
    """Put a file so that after any crash it is there as a whole, the old one or the new one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.new")
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        for folder in (path.parent, path.parent.parent):
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise UnavailableError(f"{path} can't be written: {error}; nothing was cosigned") from error
