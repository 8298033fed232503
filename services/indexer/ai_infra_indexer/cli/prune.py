"""`ai-infra db prune`: rows of old entries leave Postgres, where the archive is seen to have them. The indexer does the
same by itself; this is for who wants it now, or sooner than AI_INFRA_HOT_DAYS."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ai_infra.cli.output import Json, fail, note, progress, rows, show
from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.migrations import require_current
from ai_infra.settings import Settings, load_settings
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.options import Lane, archive_reader, pinned_roots
from ai_infra_indexer.pruning import Pruned, low_water, prunable, prune


def prune_command(
    lane: Lane = None,
    before: Annotated[
        str | None,
        typer.Option("--before", metavar="TIME|AGE", help="Entries before then: 2026-01-31T12:00Z, or 30d ago."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Take rows older than AI_INFRA_HOT_DAYS out of Postgres, after reading them back from the archive."""
    settings = load_settings()
    url, then = settings.database.url, _then(settings, before)
    if lane is not None and lane >= settings.log.lanes:
        fail(f"there are lanes 0 to {settings.log.lanes - 1}; got {lane}", code="usage")
    require_current(url)
    reader, pinned = archive_reader(settings, None), pinned_roots(settings, None)
    done: list[Pruned] = []
    with progress("pruning") as say, connect(url, application="ai-infra prune", autocommit=True) as connection:
        there = [number for (number,) in connection.execute("SELECT lane FROM lanes ORDER BY lane").fetchall()]
        for number in there if lane is None else [n for n in there if n == lane]:
            if dry_run:
                at, wanted = low_water(connection, number).size, prunable(connection, number, then)
                done.append(Pruned(number, at, at, max(at, wanted), 0.0))
                continue

            def tell(gone: int, of: int, number: int = number) -> None:
                say(f"lane {number}: {gone} of {of} entries verified in the archive and pruned")

            archived = ArchivedLane(reader, settings.log.origin, number)
            done.append(prune(connection, archived, roots=pinned, before=then, progress=tell))
    data = {"before": then, "dry_run": dry_run, "lanes": [_data(one) for one in done]}
    show(data, json=json, table=lambda: _table(done, dry_run=dry_run))
    if not any(one.wanted > one.began_at for one in done):
        note(f"No full bundle of entries is older than {then.isoformat(timespec='seconds')}, final and published.")


def _then(settings: Settings, before: str | None) -> datetime:
    from ai_infra.cli.events import parse_time

    if before is not None:
        return parse_time(before)
    if settings.log.hot_days == 0:
        fail("AI_INFRA_HOT_DAYS is 0: rows stay. Say --before TIME to prune all the same", code="usage")
    return datetime.now(UTC) - timedelta(days=settings.log.hot_days)


def _data(one: Pruned) -> dict[str, Any]:
    return {
        "lane": one.lane,
        "pruned": one.entries,
        "low_water": one.low_water,
        "prunable": one.wanted - one.low_water,
        "seconds": round(one.seconds, 3),
    }


def _table(done: list[Pruned], *, dry_run: bool) -> Any:
    gone = "would go" if dry_run else "pruned"
    return rows(
        ("lane", gone, "in Postgres from", "seconds"),
        [
            (one.lane, one.wanted - one.began_at if dry_run else one.entries, one.low_water, f"{one.seconds:.1f}")
            for one in done
        ],
    )
