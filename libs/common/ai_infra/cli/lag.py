"""`ai-infra lag`: how far each service is behind, in records and in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ai_infra.cli.output import Json, duration, note, progress, rows, show

if TYPE_CHECKING:
    from ai_infra.cli.positions import Position

app = typer.Typer(help="How far each service is behind.")


@app.command()
def lag(
    service: Annotated[str | None, typer.Argument(help="Only this service, topic by topic.")] = None,
    as_json: Json = False,
) -> None:
    """Unread input of each service and lane. `behind` counts offsets, a little more than events."""
    from ai_infra.bus.kafka.topics import SERVICES, check_service
    from ai_infra.cli.positions import age, positions
    from ai_infra.cli.reading import LogReader
    from ai_infra.errors import AiInfraError
    from ai_infra.settings import load_settings

    settings = load_settings()
    services = SERVICES if service is None else (check_service(service),)
    found, failure = [], None
    with progress("asking Kafka"):
        reader = LogReader(settings)
        for name in services:
            try:
                found += positions(settings, reader, [name])
            except AiInfraError as error:
                if error.code not in {"database_unavailable", "migration"}:
                    raise
                failure = error  # the indexer's place is there; everybody else's is known without it
    if service is not None and failure is None:
        table = rows(
            ("topic", "lane", "position", "end", "behind", "waiting since"),
            [(p.topic, p.lane, p.position, p.end, p.behind, _waiting(age(p.oldest_unread))) for p in found],
        )
    else:
        table = rows(("service", "lane", "behind", "waiting since"), _lines(services, found))
    if found or failure is None:
        show(found, json=as_json, table=table)
    if failure is not None:
        raise failure
    if not settings.database.configured and not as_json:
        note("The indexer's place is in Postgres; set AI_INFRA_DATABASE_URL to see it.")


def _lines(services: Sequence[str], found: Sequence[Position]) -> Iterator[tuple[str, object, int, str]]:
    """A line for each lane that is behind, and one for all lanes of a service that has read everything."""
    from ai_infra.cli.positions import total

    for service in services:
        lanes: dict[int, list[Position]] = {}
        for position in found:
            if position.service == service:
                lanes.setdefault(position.lane, []).append(position)
        behind = [(lane, *total(mine)) for lane, mine in sorted(lanes.items()) if total(mine)[0]]
        if lanes and not behind:
            yield service, "all", 0, ""
        for lane, offsets, seconds in behind:
            yield service, lane, offsets, _waiting(seconds)


def _waiting(seconds: float) -> str:
    return duration(seconds) if seconds else ""
