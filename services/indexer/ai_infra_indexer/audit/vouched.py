"""A lane against what was vouched for it: the signed heads of all lanes, and what outside witnesses have cosigned.

What a reader of one archive can't see from inside: that it is shown older than it was, or another history that is as
validly signed. Each older head that anybody holds tells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ai_infra.objects.exceptions import NotFound
from ai_infra.objects.lane_files import note_at
from ai_infra.objects.reader import ObjectReader
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.heads import OpenedHeads, heads_origin, open_heads
from ai_infra.tlog.note import VerifierKey
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.report import Problem
from ai_infra_indexer.continuity import Continuity, continuity
from ai_infra_indexer.cosignatures import Cosigned, cosignature_path, cosigned_of, open_by_witnesses
from ai_infra_indexer.heads import PATH

_SOURCE = "archive"


@dataclass(frozen=True, slots=True)
class Vouched:
    """What was vouched for a lane. `witnessed`: up to this size at least as many as the quorum have cosigned."""

    lane: int
    problems: tuple[Problem, ...]
    cosigned: tuple[Cosigned, ...] = ()
    witnessed: int | None = None


def read_heads(reader: ObjectReader, log_origin: str, keyring: Keyring) -> tuple[OpenedHeads | None, list[Problem]]:
    """The signed heads; None where there are none, with the problem where they do not verify."""
    origin = heads_origin(log_origin)
    note = note_at(reader, PATH)
    if note is None:
        return None, []
    try:
        return open_heads(note, origin=origin, log_keys=audit_keys(keyring, origin, standing=True)), []
    except (TlogError, UnicodeDecodeError) as error:
        return None, [Problem(None, _SOURCE, None, "bad_heads", f"the heads of all lanes do not verify: {error}")]


def against_heads(archived: ArchivedLane, shown: Checkpoint | None, heads: OpenedHeads) -> list[Problem]:
    """Whether a lane continues its signed head. `shown`: its verified newest checkpoint."""
    if archived.lane >= len(heads.heads.lanes):
        count = len(heads.heads.lanes)
        detail = f"the signed heads are of {count} lanes; this one is not among them"
        return [Problem(archived.lane, _SOURCE, None, "not_in_heads", detail)]
    head = heads.heads.lanes[archived.lane]
    return _against(archived, shown, Checkpoint(archived.origin, head.size, head.root), "heads", "the signed heads")


def read_cosignatures(archived: ArchivedLane, witnesses: Sequence[VerifierKey]) -> dict[VerifierKey, bytes]:
    """What lies beside the lane of these witnesses, unverified. Read before the lane's checkpoint: a log that grows
    meanwhile is not older for it."""
    found: dict[VerifierKey, bytes] = {}
    for key in witnesses:
        with suppress(NotFound):
            found[key] = archived.beside(cosignature_path(key))
    return found


def against_witnesses(
    archived: ArchivedLane,
    shown: Checkpoint | None,
    keyring: Keyring,
    notes: Mapping[VerifierKey, bytes],
    quorum: int,
) -> Vouched:
    """Whether a lane continues what known witnesses have cosigned, and whether enough of them have."""
    problems: list[Problem] = []
    cosigned: list[Cosigned] = []
    good: list[int] = []
    for key, note in notes.items():
        try:
            opened = open_by_witnesses(note, archived.origin, keyring, [key])
        except (TlogError, UnicodeDecodeError) as error:
            detail = f"the cosignature of {key.name} does not verify: {error}"
            problems.append(Problem(archived.lane, _SOURCE, None, "bad_cosignature", detail))
            continue
        item = cosigned_of(archived.lane, opened, opened.witnessed[0])
        found = _against(archived, shown, opened.checkpoint, "witnessed", f"what {key.name} cosigned at {item.at}")
        problems += found
        cosigned.append(item)
        if not found:
            good.append(item.size)
    good.sort(reverse=True)
    witnessed = good[quorum - 1] if 0 < quorum <= len(good) else None
    if quorum and witnessed is None:
        detail = f"{len(good)} known witnesses vouch for the lane, {quorum} are needed"
        problems.append(Problem(archived.lane, _SOURCE, None, "too_few_witnesses", detail))
    return Vouched(archived.lane, tuple(problems), tuple(cosigned), witnessed)


def _against(archived: ArchivedLane, shown: Checkpoint | None, known: Checkpoint, what: str, who: str) -> list[Problem]:
    if known.size == 0:
        return []
    verdict = Continuity.OLDER if shown is None else continuity(known, shown, archived.read_tile)
    if verdict is Continuity.CONTINUES:
        return []
    size = shown.size if shown is not None else 0
    code, detail = {
        Continuity.OLDER: (f"older_than_{what}", f"the lane is shown with {size} entries; {who} has {known.size}"),
        Continuity.FORKED: (f"fork_from_{what}", f"the lane is another history than {who}, of {known.size} entries"),
        Continuity.UNREADABLE: ("bad_tile", f"the tiles do not lead from {known.size} entries ({who}) to {size}"),
    }[verdict]
    return [Problem(archived.lane, _SOURCE, None, code, detail)]
