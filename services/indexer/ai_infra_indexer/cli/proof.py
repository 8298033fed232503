"""`ai-infra audit prove`, and the offline checks of what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from ai_infra.cli.output import Json, fail, note, progress, record, show, stack, styled
from ai_infra.objects.reader import ObjectReader
from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.exceptions import DatabaseUnavailable
from ai_infra.settings import Settings, load_settings
from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint
from ai_infra.tlog.consistency_file import verify_consistency_file
from ai_infra.tlog.exceptions import UnverifiedNote
from ai_infra.tlog.note import VerifierKey, parse_note
from ai_infra.tlog.proof_file import FILE_EXTENSION
from ai_infra.trust.keyring import Keyring, Roots
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.lane_keyrings import lane_keyring
from ai_infra_indexer.cli.options import (
    Archive,
    Lane,
    Origin,
    RootKeys,
    archive_reader,
    known_witnesses,
    pinned_roots,
    public_keys,
)
from ai_infra_indexer.cosignatures import merged, read_cosigned
from ai_infra_indexer.proofs.checking import ProvenEvent, check_event_proof
from ai_infra_indexer.proofs.making import (
    NotProvable,
    find_event,
    kept_checkpoint,
    position_in_postgres,
    prove_consistency,
    prove_event,
)

_MAX_FILE: Final = 32 << 20


def prove(
    what: Annotated[
        list[str], typer.Argument(help="An event's id; with --consistency OLD_SIZE [NEW_SIZE].", metavar="EVENT_ID")
    ],
    consistency: Annotated[
        bool, typer.Option("--consistency", help="Prove that a lane's tree of one size continues that of another.")
    ] = False,
    lane: Lane = None,
    witnessed: Annotated[
        bool, typer.Option("--witnessed", help="Under a checkpoint that enough known witnesses have cosigned.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; named for the proof where not given.")
    ] = None,
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Write one file that proves an event, or that the log only grew; checked offline by `audit verify`."""
    settings = load_settings()
    reader = archive_reader(settings, archive)
    pinned = pinned_roots(settings, roots)
    name = origin or settings.log.origin
    use_database = archive is None and settings.database.configured
    with progress("looking for it") as say:
        if consistency:
            _prove_consistency(settings, reader, name, pinned, what, lane, out, use_database, json=json)
            return
        if len(what) != 1:
            fail("give one event's id; for sizes of the log say --consistency", code="usage")
        event_id = what[0].lower()
        number, position = _find(settings, reader, name, event_id, lane, use_database, say)
        archived = ArchivedLane(reader, name, number)
        size, keyrings, positions = lane_keyring(settings, archived, pinned, database=use_database)
        witnesses, quorum = known_witnesses(settings, None, None)
        if witnessed or quorum:
            opened = _cosigned(archived, keyrings, witnesses, max(1, quorum), position)
        else:
            opened = archived.checkpoint(archived.note() or b"", keyrings, standing=True)
        data = prove_event(
            archived, opened, position, positions, lanes=settings.log.lanes, size=max(size, opened.checkpoint.size)
        )
        found = check_event_proof(data, pinned, log_origin=name, witnesses=witnesses, quorum=quorum)
    path = out or Path(f"{event_id}{FILE_EXTENSION}")
    path.write_bytes(data)
    _show_event(found, json=json, file=path)
    note(f"Anybody checks it with `ai-infra audit verify --proof {path} --roots roots.json --origin {name}`.")


def verify_proof(
    settings: Settings,
    path: Path,
    roots: Path | None,
    origin: str | None,
    log_keys: list[str] | None,
    witnesses: list[str] | None,
    quorum: int | None,
    *,
    json: bool,
) -> None:
    """Check a proof file. Offline."""
    known, needed = known_witnesses(settings, witnesses, quorum)
    found = check_event_proof(
        _read(path),
        pinned_roots(settings, roots),
        log_origin=origin,
        log_keys=public_keys(log_keys),
        witnesses=known,
        quorum=needed,
    )
    _show_event(found, json=json, file=path)


def verify_consistency(
    settings: Settings,
    path: Path,
    old: Path | None,
    log_keys: list[str] | None,
    witnesses: list[str] | None,
    quorum: int | None,
    *,
    json: bool,
) -> None:
    """Check that one checkpoint continues another. Offline."""
    if old is None or not log_keys:
        fail(
            "name the older checkpoint with --old FILE and the log's public key with --log-key KEY "
            "(`ai-infra audit checkpoint keys` prints it)",
            code="usage",
        )
    before = _read(old)
    known, needed = known_witnesses(settings, witnesses, quorum)
    origin = Checkpoint.parse(parse_note(before).text).origin
    keys = [VerifierKey(origin, key) for key in public_keys(log_keys)]
    older = open_checkpoint(before, origin=origin, log_keys=keys).checkpoint
    newer = verify_consistency_file(_read(path), old=older, log_keys=keys, witnesses=known, quorum=needed)
    head = newer.checkpoint
    data = {
        "consistent": True,
        "origin": origin,
        "old_size": older.size,
        "old_root": older.root.hex(),
        "new_size": head.size,
        "new_root": head.root.hex(),
        "witnesses": [item.key.name for item in newer.witnessed],
    }
    text = (
        f"Consistent: the {older.size} entries of the older checkpoint are the first of the {head.size} of the newer "
        f"one, in {origin}. Both are signed by the log."
    )
    show(data, json=json, table=text)


def _find(
    settings: Settings,
    reader: ObjectReader,
    origin: str,
    event_id: str,
    lane: int | None,
    use_database: bool,
    say: Any,
) -> tuple[int, int]:
    if use_database:
        try:
            with connect(settings.database.url, application="ai-infra audit", autocommit=True) as connection:
                place = position_in_postgres(connection, event_id, lane)
        except DatabaseUnavailable as error:
            note(f"{error}. The archive is searched instead.")
        else:
            if place is not None:
                return place
    for number in range(settings.log.lanes) if lane is None else (lane,):
        archived = ArchivedLane(reader, origin, number)
        raw = archived.note()
        if raw is None:
            continue
        done = 0

        def tell(count: int, number: int = number) -> None:
            nonlocal done
            done += count
            say(f"lane {number}: {done} entries searched")

        position = find_event(archived, event_id, archived.claimed_size(raw), progress=tell)
        if position is not None:
            return number, position
    raise NotProvable(
        f"no event {event_id} is in the log. Was it refused? `ai-infra events show {event_id}` says what became of it"
    )


def _cosigned(
    archived: ArchivedLane, keyring: Keyring, witnesses: tuple[VerifierKey, ...], quorum: int, position: int
) -> OpenedCheckpoint:
    """The smallest checkpoint above the event that enough witnesses have cosigned."""
    notes = merged(read_cosigned(archived, keyring, witnesses))
    keys = audit_keys(keyring, archived.origin, standing=True)
    for head in sorted(notes, key=lambda head: head.size):
        try:
            opened = open_checkpoint(notes[head], origin=archived.origin, log_keys=keys, witnesses=witnesses)
        except UnverifiedNote:
            continue  # of a log key that is revoked since
        if head.size > position and len(opened.witnessed) >= quorum:
            return opened
    raise NotProvable(
        f"no checkpoint of lane {archived.lane} that covers position {position} has been cosigned by {quorum} known "
        "witness(es) yet; `ai-infra audit checkpoint` lists what has"
    )


def _prove_consistency(
    settings: Settings,
    reader: ObjectReader,
    origin: str,
    pinned: Roots,
    sizes: list[str],
    lane: int | None,
    out: Path | None,
    use_database: bool,
    *,
    json: bool,
) -> None:
    if lane is None or not 1 <= len(sizes) <= 2 or not all(text.isdecimal() for text in sizes):
        fail("say `ai-infra audit prove --consistency OLD_SIZE [NEW_SIZE] --lane P`", code="usage")
    archived = ArchivedLane(reader, origin, lane)
    size, keyring, _ = lane_keyring(settings, archived, pinned, database=use_database)
    old = int(sizes[0])
    raw = archived.note() if len(sizes) == 1 else kept_checkpoint(archived, int(sizes[1]))
    opened = archived.checkpoint(raw or b"", keyring, standing=True)
    head = opened.checkpoint
    data = prove_consistency(archived, old, opened, size=max(size, head.size))
    path = out or Path(f"lane-{lane}-{old}-{head.size}.consistency")
    path.write_bytes(data)
    told = {
        "file": path,
        "origin": archived.origin,
        "old_size": old,
        "new_size": head.size,
        "new_root": head.root.hex(),
    }
    show(told, json=json, table=lambda: record(told))
    note(
        f"Whoever holds the checkpoint of size {old} checks it with `ai-infra audit verify --consistency {path} "
        "--old CHECKPOINT --log-key KEY`."
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        fail(f"{path} can't be read: {error.strerror}", code="usage")
    if len(data) > _MAX_FILE:
        fail(f"{path} has more than {_MAX_FILE} bytes: no proof is so long", code="usage")
    return data


def _show_event(found: ProvenEvent, *, json: bool, file: Path) -> None:
    def table() -> Any:
        said = orjson.dumps(found.body, option=orjson.OPT_SORT_KEYS, default=str).decode()
        fields = {
            "event": f"{found.type} {found.event_id}",
            "model": found.model,
            "subject": found.subject,
            "said by": f"{found.principal} with {found.signer}, by keyring {found.keyring}",
            "said at": found.time,
            "appended at": found.appended,
            "position": f"{found.position} of {found.size} in {found.origin}",
            "root": found.root,
            "log key": ", ".join(found.log_keys),
            "witnesses": ", ".join(f"{w.name} at {w.at.isoformat()}" for w in found.witnesses) or "none",
            "says": said,
        }
        return stack(record(fields), *shown_lines(found))

    show({"ok": True, "file": file, **_plain(found)}, json=json, table=table)


def shown_lines(found: ProvenEvent) -> list[Any]:
    """What a file proves, and what it doesn't, for people."""
    ran = found.ran
    proven = (*(ran.proven if ran is not None else ()), *found.proven)
    not_proven = (*(ran.not_proven if ran is not None else ()), *found.not_proven)
    return [
        styled("Proven", "bold"),
        "\n".join(f"- {line}" for line in proven),
        styled("Not proven by this file", "bold"),
        "\n".join(f"- {line}" for line in not_proven),
    ]


def _plain(found: ProvenEvent) -> dict[str, Any]:
    return {name: getattr(found, name) for name in ProvenEvent.__dataclass_fields__}
