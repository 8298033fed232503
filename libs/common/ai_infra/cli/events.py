"""`ai-infra events`: what is in the log's topics now, each record verified before it's believed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_infra.cli.output import Json, cell_text, fail, note, progress, rows, show, show_line
from ai_infra.errors import ConfigurationError

if TYPE_CHECKING:
    from ai_infra.cli.reading import Judged
    from ai_infra.events.event import Record
    from ai_infra.settings import Settings

app = typer.Typer(help="List, show, follow, trace and publish events.", no_args_is_help=True)

Topic = Annotated[list[str] | None, typer.Option("--topic", "-t", help="Only this topic; may be repeated.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Only events about this model.")]
Lane = Annotated[int | None, typer.Option("--lane", "-l", help="Only this lane.")]
Since = Annotated[str | None, typer.Option("--since", help="A time (2026-01-31T12:00Z) or an age (90s, 15m, 2h, 7d).")]
Unverified = Annotated[bool, typer.Option("--unverified", help="Only records that do not verify.")]


@app.command("list")
def list_(
    topic: Topic = None,
    model: Model = None,
    lane: Lane = None,
    since: Since = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest.")] = 50,
    unverified: Unverified = False,
    as_json: Json = False,
) -> None:
    """The newest events, oldest first. What doesn't verify is listed with the reason."""
    from ai_infra.cli.event_text import LINE, as_data, line
    from ai_infra.cli.reading import LogReader, judge
    from ai_infra.client.gate import Gate
    from ai_infra.settings import load_settings

    settings = load_settings()
    partitions = _partitions(settings, topic, model, lane)
    with progress("reading the log"):
        gate = Gate(settings)
        reader = LogReader(settings)
        if since is not None or unverified:
            found = reader.whole(partitions) if since is None else reader.since(partitions, _millis(parse_time(since)))
            records = sorted(
                filter(_about(model), found), key=lambda r: (r.append_time_ms, r.topic, r.partition, r.offset)
            )
        else:
            records = reader.last(partitions, limit, _about(model))
        judged = [judge(gate, record) for record in records]
        if unverified:
            judged = [j for j in judged if j.event is None]
        left_out, judged = max(0, len(judged) - limit), judged[-limit:]
        gate.close()
    show([as_data(j) for j in judged], json=as_json, table=rows(LINE, map(line, judged)) if judged else "No events.")
    if left_out and not as_json:
        note(f"{left_out} older ones left out; --limit shows more")


@app.command("show")
def show_(
    event_id: Annotated[str, typer.Argument(help="The event's id.")], model: Model = None, as_json: Json = False
) -> None:
    """All of one event: who said it, from where, and what."""
    from ai_infra.cli.event_text import as_data, in_full
    from ai_infra.cli.reading import LogReader, judge
    from ai_infra.client.gate import Gate
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("looking for the event"):
        reader = LogReader(settings)
        record = _find(reader, settings, event_id, model)
        gate = Gate(settings)
        judged = judge(gate, record)
        gate.close()
    show(as_data(judged), json=as_json, table=lambda: in_full(judged))
    if judged.event is None:
        raise typer.Exit(1)


@app.command()
def tail(
    topic: Topic = None,
    model: Model = None,
    lane: Lane = None,
    since: Since = None,
    as_json: Json = False,
) -> None:
    """Follow events as they come, until Ctrl-C. With --json: one object a line."""
    from ai_infra.cli.event_text import as_data, line
    from ai_infra.cli.reading import LogReader, judge
    from ai_infra.client.gate import Gate
    from ai_infra.settings import load_settings

    settings = load_settings()
    partitions = _partitions(settings, topic, model, lane)
    begin = None if since is None else _millis(parse_time(since))
    with progress("asking Kafka"):
        reader = LogReader(settings)
        gate = Gate(settings)
        starts = (
            {p: marks.high for p, marks in reader.admin.watermarks(partitions).items()}
            if begin is None
            else reader.admin.offsets_at(partitions, begin)
        )
    wanted = _about(model)
    if not as_json:
        note("following; Ctrl-C ends it")
    for record in reader.follow(starts):
        if record is None:
            gate.follow()
        elif wanted(record):
            judged = judge(gate, record)
            show_line(as_data(judged), json=as_json, text="  ".join(line(judged)))


@app.command()
def trace(
    event_id: Annotated[str, typer.Argument(help="The event's id.")], model: Model = None, as_json: Json = False
) -> None:
    """What an event follows from and what followed from it, as a tree."""
    from ai_infra.cli.causality import Lanes, walk
    from ai_infra.cli.reading import LogReader, judge
    from ai_infra.client.gate import Gate
    from ai_infra.events.lanes import check_model, lane_of
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("reading the lane"):
        lanes = Lanes(LogReader(settings), settings.log.lanes)
        likely = [lane_of(check_model(model), settings.log.lanes)] if model else []
        if lanes.find(event_id, likely) is None:
            _not_found(event_id)
        root = lanes.trace(event_id)
        gate = Gate(settings)
        judged = {node.id: judge(gate, node.record) for node in walk(root) if node.record is not None}
        gate.close()
    show(_tree_data(root, judged), json=as_json, table=lambda: _tree(root, judged, event_id))


@app.command()
def publish(
    topic: Annotated[str, typer.Argument(help="Topic, which is the event's type.")],
    body: Annotated[Path, typer.Argument(help="File with the body as JSON; - reads stdin.")],
    key: Annotated[
        str | None, typer.Option("--key", help="For a body without a model: `_lane/<p>` or a model.")
    ] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="What it is about, for readers.")] = None,
    cause: Annotated[list[str] | None, typer.Option("--cause", help="ID@LANE of what it follows from.")] = None,
    signer: Annotated[str | None, typer.Option("--as", help="Id of the key to sign with.")] = None,
    as_json: Json = False,
) -> None:
    """Sign a body with the key at hand and publish it. Times as RFC 3339; who speaks is filled in."""
    from ai_infra.cli.body_file import read_body
    from ai_infra.client.client import Client
    from ai_infra.events.event import Cause
    from ai_infra.settings import load_settings

    causes = []
    for text in cause or []:
        event_id, separator, number = text.rpartition("@")
        if not separator or not number.isdigit():
            raise ConfigurationError(f"--cause wants ID@LANE; got {text!r}")
        causes.append(Cause(event_id, int(number)))
    with progress("publishing"), Client(load_settings(), key_id=signer, speaking=topic) as client:
        published = client.publish(
            read_body(topic, body, principal=client.principal), key=key, subject=subject, causes=tuple(causes)
        )
    record = published.record
    show(
        {"id": record.id, "topic": record.topic, "lane": record.partition, "hash": record.hash},
        json=as_json,
        table=f"published {record.topic} {record.id} in lane {record.partition}\n"
        f"what becomes of it: ai-infra events trace {record.id}",
    )


def parse_time(text: str) -> datetime:
    """A time, or an age such as `15m`, as a time in UTC. Raises ConfigurationError."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[-1:] in units and text[:-1].isdigit():
        return datetime.now(UTC) - timedelta(**{units[text[-1]]: int(text[:-1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"expected a time like 2026-01-31T12:00Z or an age like 15m; got {text!r}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _millis(when: datetime) -> int:
    return int(when.timestamp() * 1000)


def _partitions(settings: Settings, topics: list[str] | None, model: str | None, lane: int | None) -> list[Any]:
    from ai_infra.bus.kafka.topics import BROADCAST_TOPICS, LANE_TOPICS
    from ai_infra.cli.reading import partitions_of
    from ai_infra.events.lanes import check_model, lane_of

    known = (*LANE_TOPICS, *BROADCAST_TOPICS)
    for topic in topics or ():
        if topic not in known:
            raise ConfigurationError(f"there is no topic {topic!r} of events; there are {', '.join(known)}")
    if lane is not None and not 0 <= lane < settings.log.lanes:
        raise ConfigurationError(f"there are lanes 0 to {settings.log.lanes - 1}; got {lane}")
    if model is not None:
        lane = lane_of(check_model(model), settings.log.lanes)
    # What is broadcast belongs to no model and no lane.
    wanted = topics or (LANE_TOPICS if lane is not None else known)
    lanes = range(settings.log.lanes) if lane is None else [lane]
    in_lanes = partitions_of([t for t in wanted if t not in BROADCAST_TOPICS], lanes)
    return in_lanes + [(t, 0) for t in wanted if t in BROADCAST_TOPICS]


def _about(model: str | None) -> Any:
    key = model.encode() if model is not None else None
    return lambda record: key is None or record.key == key


def _find(reader: Any, settings: Settings, event_id: str, model: str | None) -> Record:
    from ai_infra.cli.event_text import header

    partitions = _partitions(settings, None, model, None)
    begin = _first_possible(event_id)
    records: Iterable[Record] = reader.whole(partitions) if begin is None else reader.since(partitions, begin)
    for record in records:
        if header(record, "ce_id") == event_id:
            return record
    _not_found(event_id)
    raise AssertionError


def _first_possible(event_id: str) -> int | None:
    """A UUIDv7 says when it was made; an hour is left for clocks that differ. Other ids say nothing."""
    import uuid

    try:
        parsed = uuid.UUID(event_id)
    except ValueError:
        raise ConfigurationError(f"expected an event's id, a UUID; got {event_id!r}") from None
    return (parsed.int >> 80) - 3_600_000 if parsed.version == 7 else None


def _not_found(event_id: str) -> None:
    fail(
        f"no event {event_id} in Kafka, where events stay 30 days; ids of events are in `ai-infra events list` "
        "(a job, an artifact and a promotion have ids of their own)",
        code="not_found",
    )


def _tree_data(node: Any, judged: dict[str, Judged]) -> dict[str, Any]:
    from ai_infra.cli.event_text import as_data

    found = judged.get(node.id)
    data = as_data(found) if found is not None else {"id": node.id, "missing": True}
    return data | {"effects": [_tree_data(effect, judged) for effect in node.effects]}


def _tree(root: Any, judged: dict[str, Judged], marked: str) -> Any:
    from rich.text import Text
    from rich.tree import Tree

    from ai_infra.cli.event_text import append_time, header, summary

    def label(node: Any, before: datetime | None) -> tuple[Any, datetime | None]:
        found = judged.get(node.id)
        text = Text()
        if found is None:
            text.append(f"{node.id} (Kafka no longer has it)", style="dim")
            return text, before
        when = append_time(found.record)
        after = f"+{(when - before).total_seconds():.3f} s" if before is not None else cell_text(when)
        text.append(f"{found.record.topic} ", style="bold red" if found.event is None else "bold")
        text.append(f"{summary(found)} ")
        text.append(f"{after} {header(found.record, 'signer')} {node.id}", style="dim")
        if node.also_from:
            text.append(f", also from {', '.join(node.also_from)}", style="dim")
        if node.id == marked:
            text.append("  ← this one", style="bold")
        return text, when

    def grow(branch: Tree, node: Any, when: datetime | None) -> None:
        for effect in node.effects:
            text, then = label(effect, when)
            grow(branch.add(text), effect, then)

    text, when = label(root, None)
    tree = Tree(text)
    grow(tree, root, when)
    return tree
