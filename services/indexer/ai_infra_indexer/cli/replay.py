"""`ai-infra audit replay`: decide again everything that registry, promoter and canary have decided. Only reads."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ai_infra.bus.replay import Replayed, first_difference
from ai_infra.bus.replay import replay as replay_decisions
from ai_infra.cli.output import Json, fail, progress, record, rows, show, stack
from ai_infra.events.generated import EventRefused
from ai_infra.readmodel.connection import connect
from ai_infra.settings import load_settings
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.lane_keyrings import judge_by_newest
from ai_infra_indexer.cli.options import Archive, Lane, Origin, RootKeys, archive_reader, lanes_to_read, pinned_roots
from ai_infra_indexer.decisions import read_archived, read_postgres, replayers


class Decider(StrEnum):
    """Services whose decisions can be made again."""

    REGISTRY = "registry"
    PROMOTER = "promoter"
    CANARY = "canary"


def replay(
    lane: Lane = None,
    service: Annotated[
        Decider | None, typer.Option("--service", help="One of them; all three where not given.")
    ] = None,
    from_archive: Annotated[
        bool, typer.Option("--from-archive", help="Read the archive of the settings, not Postgres.")
    ] = False,
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """Recompute every decision of registry, promoter and canary from the log; exits 1 and names the first that differs.

    Each is decided by the rules that it names. What the log does not hold (an answer of a policy service, the bytes of
    an artifact) is taken from the decision itself, which then counts as checked, not as recomputed.
    """
    settings = load_settings()
    chosen = {n: r for n, r in replayers().items() if n in ([service.value] if service else [d.value for d in Decider])}
    if not chosen:
        fail("none of these services is installed: pip install 'ai-infra[registry,promoter,canary]'", code="usage")
    if not from_archive and archive is None and not settings.database.configured:
        fail("set AI_INFRA_DATABASE_URL, or name an archive with --archive", code="usage")
    wanted = frozenset(_heard_or_said(chosen))
    pinned = pinned_roots(settings, roots)
    reader = archive_reader(settings, archive)
    reports: list[Replayed] = []
    read, under = 0, list[tuple[ArchivedLane, Keyring]]()
    with progress("reading the log") as say:
        for number in lanes_to_read(settings, lane):
            archived, done = ArchivedLane(reader, origin or settings.log.origin, number), 0

            def tell(count: int, number: int = number) -> None:
                nonlocal done
                done += count
                say(f"lane {number}: {done} entries read")

            if from_archive or archive is not None:
                events = read_archived(archived, pinned, settings.log.lanes, wanted, tell, standing=True)
                under.append((archived, events.known.keyrings.latest))
            else:
                with connect(settings.database.url, application="ai-infra audit", autocommit=True) as connection:
                    events = read_postgres(connection, archived, pinned, settings.log.lanes, wanted, tell)
            read += events.size
            if events.placed:
                say(f"lane {number}: deciding again")
                reports += [replay_decisions(r, number, events.placed, events.known) for r in chosen.values()]
    judge_by_newest(under)
    if not read:
        fail(
            "the log has no entries: nothing was decided in it. Is the indexer running? (`ai-infra status`)",
            code="no_entries",
        )
    first = first_difference(reports)
    show({"same": first is None, "first": first, "services": reports}, json=json, table=lambda: _table(reports))
    if first is not None:
        raise typer.Exit(1)


def _heard_or_said(chosen: dict[str, Any]) -> set[type]:
    from ai_infra.events.generated import (
        ArtifactRefused,
        ArtifactRegistered,
        CanaryStatus,
        DeploymentChanged,
        OperatorAction,
        PromotionDecided,
    )

    says = {
        ArtifactRegistered,
        ArtifactRefused,
        PromotionDecided,
        DeploymentChanged,
        CanaryStatus,
        EventRefused,
        OperatorAction,
    }
    return says.union(*(r.listens for r in chosen.values()))


def _table(reports: list[Replayed]) -> Any:
    busy = [r for r in reports if r.decisions or r.unanswered]
    heading = ("lane", "service", "decisions", "recomputed", "checked", "before rules", "unanswered", "differences")
    parts: list[Any] = [
        rows(
            heading,
            [
                (r.lane, r.service, r.decisions, r.recomputed, r.checked, r.before_rules, len(r.unanswered),
                 len(r.differences))
                for r in busy
            ],
        )
    ]  # fmt: skip
    carried: dict[str, int] = {}
    for report in busy:
        for name, count in report.carried.items():
            carried[name] = carried.get(name, 0) + count
    if carried:
        title = "Checked: what these decisions carry themselves was taken as it is"
        parts.append(rows(("taken from the decision", "decisions"), sorted(carried.items()), title=title))
    unexamined = sum(r.unexamined for r in busy)
    first = first_difference(reports)
    if first is None:
        parts.append("By their rules, every decision is what the log leads to.")
        return stack(*parts)
    parts.append(
        record(
            {
                "service": first.service,
                "lane": first.lane,
                "position": first.position,
                "event": first.event_id,
                "model": first.model,
                "rules": first.rules,
                "was said": first.said,
                "the rules give": first.given,
            },
            title="The first decision that differs",
        )
    )
    others = sum(len(r.differences) for r in reports) - 1
    if others or unexamined:
        parts.append(f"{others} more differ; {unexamined} behind them, of the same models, can't be decided again.")
    return stack(*parts)
