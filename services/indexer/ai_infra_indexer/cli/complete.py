"""`ai-infra audit complete`: whether anything that services have said is missing from the log. Only reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, progress, rows, show, stack
from ai_infra.objects.reader import ObjectReader
from ai_infra.readmodel.connection import connect
from ai_infra.settings import Settings, load_settings
from ai_infra.trust.keyring import Roots
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.lane_keyrings import lane_keyring
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, pinned_roots
from ai_infra_indexer.completeness.ledger import LaneCompleteness, Ledger
from ai_infra_indexer.completeness.reading import read_archive, read_postgres, read_pruned

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
        typer.Option("--settled", min=0, help="Seconds that a lane must have gone on behind a gap for it to count."),
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
    name = origin or settings.log.origin
    found: list[LaneCompleteness] = []
    with progress("counting") as say:
        for number in range(settings.log.lanes) if lane is None else (lane,):
            ledger, done = Ledger(number), 0

            def tell(count: int, number: int = number) -> None:
                nonlocal done
                done += count
                say(f"lane {number}: {done} entries counted")

            if source is From.ARCHIVE:
                reader = archive_reader(settings, archive)
                _from_archive(settings, reader, name, number, pinned_roots(settings, roots), ledger, tell)
            else:
                with connect(settings.database.url, application="ai-infra audit", autocommit=True) as connection:
                    first = read_postgres(connection, number, ledger, settings.log.lanes, progress=tell)
                if first:
                    archived = ArchivedLane(archive_reader(settings, archive), name, number)
                    size = archived.claimed_size(archived.note() or b"")
                    read_pruned(archived, size, first, ledger, settings.log.lanes)
            found.append(ledger.report(settle_ms=settled * 1000))
    good = all(lane.complete for lane in found)
    show({"complete": good, "lanes": found}, json=json, table=lambda: _table(found))
    if not good:
        raise typer.Exit(1)


def _from_archive(
    settings: Settings, reader: ObjectReader, origin: str, lane: int, pinned: Roots, ledger: Ledger, tell: Any
) -> None:
    archived = ArchivedLane(reader, origin, lane)
    note = archived.note()
    if note is None:
        return
    _, keyring, _ = lane_keyring(settings, archived, pinned, database=False)
    shown = archived.checkpoint(note, keyring).checkpoint
    read_archive(archived, shown, ledger, settings.log.lanes, progress=tell)


def _table(found: list[LaneCompleteness]) -> Any:
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
    parts.append("Nothing is missing of what is counted." if good else "The log is not complete.")
    return stack(*parts)


def _verdict(settled: bool, refused: bool) -> str:
    if refused:
        return "refused by the log, which says so; the last one at least"
    return "withheld" if settled else "open: may still arrive"
