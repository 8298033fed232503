"""`ai-infra audit witness`: cosign another party's log, as C2SP tlog-cosignature has it. For who runs no part of it."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, fail, note, rows, show, show_line
from ai_infra.cli.stopping import stop_on_signal
from ai_infra.errors import UnavailableError
from ai_infra.objects.lane_files import note_at
from ai_infra.objects.reader import ObjectReader, open_store
from ai_infra.settings import load_settings
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.heads import heads_origin, lane_origin, open_heads
from ai_infra.tlog.note import COSIGNATURE, NoteSigner, VerifierKey
from ai_infra.trust.signers import open_signer
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.options import LogKeys, public_keys
from ai_infra_indexer.heads import PATH
from ai_infra_indexer.witness import Look, Saw, Witness, put_durably

_PROBED: Final = 8  # lanes without a checkpoint behind the last that has one, where no heads say how many there are
_MOST_LANES: Final = 1024
_SLOW_STOP: Final = 300.0  # seconds: a round is ended first, and a long log takes its time
_EXIT: Final = {Saw.FORKED: 3, Saw.OLDER: 4, Saw.UNVERIFIED: 1}  # the worst of a round decides, in this order


def witness(
    key: Annotated[str, typer.Option("--key", help="Your Ed25519 key, a URI: file:PATH, env:NAME, awskms:ARN …")],
    name: Annotated[str, typer.Option("--name", help="Your name as a witness, e.g. witness.example.org/w1.")],
    log: Annotated[
        str | None, typer.Option("--log", help="The log's files: a folder, https://host/path, or s3://bucket/prefix.")
    ] = None,
    origin: Annotated[str | None, typer.Option("--origin", help="Name of the log.")] = None,
    state: Annotated[
        Path | None, typer.Option("--state", help="Folder that you keep: your memory, and what you may serve.")
    ] = None,
    log_key: LogKeys = None,
    lane: Annotated[list[int] | None, typer.Option("--lane", min=0, help="One lane; all where not given.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder to copy cosigned checkpoints to.")] = None,
    once: Annotated[bool, typer.Option("--once", help="One round, then end.")] = False,
    every: Annotated[float, typer.Option("--every", min=1, help="Seconds between two rounds.")] = 60.0,
    show_vkey: Annotated[
        bool, typer.Option("--show-vkey", help="Only print your verifier key: it is what the log's operator needs.")
    ] = False,
    json: Json = False,
) -> None:
    """Cosign a log that continues all that was seen of it; exits 3 on a fork, 4 on a log that went back.

    It asks nobody but the log's files, and keeps its memory in --state. A fork is named, kept as evidence, and never
    cosigned.
    """
    settings = load_settings()
    signer = NoteSigner(name, open_signer(key, key_id=name, settings=settings), COSIGNATURE)
    if show_vkey:
        show({"vkey": str(signer.verifier)}, json=json, table=str(signer.verifier))
        return
    keys = public_keys(log_key)
    if log is None or origin is None or state is None or not keys:
        fail(
            "a witness needs --log FILES, --origin NAME, --state FOLDER and the log's public key, --log-key KEY (the "
            "log's operator prints it with `ai-infra audit checkpoint keys`)",
            code="usage",
        )
    reader = open_store(log, settings)
    watching = Witness(signer, keys, state)
    with nullcontext(threading.Event()) if once else stop_on_signal(slow=_SLOW_STOP) as stop, watching.holding():
        while True:
            looks: list[Look] = []
            try:
                for number in lane or _lanes(reader, origin, keys, watching):
                    looks.append(watching.look(ArchivedLane(reader, origin, number), datetime.now(UTC)))
            except UnavailableError as error:
                if once:
                    raise
                note(f"{error}. It is asked again in {every:.0f} s.")
            if out is not None:
                _hand_over(watching, looks, out)
            _tell(looks, once=once, json=json)
            worst = next((code for saw, code in _EXIT.items() if any(look.saw is saw for look in looks)), 0)
            if once or worst == _EXIT[Saw.FORKED] or stop.is_set():
                raise typer.Exit(worst)
            stop.wait(every)


def _lanes(reader: ObjectReader, origin: str, keys: list[bytes], watching: Witness) -> list[int]:
    """All lanes: as many as the signed heads say, or else as the files show; and those that were cosigned before,
    whatever is shown now."""
    name = heads_origin(origin)
    try:
        note = note_at(reader, PATH) or b""
        count = len(open_heads(note, origin=name, log_keys=[VerifierKey(name, key) for key in keys]).heads.lanes)
        found = set(range(count))
    except (TlogError, UnicodeDecodeError):
        found, number = set(), 0
        while number <= max(found, default=0) + _PROBED:
            if reader.exists(f"lanes/{number}/checkpoint"):
                found.add(number)
            number += 1
    return sorted(found | {n for n in range(_MOST_LANES) if watching.knows(lane_origin(origin, n))})


def _hand_over(watching: Witness, looks: list[Look], out: Path) -> None:
    for look in looks:
        cosigned = watching.cosigned(look.origin) if look.saw in (Saw.COSIGNED, Saw.UNCHANGED) else None
        if cosigned is not None:
            put_durably(out / f"lane-{look.lane}.cosigned", cosigned)


def _tell(looks: list[Look], *, once: bool, json: bool) -> None:
    data: list[dict[str, Any]] = [
        {"lane": k.lane, "origin": k.origin, "saw": k.saw, "size": k.size, "detail": k.detail} for k in looks
    ]
    if once:
        content = [(k.lane, k.saw, k.size, k.detail) for k in looks]
        show(data, json=json, table=lambda: rows(("lane", "saw", "cosigned up to", "detail"), content))
        return
    for look, said in zip(looks, data, strict=True):
        if look.saw is not Saw.UNCHANGED:
            show_line(said, json=json, text=f"{look.origin}: {look.saw} {look.size or ''} {look.detail}".rstrip())
