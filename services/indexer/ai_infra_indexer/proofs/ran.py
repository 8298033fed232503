"""What served at a time: that a deployment.changed was the newest of its model and environment then, as far as a file
can show it.

The best there is are all entries of the lane from the change to past that time, bound into the signed tree without a
gap: then everybody sees for himself that no other change is among them. Where these are too many for a file, the change
that came next is enclosed, whose revision follows: the canary alone says these, and counts them. Times are the canary's
own; what it said is in the log, not what replicas did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ai_infra.events.event import Event
from ai_infra.events.generated import DeploymentChanged
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.proofs import HashReader, consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from ai_infra.tlog.tiles import TILE_WIDTH, bundle_width
from ai_infra.tlog.tree import Frontier, leaf_hash
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import Entry, decode
from ai_infra_indexer.proofs.entries import NotProven, decoded, verified
from ai_infra_indexer.proofs.evidence import Between, Enclosed, Ran
from ai_infra_indexer.replay import LaneVerifier

MAX_BETWEEN_BYTES: Final = 4 << 20  # of entries: in the file, in base64 twice, they take not quite twice that


@dataclass(frozen=True, slots=True)
class ProvenRan:
    """What the file shows of a time. `shown_by`: every_entry, next_revision or nothing (but the change itself)."""

    model: str
    env: str
    at: datetime
    revision: int
    stable_artifact_id: str | None
    candidate_artifact_id: str | None
    candidate_percent: int
    since: datetime
    until: datetime | None
    """When the next change took its place, where the file shows one."""
    shown_by: str
    proven: tuple[str, ...]
    not_proven: tuple[str, ...]


# -- making ------------------------------------------------------------------------------------------------------------


def make_ran(
    archived: ArchivedLane,
    covered: int,
    hashes: HashReader,
    position: int,
    at: datetime,
    following: int | None,
    *,
    size: int,
    max_bytes: int = MAX_BETWEEN_BYTES,
) -> Ran:
    """The part of a proof of the change at `position` that is about a time. `following`: the position of the change of
    the next revision, where there is one; `covered`: the checkpoint's size; `size`: of the newest one."""
    entries = _between(archived, position, covered, size, at, max_bytes)
    if entries is not None:
        end = position + 1 + len(entries)
        consistency = tuple(consistency_proof(end, covered, hashes))
        return Ran(_ms(at), Between(_nodes(position, hashes), tuple(entries), consistency), None)
    if following is None or following >= covered:
        return Ran(_ms(at), None, None)
    index, place = divmod(following, TILE_WIDTH)
    entry = archived.bundle(index, bundle_width(index, size))[place]
    return Ran(_ms(at), None, Enclosed(entry, tuple(inclusion_proof(following, covered, hashes))))


def _between(
    archived: ArchivedLane, position: int, covered: int, size: int, at: datetime, max_bytes: int
) -> list[bytes] | None:
    """The entries after `position`, up to the first that was appended after `at`, or to the end of what is covered;
    None where these are too many."""
    found: list[bytes] = []
    total, at_us = 0, _ms(at) * 1000
    for first, raws in archived.bundles(position + 1, size):
        for raw in raws[: max(0, covered - first)]:
            total += len(raw)
            if total > max_bytes:
                return None
            found.append(raw)
            if decode(raw).link.ts_us > at_us:
                return found
    return found


def _nodes(size: int, hashes: HashReader) -> tuple[bytes, ...]:
    """The frontier of the first `size` leaves."""
    nodes, done = [], 0
    for height in reversed(range(size.bit_length())):
        if size >> height & 1:
            nodes.append(hashes(height, done >> height))
            done += 1 << height
    return tuple(nodes)


# -- checking ----------------------------------------------------------------------------------------------------------


def check_ran(
    ran: Ran,
    entry: Entry,
    event: Event[Any],
    keyrings: Iterable[Entry],
    head: Checkpoint,
    roots: Roots,
    lanes: int,
) -> ProvenRan:
    """What the file shows of a time. `entry` and `keyrings` are proven to be in the tree of `head` already.

    Raises NotProven and TlogError, also where the file itself shows that another change was the newest.
    """
    body, at = event.body, datetime.fromtimestamp(0, UTC) + _MS * ran.at_ms
    if not isinstance(body, DeploymentChanged):
        raise NotProven(f"what served at a time is told by a deployment.changed, not by {event.type}", code="misplaced")
    if event.time > at:
        raise NotProven(f"the change is of {event.time.isoformat()}, after {at.isoformat()}", code="superseded")
    what = f"{body.model} in {body.env.value}"
    judge = _Judge(event, at, LaneVerifier(Keyrings(roots), lanes), list(keyrings))
    by, proven, not_proven = "nothing", list[str](), list[str]()
    if ran.between is not None:
        by = "every_entry"
        last = _check_between(ran.between, entry, head, judge)
        said = _time(last)
        count = f"the {len(ran.between.entries)} entries" if len(ran.between.entries) != 1 else "the one entry"
        proven.append(
            f"{count} that the lane has after the change up to position {last.position}, appended at "
            f"{said.isoformat()}, {'are' if len(ran.between.entries) != 1 else 'is'} enclosed without a gap: no other "
            f"change of {what} that is dated up to {at.isoformat()} is among them"
        )
        if said <= at:
            not_proven.append(
                f"that nothing changed between {said.isoformat()}, when the checkpoint's last entry was appended, and "
                f"{at.isoformat()}: a proof that is made later shows it"
            )
        else:
            not_proven.append(f"that no change which the canary dated back before {at.isoformat()} was appended later")
    elif ran.following is not None:
        by = "next_revision"
        found = decoded(ran.following.entry, entry.lane, "the next change")
        verify_inclusion(
            leaf=leaf_hash(found.raw), index=found.position, size=head.size, proof=ran.following.proof, root=head.root
        )
        if found.position <= entry.position or not judge.follows(found):
            raise NotProven(f"what is enclosed as the next change is none of {what}", code="misplaced")
        proven.append(
            f"the change of revision {body.revision + 1}, which follows, is at position {found.position} and of "
            f"{judge.until.isoformat() if judge.until else ''}"
        )
        not_proven.append(
            f"that no change of {what} was said between these two: only that the canary, which alone says them, counts "
            f"them and gave these the numbers {body.revision} and {body.revision + 1}"
        )
    else:
        not_proven.append(
            f"that nothing changed {what} between {event.time.isoformat()} and {at.isoformat()}: the entries in "
            "between are too many for a file. `ai-infra rebuild --until` with the archive, or an export, shows it"
        )
    proven.insert(
        0, f"the canary said that from {event.time.isoformat()} on this serves {what}: revision {body.revision}"
    )
    not_proven.append("that replicas served what the canary said, and that its clock was right")
    return ProvenRan(
        model=body.model,
        env=body.env.value,
        at=at,
        revision=body.revision,
        stable_artifact_id=body.stable_artifact_id,
        candidate_artifact_id=body.candidate_artifact_id,
        candidate_percent=body.candidate_percent,
        since=event.time,
        until=judge.until,
        shown_by=by,
        proven=tuple(proven),
        not_proven=tuple(not_proven),
    )


class _Judge:
    """Looks at entries after the change, in order: is one of them another change of the same?"""

    def __init__(
        self, event: Event[DeploymentChanged], at: datetime, verifier: LaneVerifier, keyrings: list[Entry]
    ) -> None:
        self._event = event
        self._body = event.body
        self._at = at
        self._verifier = verifier
        self._keyrings = keyrings
        self.until: datetime | None = None

    def look(self, entry: Entry) -> None:
        """Raise NotProven where it is one, and dated up to the time that is asked about."""
        other = self._same(entry)
        if other is None or other.id == self._event.id:
            return
        if other.time <= self._at:
            # Whatever its number: whether the canary then counted anew is not for a file to judge.
            raise NotProven(
                f"revision {other.body.revision} at position {entry.position}, of {other.time.isoformat()}, came after "
                f"revision {self._body.revision} and not after {self._at.isoformat()}",
                code="superseded",
            )
        self.until = self.until or other.time

    def follows(self, entry: Entry) -> bool:
        """Whether it is the change of the next revision, and later than the time."""
        self.look(entry)
        other = self._same(entry)
        return other is not None and other.body.revision == self._body.revision + 1 and self.until is not None

    def _same(self, entry: Entry) -> Event[DeploymentChanged] | None:
        if entry.type != DeploymentChanged.TOPIC or entry.key != self._body.model:
            return None
        while self._keyrings and self._keyrings[0].position < entry.position:
            verified(self._verifier, self._keyrings.pop(0), "the keyring")
        event = verified(self._verifier, entry, "another change")
        return event if event.body.env == self._body.env else None


def _check_between(between: Between, entry: Entry, head: Checkpoint, judge: _Judge) -> Entry:
    """The last of the entries, which are those of the tree; raises NotProven, TlogError."""
    leaves = [leaf_hash(entry.raw), *map(leaf_hash, between.entries)]
    small = Frontier(entry.position, between.frontier).extend(leaves)
    verify_consistency(
        old_size=small.size,
        old_root=small.root(),
        new_size=head.size,
        new_root=head.root,
        proof=between.consistency,
    )
    last = entry
    for raw in between.entries:
        found = decoded(raw, entry.lane, "an entry in between")
        if found.position != last.position + 1:
            raise NotProven(f"entry {found.position} is enclosed where {last.position + 1} should be", code="misplaced")
        judge.look(found)
        last = found
    return last


_MS: Final = datetime(1970, 1, 1, 0, 0, 0, 1000, UTC) - datetime(1970, 1, 1, tzinfo=UTC)


def _ms(time: datetime) -> int:
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // _MS


def _time(entry: Entry) -> datetime:
    """When it was appended, by the time of the lane's chain, which never goes back."""
    return datetime.fromtimestamp(0, UTC) + _MS * (entry.link.ts_us // 1000)
