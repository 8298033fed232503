"""`ai-infra audit checkpoint`: the log's signed heads, its keys, and what witnesses have cosigned."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, fail, rows, show
from ai_infra.objects.exceptions import NotFound
from ai_infra.objects.lane_files import note_at
from ai_infra.objects.store import ObjectStore
from ai_infra.settings import Settings, load_settings
from ai_infra.tlog.checkpoint import Checkpoint
from ai_infra.tlog.exceptions import MalformedNote
from ai_infra.tlog.heads import lane_origin
from ai_infra.tlog.note import parse_note
from ai_infra.trust.log_keys import audit_keys
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.lane_keyrings import lane_keyring
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, lanes_to_read, pinned_roots
from ai_infra_indexer.cosignatures import configured_witnesses, cosignature_path, take_in
from ai_infra_indexer.heads import PATH
from ai_infra_indexer.proofs.making import kept_checkpoint

checkpoint = typer.Typer(help="The log's signed heads, as they lie in the archive.", invoke_without_command=True)


@checkpoint.callback()
def newest(
    context: typer.Context,
    lane: Lane = None,
    size: Annotated[int | None, typer.Option("--size", help="A kept one of this size, with --lane.")] = None,
    archive: Archive = None,
    origin: Origin = None,
    json: Json = False,
) -> None:
    """Print the newest signed checkpoints and the heads of all lanes, as they lie in the archive."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    reader = archive_reader(settings, archive)
    name = origin or settings.log.origin
    if size is not None:
        if lane is None:
            fail("name the lane of that checkpoint with --lane", code="usage")
        kept = _text(kept_checkpoint(ArchivedLane(reader, name, lane), size), f"checkpoint {size} of lane {lane}")
        show({"lane": lane, "checkpoint": kept}, json=json, table=kept)
        return
    witnesses = configured_witnesses(settings)
    found: list[dict[str, Any]] = []
    for number in lanes_to_read(settings, lane):
        archived = ArchivedLane(reader, name, number)
        raw = archived.note()
        cosigned: dict[str, str | None] = {}
        for key in witnesses:
            try:
                cosigned[key.name] = _text(archived.beside(cosignature_path(key)), f"cosignature of {key.name}")
            except NotFound:
                cosigned[key.name] = None
        text = None if raw is None else _text(raw, f"checkpoint of lane {number}")
        found.append({"lane": number, "checkpoint": text, "cosigned": cosigned})
    note = note_at(reader, PATH)
    heads = None if note is None else _text(note, "heads file")

    def table() -> str:
        parts = [f["checkpoint"] or f"lane {f['lane']}: none yet\n" for f in found]
        parts += [text for f in found for text in f["cosigned"].values() if text is not None]
        return "\n".join([*parts, heads or "heads: none yet\n"])

    show({"lanes": found, "heads": heads}, json=json, table=table)


def _text(raw: bytes, what: str) -> str:
    """A note as it may be printed: anybody may have written it, and a terminal obeys what isn't printable."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    if not all(char == "\n" or char.isprintable() for char in text):
        fail(
            f"the {what} is no note: it has bytes that no text has. `ai-infra audit verify` says what else is wrong",
            code=MalformedNote.code,
        )
    return text


@checkpoint.command()
def keys(
    lane: Lane = None, archive: Archive = None, origin: Origin = None, roots: RootKeys = None, json: Json = False
) -> None:
    """The log's public keys that count, as verifier keys: for witnesses, and for tools that nobody here wrote."""
    settings = load_settings()
    reader = archive_reader(settings, archive)
    pinned = pinned_roots(settings, roots)
    name = origin or settings.log.origin
    found: list[dict[str, Any]] = []
    for number in lanes_to_read(settings, lane):
        archived = ArchivedLane(reader, name, number)
        if archived.note() is None:
            continue
        _, keyring, _ = lane_keyring(settings, archived, pinned, database=archive is None)
        for key in audit_keys(keyring, archived.origin, standing=True):
            found.append({"lane": number, "origin": archived.origin, "keyring": keyring.version, "vkey": str(key)})
    show(found, json=json, table="\n".join(item["vkey"] for item in found) or "The log has no keyring yet.")


@checkpoint.command("add-cosignature")
def add_cosignature(
    files: Annotated[list[Path], typer.Argument(help="Checkpoints that a witness has cosigned.")],
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Take in what witnesses of AI_INFRA_WITNESSES have cosigned, after verifying it, and keep it beside the log."""
    settings = load_settings()
    reader = archive_reader(settings, archive)
    if not reader.uri.startswith("s3://"):
        fail("a cosignature is taken into a bucket; name it with --archive s3://…", code="usage")
    witnesses = configured_witnesses(settings)
    if not witnesses:
        fail("no witness is known: set AI_INFRA_WITNESSES to their verifier keys", code="usage")
    pinned = pinned_roots(settings, roots)
    name = origin or settings.log.origin
    done: list[dict[str, Any]] = []
    with ObjectStore(settings) as store:
        for path in files:
            note = path.read_bytes()
            archived = ArchivedLane(reader, name, _lane_of(note, name, settings))
            _, keyring, _ = lane_keyring(settings, archived, pinned, database=archive is None)
            for item, fresh in take_in(
                store, reader.uri, archived, note, keyring=keyring, witnesses=witnesses, now=datetime.now(UTC)
            ):
                what = {"lane": item.lane, "witness": item.witness, "size": item.size, "at": item.at, "taken_in": fresh}
                done.append(what)
    heading = ("lane", "witness", "size", "cosigned at", "taken in")
    content = [(d["lane"], d["witness"], d["size"], d["at"], "yes" if d["taken_in"] else "is there") for d in done]
    show(done, json=json, table=lambda: rows(heading, content))


def _lane_of(note: bytes, log_origin: str, settings: Settings) -> int:
    """Which lane's checkpoint a note says that it is. It counts only once it is opened by that lane's name."""
    said = Checkpoint.parse(parse_note(note).text).origin
    lanes = {lane_origin(log_origin, number): number for number in range(settings.log.lanes)}
    if said in lanes:
        return lanes[said]
    return fail(f"expected a checkpoint of a lane of {log_origin}; this one is of {said}", code="wrong_origin")
