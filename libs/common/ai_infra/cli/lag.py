"""`ai-infra lag`: how far each service is behind, in records and in time."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

import typer

from ai_infra.cli.output import Json, duration, note, progress, rows, show

app = typer.Typer(help="How far each service is behind.")


@app.command()
def lag(
    service: Annotated[str | None, typer.Argument(help="Only this service, topic by topic.")] = None,
    as_json: Json = False,
) -> None:
    """Unread input of each service and lane. `behind` counts offsets, a little more than events."""
    from ai_infra.bus.kafka.topics import SERVICES, check_service
    from ai_infra.cli.positions import age, positions, total
    from ai_infra.cli.reading import LogReader
    from ai_infra.settings import load_settings

    settings = load_settings()
    services = SERVICES if service is None else (check_service(service),)
    with progress("asking Kafka"):
        found = positions(settings, LogReader(settings), services)
    if service is not None:
        table = rows(
            ("topic", "lane", "position", "end", "behind", "waiting since"),
            [(p.topic, p.lane, p.position, p.end, p.behind, _waiting(age(p.oldest_unread))) for p in found],
        )
    else:
        lanes = [
            (name, lane, *total(group))
            for (name, lane), group in groupby(
                sorted(found, key=lambda p: (services.index(p.service), p.lane)), key=lambda p: (p.service, p.lane)
            )
        ]
        table = rows(
            ("service", "lane", "behind", "waiting since"), [(s, lane, b, _waiting(a)) for s, lane, b, a in lanes]
        )
    show(found, json=as_json, table=table)
    if not settings.database.configured and not as_json:
        note("The indexer's place is in Postgres; set AI_INFRA_DATABASE_URL to see it.")


def _waiting(seconds: float) -> str:
    return duration(seconds) if seconds else ""
