"""Options that the commands over the log share, and what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ai_infra.cli.output import fail
from ai_infra.objects.reader import ObjectReader, open_store
from ai_infra.settings import Settings
from ai_infra.tlog.exceptions import MalformedNote
from ai_infra.tlog.note import KEY_BYTES, VerifierKey, decode_base64, parse_vkey
from ai_infra.trust.keyring import Roots
from ai_infra.trust.keyring_document import read_roots
from ai_infra_indexer.cosignatures import configured_witnesses

Lane = Annotated[int | None, typer.Option("--lane", min=0, help="One lane; all where not given.")]
Archive = Annotated[
    str | None,
    typer.Option(
        "--archive", help="s3://bucket or s3://bucket/prefix, or a folder; the archive of the settings where not given."
    ),
]
Origin = Annotated[str | None, typer.Option("--origin", help="Name of the log; that of the settings where not given.")]
RootKeys = Annotated[
    Path | None, typer.Option("--roots", help="Pinned root keys (roots.json); those of the settings where not given.")
]
LogKeys = Annotated[
    list[str] | None,
    typer.Option("--log-key", help="The log's public key: base64, or a verifier key. May be repeated."),
]
Witnesses = Annotated[
    list[str] | None,
    typer.Option("--witness", help="Verifier key of a witness; those of the settings where not given. Repeatable."),
]
Quorum = Annotated[
    int | None, typer.Option("--quorum", min=0, help="How many witnesses must have cosigned; that of the settings.")
]


def public_keys(texts: list[str] | None) -> list[bytes]:
    """Public keys, as base64 or within verifier keys. Raises a TlogError."""
    found = []
    for text in texts or []:
        try:
            raw = decode_base64(text)
        except MalformedNote:
            raw = parse_vkey(text).public_key
        found.append(raw if len(raw) == KEY_BYTES else parse_vkey(text).public_key)
    return found


def known_witnesses(
    settings: Settings, texts: list[str] | None, quorum: int | None
) -> tuple[tuple[VerifierKey, ...], int]:
    """The witnesses that count, and how many must have cosigned."""
    if texts:
        return tuple(parse_vkey(text) for text in texts), quorum or 0
    return configured_witnesses(settings), settings.log.witness_quorum if quorum is None else quorum


def lanes_to_read(settings: Settings, lane: int | None) -> Sequence[int]:
    """The lane that was named, or all. Fails for one that the log does not have."""
    if lane is None:
        return range(settings.log.lanes)
    if lane >= settings.log.lanes:
        last = settings.log.lanes - 1
        fail(f"the log has no lane {lane}, only 0 to {last} (AI_INFRA_LANES says how many there are)", code="usage")
    return (lane,)


def archive_reader(settings: Settings, archive: str | None) -> ObjectReader:
    """Where the archive is read from: the one that was named, or that of the settings."""
    return open_store(archive or f"s3://{settings.objects.archive_bucket}", settings)


def pinned_roots(settings: Settings, roots: Path | None) -> Roots:
    """The root keys to believe."""
    return read_roots(roots or settings.keys.roots)


def counter(say: Callable[[str], None], lane: int, what: str) -> Callable[[int], None]:
    """Says how many entries of a lane were looked at so far, each time that some more were."""
    done = 0

    def tell(count: int) -> None:
        nonlocal done
        done += count
        say(f"lane {lane}: {done} entries {what}")

    return tell
