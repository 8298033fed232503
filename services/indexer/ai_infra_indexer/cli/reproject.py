"""`ai-infra db reproject`: the rows that an older projection made, made anew beside the live ones and swapped in."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, note, progress, rows, show
from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.migrations import require_current
from ai_infra.settings import load_settings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, pinned_roots
from ai_infra_indexer.projection.version import PROJECTION
from ai_infra_indexer.reprojection import LaneProjection, Reprojected, projections, reproject

db = typer.Typer(help="The projection's database.")


@db.command(name="reproject")
def reproject_command(
    lane: Lane = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Also lanes whose rows are of this projection: rows that a hand has changed."),
    ] = False,
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Make the rows of lanes with another projection anew, beside the live ones, and swap them in. Stops nothing."""
    settings = load_settings()
    url = settings.database.url
    require_current(url)
    with connect(url, application="ai-infra reproject", autocommit=True, read_only=True) as connection:
        found = [p for p in projections(connection) if lane is None or p.lane == lane]
    wanted = [p for p in found if p.size and (force or not p.current)]
    reader, pinned, name = (
        archive_reader(settings, archive),
        pinned_roots(settings, roots),
        origin or settings.log.origin,
    )
    done: list[Reprojected] = []
    with progress("projecting anew") as say:
        for place, outdated in enumerate(wanted):
            began = time.monotonic()

            def tell(at: int, size: int, number: int = outdated.lane, place: int = place, began: float = began) -> None:
                rate = max(1.0, at / max(0.001, time.monotonic() - began))
                say(
                    f"lane {number} ({place + 1} of {len(wanted)}): {at} of {size} entries, {rate:.0f} a second, "
                    f"{(size - at) / rate:.0f} s left"
                )

            archived = ArchivedLane(reader, name, outdated.lane)
            done.append(reproject(url, archived, roots=pinned, lanes=settings.log.lanes, progress=tell))
    data = {"projection": PROJECTION, "before": found, "lanes": done}
    show(data, json=json, table=lambda: _table(found, done))
    if not json and not done:
        note(f"All rows are of projection {PROJECTION}; there is nothing to do.")


def _table(found: list[LaneProjection], done: list[Reprojected]) -> Any:
    by_lane = {one.lane: one for one in done}
    content = []
    for before in found:
        one = by_lane.get(before.lane)
        entries = one.entries if one else before.size
        after = (one.rows_changed, one.verdicts_changed, f"{one.seconds:.1f}", f"{one.held_seconds:.2f}") if one else ()
        content.append((before.lane, entries, before.told, *(after or ("", "", "", ""))))
    return rows(
        ("lane", "entries", "rows were of", "rows changed", "verdicts changed", "seconds", "head held"), content
    )
