"""`ai-infra status`: how everything is, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from ai_infra.cli.output import Json, duration, progress, rows, show, stack, styled

if TYPE_CHECKING:
    from ai_infra.cli.vitals import ServiceVitals, Vitals

app = typer.Typer(help="Health of everything, and what to do next.")


@app.command()
def status(as_json: Json = False) -> None:
    """Services, lag, halts, dead letters, checkpoints, keys. Exits with 1 when something needs somebody."""
    from ai_infra.cli.vitals import examine
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("asking the replicas") as say:
        vitals = examine(settings, say)
    show(_data(vitals), json=as_json, table=lambda: _page(vitals))
    if not vitals.well:
        raise typer.Exit(1)


def _data(vitals: Vitals) -> dict[str, Any]:
    return {
        "well": vitals.well,
        "time": vitals.time,
        "environment": vitals.environment,
        "parts": vitals.parts,
        "services": vitals.services,
        "lanes": vitals.lanes,
        "keyring": vitals.keyring,
        "findings": vitals.findings,
    }


def _page(vitals: Vitals) -> Any:
    from ai_infra.cli.positions import age

    states = vitals.parts | ({"keyring": f"version {vitals.keyring}"} if vitals.keyring else {})
    parts = "   ".join(f"{name}: {state}" for name, state in states.items())
    sections: list[Any] = [f"environment {vitals.environment}   {parts}"]
    if vitals.services:
        sections.append(
            rows(
                (
                    "service",
                    "state",
                    "replicas",
                    "lanes",
                    "behind",
                    "waiting since",
                    "halted",
                    "dead letters",
                    "signs for",
                ),
                map(_row, vitals.services),
            )
        )
    if vitals.lanes:
        sections.append(
            rows(
                ("lane", "entries", "final", "published", "in Postgres from", "last entry", "last checkpoint"),
                [
                    (
                        lane.lane,
                        lane.size,
                        lane.checkpoint_size,
                        lane.published_size,
                        lane.pruned_size,
                        f"{duration(age(lane.last_append_time))} ago" if lane.last_append_time else "",
                        f"{duration(age(lane.checkpoint_at))} ago" if lane.checkpoint_at else "",
                    )
                    for lane in vitals.lanes
                ],
            )
        )
    if vitals.findings:
        sections.append(
            rows(
                ("", "where", "what", "next"),
                [
                    (styled("!", "bold red") if f.problem else styled("i", "yellow"), f.subject, f.what, f.next)
                    for f in vitals.findings
                ],
            )
        )
    sections.append(_verdict(vitals))
    return stack(*sections)


def _row(service: ServiceVitals) -> tuple[Any, ...]:
    return (
        service.name,
        _state(service),
        service.running,
        service.lanes,
        "unknown" if service.behind is None else service.behind,
        duration(service.waiting_seconds) if service.waiting_seconds else "",
        ", ".join(str(h.lane) for h in service.halted),
        service.dead_letters or "",
        duration(service.delegation_seconds) if service.delegation_seconds is not None else "",
    )


def _state(service: ServiceVitals) -> Any:
    if service.running == 0:
        return styled("down", "red")
    if service.halted:
        return styled("halted", "red")
    worst = [r.status for r in service.replicas if r.status != "ok"]
    return styled(worst[0], "red") if worst else styled("up", "green")


def _verdict(vitals: Vitals) -> Any:
    problems = sum(finding.problem for finding in vitals.findings)
    if problems:
        return styled(
            f"{problems} problem{'' if problems == 1 else 's'}: see `next`; docs/operations.md says more.", "red"
        )
    return styled("All is well.", "green")
