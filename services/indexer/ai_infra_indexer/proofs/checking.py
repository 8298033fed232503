"""From a proof file to what it proves. Offline: it needs the pinned root keys, and nothing that anybody must be asked.

Trust comes down one chain: the roots sign the keyrings; the newest of them names the audit key, whose checkpoint covers
the entries by their inclusion proofs; the keyring that was in force at the event's position names who signed it, and
what that one may say. So an event is judged as a reader of the whole lane judges it. What the file alone can't show is
said too, in so many words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from ai_infra.errors import AiInfraError
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Event
from ai_infra.events.exceptions import EventError
from ai_infra.events.schemas import learn, topic_of
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.exceptions import BadProof, WrongOrigin
from ai_infra.tlog.heads import lane_origin
from ai_infra.tlog.note import VerifierKey, parse_note
from ai_infra.tlog.proof_file import LogProof
from ai_infra.tlog.proofs import verify_inclusion
from ai_infra.tlog.tree import leaf_hash
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer import kernel
from ai_infra_indexer.bodies import as_written
from ai_infra_indexer.entry import Entry
from ai_infra_indexer.proofs.entries import NotProven, decoded, verified
from ai_infra_indexer.proofs.evidence import Evidence
from ai_infra_indexer.proofs.ran import ProvenRan, check_ran
from ai_infra_indexer.replay import BadEntry, LaneVerifier, check_chain_signature
from ai_infra_indexer.sequence import line_of

_LANES: Final = "/lanes/"
_LANE_DIGITS: Final = 4  # a log has at most 1,024 lanes
_SHOWN: Final = 200  # characters of a wrong origin


@dataclass(frozen=True, slots=True)
class Witnessed:
    """A witness and when it cosigned."""

    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ProvenEvent:
    """An event of which everything verified. `body` is as its schema decodes it."""

    origin: str
    lane: int
    position: int
    event_id: str
    type: str
    model: str
    subject: str | None
    time: datetime
    appended: datetime
    event_hash: str
    signer: str
    principal: str
    keyring: int
    """Version of the keyring that was in force at the event's position."""
    newest_keyring: int
    """Version of the newest keyring under the checkpoint."""
    size: int
    root: str
    log_keys: tuple[str, ...]
    witnesses: tuple[Witnessed, ...]
    body: Mapping[str, Any] = field(repr=False)
    proven: tuple[str, ...] = ()
    not_proven: tuple[str, ...] = ()
    ran: ProvenRan | None = None
    """Of a deployment.changed: what the file shows of a time at which it was the newest of its model and env."""


def check_event_proof(
    data: bytes,
    roots: Roots,
    *,
    log_origin: str | None = None,
    log_keys: Collection[bytes] = (),
    witnesses: Iterable[VerifierKey] = (),
    quorum: int = 0,
) -> ProvenEvent:
    """What a proof file proves. `log_origin`: the log that it must be of; `log_keys`: public keys of which one must
    have signed the checkpoint, beside being an audit key of the keyring. Raises NotProven, TlogError."""
    proof = LogProof.parse(data)
    evidence = Evidence.parse(proof.extra)
    origin, lane = _place(proof.checkpoint, log_origin)
    entry = decoded(evidence.entry, lane, "the event")
    if entry.position != proof.index:
        raise NotProven(f"the entry says that it is {entry.position}, its proof is of {proof.index}", code="misplaced")
    keyring_entries = [decoded(item.entry, lane, "a keyring") for item in evidence.keyrings]
    positions = [item.position for item in keyring_entries]
    if positions != sorted(set(positions)) or entry.position in positions:
        raise NotProven("the keyrings are not in the order of their positions", code="misplaced")
    _know_schema(evidence.schema, entry)
    verifier = LaneVerifier(Keyrings(roots), evidence.lanes)
    for item in keyring_entries:
        if item.position < entry.position:
            verified(verifier, item, "the keyring")
    event = verified(verifier, entry, "the event")
    _check_chain(verifier.keyrings, entry, event)
    in_force = verifier.keyrings.latest
    for item in keyring_entries:
        if item.position > entry.position:
            verified(verifier, item, "the keyring")
    newest = verifier.keyrings.latest
    opened = open_checkpoint(
        proof.checkpoint,
        origin=origin,
        log_keys=_log_keys(newest, origin, log_keys),
        witnesses=witnesses,
        quorum=quorum,
    )
    for raw, index, hashes in [
        (evidence.entry, proof.index, proof.hashes),
        *((item.entry, at, item.proof) for item, at in zip(evidence.keyrings, positions, strict=True)),
    ]:
        head = opened.checkpoint
        verify_inclusion(leaf=leaf_hash(raw), index=index, size=head.size, proof=hashes, root=head.root)
    void = newest.voids(event.signer, lane, entry.position)
    if void is not None:
        raise NotProven(
            f"the event is in the log and void: keyring {newest.version} has revoked {event.signer} for this lane from "
            f"position {void.positions[lane]} on ({void.reason})",
            code="void",
        )
    told = _told(opened, lane, entry, event, in_force, newest, log_origin=log_origin)
    if evidence.ran is None:
        return told
    ran = check_ran(evidence.ran, entry, event, keyring_entries, opened.checkpoint, roots, evidence.lanes)
    return replace(told, ran=ran)


def _place(note: bytes, log_origin: str | None) -> tuple[str, int]:
    """The lane's origin, and the lane. What the note says of itself counts only once it is opened by that name."""
    said = Checkpoint.parse(parse_note(note).text).origin
    base, mark, number = said.rpartition(_LANES)
    known = mark and number.isdecimal() and len(number) <= _LANE_DIGITS
    if not known or lane_origin(base, int(number)) != said:
        raise WrongOrigin(f"expected a checkpoint of a lane, `<log>/lanes/<p>`; this one is of {said[:_SHOWN]}")
    if log_origin is not None and base != log_origin:
        raise WrongOrigin(f"expected a proof from the log {log_origin}, this one is from {base}")
    return said, int(number)


def _check_chain(keyrings: Keyrings, entry: Entry, event: Event[Any]) -> None:
    """The Kernel's row: that its payload is this event's, and that the chain key signed it."""
    try:
        line = line_of(entry, event)
        digest = kernel.chain_hash(line.payload, entry.link.prev_hash)
        if digest.hex() != entry.link.hash or entry.link.id != event.id:
            raise BadEntry("its chain row is of another payload", code="bad_chain_hash")
        check_chain_signature(keyrings, entry.link)
    except AiInfraError as error:
        raise NotProven(f"entry {entry.position}: {error}", code=error.code) from error


def _log_keys(keyring: Keyring, origin: str, pinned: Collection[bytes]) -> list[VerifierKey]:
    """Keys that may sign a checkpoint at the size at which this keyring is the newest."""
    found = audit_keys(keyring, origin, standing=True)
    if not pinned:
        return found
    kept = [key for key in found if key.public_key in pinned]
    if not kept:
        raise NotProven(f"no audit key of keyring {keyring.version} is a log key that you gave", code="unknown_log_key")
    return kept


def _know_schema(schema: str, entry: Entry) -> None:
    """The enclosed schema is the event's, which may be newer than this program."""
    named = entry.statement.get("schema_sha256")
    if not schema:
        return
    if sha256_hex(schema.encode()) != named:
        raise BadProof("the enclosed schema is not the one that the event was signed with")
    if topic_of(str(named)) is None:
        try:
            learn(entry.type, schema)
        except EventError as error:
            raise NotProven(f"the enclosed schema can't be one of {entry.type}: {error}", code=error.code) from error


def _told(
    opened: OpenedCheckpoint,
    lane: int,
    entry: Entry,
    event: Event[Any],
    in_force: Keyring,
    newest: Keyring,
    *,
    log_origin: str | None,
) -> ProvenEvent:
    head = opened.checkpoint
    witnessed = tuple(
        Witnessed(item.key.name, datetime.fromtimestamp(item.timestamp or 0, UTC)) for item in opened.witnessed
    )
    proven = (
        f"the event's bytes are signed by a session key that {event.signer} of {event.principal} delegated",
        f"keyring {in_force.version}, signed by the root keys and in force there, lets {event.principal} say "
        + (f"{event.type} of {event.model}" if event.model else event.type),
        "key and delegation were valid when the event was appended, by the time in the entry",
        f"the entry is number {entry.position} of {head.size} in {head.origin}; so are the enclosed keyrings",
        "the checkpoint is signed by the log's audit key"
        + (f" and cosigned by {', '.join(w.name for w in witnessed)}" if witnessed else ""),
    )
    not_proven = [
        "that what the event says is true: only who said it",
        "that the time of append is right: it is the broker's clock, which the log recorded",
        f"that keyring {newest.version} is the newest under the checkpoint, and that no other event has this one's "
        "number: that takes the whole lane, which `ai-infra audit verify` and `audit complete` read",
    ]
    if not witnessed:
        not_proven.append("that everybody is shown this same log: no known witness has cosigned the checkpoint")
    if log_origin is None:
        not_proven.append("that this is the log that you mean: its name is the file's own (give --origin)")
    return ProvenEvent(
        origin=head.origin,
        lane=lane,
        position=entry.position,
        event_id=event.id,
        type=event.type,
        model=event.model,
        subject=event.subject,
        time=event.time,
        appended=event.append_time,
        event_hash=event.hash,
        signer=event.signer,
        principal=event.principal,
        keyring=in_force.version,
        newest_keyring=newest.version,
        size=head.size,
        root=head.root.hex(),
        log_keys=tuple(str(key) for key in opened.signed_by),
        witnesses=witnessed,
        body=as_written(event.body, str(entry.statement["schema_sha256"]), entry.body),
        proven=proven,
        not_proven=tuple(not_proven),
    )
