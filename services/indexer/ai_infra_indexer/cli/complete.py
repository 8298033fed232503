"""`ai-infra audit complete`: whether anything that services have said is missing from the log. Only reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, fail, progress, rows, show, stack
from ai_infra.readmodel.connection import connect
from ai_infra.settings import Settings, load_settings
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit.vouched import read_heads
from ai_infra_indexer.cli.lane_keyrings import judge_by_newest, lane_keyring
from ai_infra_indexer.cli.options import (
    Archive,
    Lane,
    Origin,
    RootKeys,
    archive_reader,
    counter,
    lanes_to_read,
    pinned_roots,
)
from ai_infra_indexer.completeness.ledger import LaneCompleteness, Ledger
from ai_infra_indexer.completeness.reading import newest_append_ms, read_archive, read_postgres, read_pruned

Say = Callable[[str], None]
SETTLED_SECONDS: Final = 600  # services name their last number within ten minutes of saying it


class From(StrEnum):
    """Where the log is read from."""

    POSTGRES = "postgres"
    ARCHIVE = "archive"


def complete(
    lane: Lane = None,
    source: Annotated[
        From | None, typer.Option("--from", help="Postgres where not given, or the archive that --archive names.")
    ] = None,
    settled: Annotated[
        int,
        typer.Option("--settled", min=0, help="Seconds that the log must have gone on behind a gap for it to count."),
    ] = SETTLED_SECONDS,
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Report, per service and lane, events that are withheld and numbers said twice; exits 1 where there are any.

    Events of people and orchestrators carry no number: they are listed as uncounted, and one that is missing would not
    show; their senders have receipts.
    """
    settings = load_settings()
    source = source or (From.ARCHIVE if archive is not None else From.POSTGRES)
    numbers = lanes_to_read(settings, lane)
    with progress("counting") as say:
        if source is From.ARCHIVE:
            counted = _from_archive(settings, archive, origin, roots, numbers, say)
        else:
            counted = _from_postgres(settings, archive, origin, roots, numbers, say)
    unseen = _unseen(counted, settled * 1000)
    found = [ledger.report(settle_ms=settled * 1000, newest_ms=counted.newest_ms) for ledger in counted.ledgers]
    good = all(lane.complete for lane in found)
    data = {"complete": good, "open": sum(lane.open for lane in found), "no_checkpoint": unseen, "lanes": found}
    show(data, json=json, table=lambda: _table(found, unseen))
    if not good:
        raise typer.Exit(1)


@dataclass(slots=True)
class _Counted:
    """What was read. `newest_ms`: when the log was last known to go on; `unseen`: lanes without a checkpoint."""

    where: str
    ledgers: list[Ledger] = field(default_factory=list)
    unseen: list[int] = field(default_factory=list)
    newest_ms: int = 0

    def take(self, ledger: Ledger) -> None:
        self.ledgers.append(ledger)
        if ledger.span is not None:
            self.newest_ms = max(self.newest_ms, ledger.span[1])


def _from_archive(
    settings: Settings, archive: str | None, origin: str | None, roots: Path | None, lanes: Sequence[int], say: Say
) -> _Counted:
    """Each lane under its checkpoint, which a log key that stands must have signed."""
    reader, name, pinned = (
        archive_reader(settings, archive),
        origin or settings.log.origin,
        pinned_roots(settings, roots),
    )
    counted, read = _Counted(reader.uri), list[tuple[ArchivedLane, Keyring]]()
    for number in lanes:
        archived = ArchivedLane(reader, name, number)
        note = archived.note()
        if note is None:
            counted.unseen.append(number)
            continue
        _, keyring, _ = lane_keyring(settings, archived, pinned, database=False)
        shown = archived.checkpoint(note, keyring, standing=True).checkpoint
        ledger = Ledger(number)
        read_archive(archived, shown, ledger, settings.log.lanes, progress=counter(say, number, "counted"))
        counted.take(ledger)
        read.append((archived, keyring))
    newest = judge_by_newest(read)
    if newest is not None:
        heads, _ = read_heads(reader, name, newest)  # `audit verify` says what is wrong with them
        counted.newest_ms = max(counted.newest_ms, heads.heads.time_ms if heads is not None else 0)
    return counted


def _from_postgres(
    settings: Settings, archive: str | None, origin: str | None, roots: Path | None, lanes: Sequence[int], say: Say
) -> _Counted:
    """Each lane's rows; what was pruned comes from the archive."""
    counted = _Counted("Postgres")
    with connect(settings.database.url, application="ai-infra audit", autocommit=True) as connection:
        for number in lanes:
            ledger = Ledger(number)
            first = read_postgres(
                connection, number, ledger, settings.log.lanes, progress=counter(say, number, "counted")
            )
            if first:
                archived = ArchivedLane(archive_reader(settings, archive), origin or settings.log.origin, number)
                _, keyring, _ = lane_keyring(settings, archived, pinned_roots(settings, roots), database=True)
                shown = archived.checkpoint(archived.note() or b"", keyring, standing=True).checkpoint
                read_pruned(archived, shown.size, first, ledger, settings.log.lanes)
            counted.take(ledger)
        counted.newest_ms = max(counted.newest_ms, newest_append_ms(connection))
    return counted


def _unseen(counted: _Counted, settle_ms: int) -> list[int]:
    """Lanes without a checkpoint. They may be the last of a log that has just begun; else one was taken away."""
    spans = [ledger.span for ledger in counted.ledgers if ledger.span is not None]
    unseen = ", ".join(map(str, counted.unseen))
    if not spans:
        what = f"no checkpoint of lane {unseen} is there" if unseen else "there are no entries"
        fail(
            f"{what} in {counted.where}: nothing was counted. Is it the log's, and is the indexer running? "
            "(`ai-infra status`)",
            code="no_checkpoint" if unseen else "no_entries",
        )
    if unseen and counted.newest_ms - min(oldest for oldest, _ in spans) >= settle_ms:
        fail(
            f"no checkpoint of lane {unseen} is in {counted.where}, though the log has gone on for more than "
            f"{settle_ms // 1000} s: it was taken away, or the copy is not whole. Copy the archive again; "
            "`ai-infra audit verify` says what a bucket's versions still have",
            code="no_checkpoint",
        )
    return counted.unseen


def _table(found: list[LaneCompleteness], unseen: list[int]) -> Any:
    counters = [
        (lane.lane, p.producer, p.epoch, p.events, p.last, p.missing or None) for lane in found for p in lane.producers
    ]
    parts: list[Any] = [rows(("lane", "producer", "epoch", "events", "last number", "missing"), counters)]
    gaps = [
        (lane.lane, g.producer, g.epoch, g.first, g.last, g.shown_by, _verdict(g.settled, g.refused))
        for lane in found
        for g in lane.gaps
    ]
    if gaps:
        names = ("lane", "producer", "epoch", "from", "to", "shown at position", "verdict")
        parts.append(rows(names, gaps, title="Numbers that are missing"))
    twice = [
        (lane.lane, e.producer, e.epoch, e.seq, e.position, "both are in the log" if e.logged else "only one is logged")
        for lane in found
        for e in lane.equivocations
    ]
    if twice:
        parts.append(rows(("lane", "producer", "epoch", "number", "position", ""), twice, title="Equivocation"))
    doubled = [(lane.lane, position) for lane in found for position in lane.doubled]
    if doubled:
        parts.append(rows(("lane", "position"), doubled, title="Sequenced twice"))
    outside = [(lane.lane, *item) for lane in found for item in lane.uncounted]
    if outside:
        title = "Uncounted: of these a missing one does not show; their senders have receipts"
        parts.append(rows(("lane", "signed by", "event", "events"), outside, title=title))
    good = all(lane.complete for lane in found)
    still = sum(lane.open for lane in found)
    if not good:
        parts.append("The log is not complete.")
    elif still:
        parts.append(f"{still} number{'s are' if still > 1 else ' is'} open: missing so far; ask again in ten minutes.")
    else:
        parts.append("Nothing is missing of what is counted.")
    if unseen:
        parts.append(f"Not looked at: lane {', '.join(map(str, unseen))} has no checkpoint yet.")
    return stack(*parts)


def _verdict(settled: bool, refused: bool) -> str:
    if refused:
        return "refused by the log, which says so; the last one at least"
    return "withheld" if settled else "open: may still arrive"
