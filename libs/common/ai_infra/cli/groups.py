"""`ai-infra groups`: who works which lanes, moving a group by hand, and ending a halt.

Moving and ending are acts of an operator: signed, with a reason, in the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ai_infra.cli.output import Json, Reason, duration, fail, progress, rows, show, stack
from ai_infra.errors import ConfigurationError

if TYPE_CHECKING:
    from ai_infra.bus.kafka.admin import KafkaAdmin, Partition
    from ai_infra.settings import Settings

app = typer.Typer(help="Consumer groups: show, move, resume after a halt.", no_args_is_help=True)

Service = Annotated[str, typer.Argument(help="Which service.")]
SEEK: Final = "groups.seek"
_WAIT_SECONDS: Final = 20.0


@app.command("show")
def show_(
    service: Annotated[str | None, typer.Argument(help="Only this service.")] = None, as_json: Json = False
) -> None:
    """Members of each service's group with their lanes, lag, and lanes that are halted."""
    from ai_infra.bus.broadcast import Broadcast
    from ai_infra.bus.kafka.topics import SERVICES, check_service, group_of
    from ai_infra.cli.halted import halted_lanes
    from ai_infra.cli.positions import positions, total
    from ai_infra.cli.reading import LogReader
    from ai_infra.settings import load_settings

    settings = load_settings()
    services = SERVICES if service is None else (check_service(service),)
    with progress("asking Kafka"):
        reader = LogReader(settings)
        with closing(Broadcast(settings, service="cli")) as broadcast:
            broadcast.catch_up(_WAIT_SECONDS)
            halts = halted_lanes(reader, broadcast.verifier, settings.log.lanes, services)
        where = positions(settings, reader, services)
        groups = {name: reader.admin.group(group_of(name)) for name in services}
    data: list[dict[str, Any]] = []
    for name, group in groups.items():
        behind, waiting = total(p for p in where if p.service == name)
        members = [{"client": m.client_id, "host": m.host, "lanes": _lanes(m.partitions)} for m in group.members]
        data.append(
            {
                "service": name,
                "state": group.state,
                "members": members,
                "behind": behind,
                "waiting_seconds": round(waiting, 3),
                "halted": [h for h in halts if h.service == name],
            }
        )
    table = rows(
        ("service", "state", "replicas", "lanes of each", "behind", "waiting since", "halted"),
        [
            (
                d["service"],
                d["state"],
                len(d["members"]),
                " | ".join(_ranges(m["lanes"]) or "none" for m in d["members"]),
                d["behind"],
                duration(d["waiting_seconds"]) if d["waiting_seconds"] else "",
                ", ".join(f"lane {h.lane}" for h in d["halted"]),
            )
            for d in data
        ],
    )
    why = rows(
        ("halted", "since", "after", "why"),
        [(f"{h.service}/{h.lane}", h.since, f"{h.failures} failures", f"{h.code}: {h.reason}") for h in halts],
    )
    show(data, json=as_json, table=stack(table, why) if halts else table)


@app.command()
def seek(
    service: Service,
    reason: Reason,
    to: Annotated[str, typer.Option("--to", help="`start`, `end`, a time, an age such as 2h, or an offset.")],
    lane: Annotated[int | None, typer.Option("--lane", "-l", help="Only this lane; all where left out.")] = None,
    topic: Annotated[str | None, typer.Option("--topic", "-t", help="Only this input; needed for an offset.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before skipping records.")] = False,
    as_json: Json = False,
) -> None:
    """Move a service that stands still. Backwards is safe: what was heard is recognised. Forwards skips records."""
    from ai_infra.bus.kafka.topics import SERVICE_INPUTS, check_service, group_of, input_partitions
    from ai_infra.cli.acting import Operator
    from ai_infra.cli.positions import set_positions, stored_positions
    from ai_infra.cli.reading import LogReader
    from ai_infra.settings import load_settings

    settings = load_settings()
    check_service(service)
    _check_lane(settings, lane)
    if topic is not None and topic not in SERVICE_INPUTS[service]:
        raise ConfigurationError(f"{service} doesn't read {topic}; it reads {', '.join(SERVICE_INPUTS[service])}")
    partitions = [p for p in input_partitions(service, settings.log.lanes, lane) if topic in (None, p[0])]
    with progress("asking Kafka"):
        admin = LogReader(settings).admin
        group = admin.group(group_of(service))
        if group.members:
            fail(
                f"{service} runs ({len(group.members)} replicas); stop all of them first, so that nobody moves the "
                "group back",
                code="group_active",
            )
        before = stored_positions(settings, admin, service, partitions)
        after = _targets(admin, partitions, to, topic)
    moves = {p: (before[p], offset) for p, offset in after.items() if before[p] != offset}
    skipped = sum(offset - old for old, offset in moves.values() if old is not None and offset > old)
    if skipped and not yes:
        typer.confirm(f"This skips up to {skipped} records, which {service} will never decide on. Go on?", abort=True)
    by_lane: dict[int, dict[str, Any]] = {}
    for (name, number), (old, offset) in moves.items():
        by_lane.setdefault(number, {})[name] = [old, offset]
    if by_lane:
        with Operator(settings) as operator:
            # Said before it's done: a seek that the log doesn't know would be a hole that nobody can explain.
            said = {number: {"to": to, "topics": topics} for number, topics in by_lane.items()}
            operator.act_in_lanes(SEEK, service, said, reason)
    set_positions(settings, admin, service, {p: offset for p, (_, offset) in moves.items()})
    data = [{"topic": t, "lane": p, "from": old, "to": offset} for (t, p), (old, offset) in sorted(moves.items())]
    show(
        data,
        json=as_json,
        table=rows(("topic", "lane", "from", "to"), [tuple(d.values()) for d in data])
        if data
        else f"{service} is there already.",
    )


@app.command()
def resume(
    service: Service,
    reason: Reason,
    lane: Annotated[
        int | None, typer.Option("--lane", "-l", help="Only this lane; all halted ones if left out.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the service has resumed.")] = True,
    as_json: Json = False,
) -> None:
    """End the halt of lanes, once what made them fail is mended."""
    from ai_infra.bus.broadcast import Broadcast
    from ai_infra.bus.kafka.topics import check_service
    from ai_infra.bus.lane import RESUME_ACTION
    from ai_infra.cli.acting import Operator
    from ai_infra.cli.halted import halted_lanes
    from ai_infra.cli.reading import LogReader
    from ai_infra.settings import load_settings

    settings = load_settings()
    check_service(service)
    _check_lane(settings, lane)
    reader = LogReader(settings)
    with Operator(settings) as operator, closing(Broadcast(settings, service="cli")) as broadcast:
        broadcast.catch_up(_WAIT_SECONDS)

        def halted() -> list[int]:
            found = halted_lanes(reader, broadcast.verifier, settings.log.lanes, [service])
            return [h.lane for h in found if lane in (None, h.lane)]

        with progress("looking for halted lanes"):
            lanes = halted()
        if not lanes:
            fail(
                f"no lane of {service} is halted" + (f" among lane {lane}" if lane is not None else ""),
                code="not_halted",
            )
        operator.act_in_lanes(RESUME_ACTION, service, {number: {} for number in lanes}, reason)
        left = _wait_until_none(lambda: [n for n in halted() if n in lanes]) if wait else []
    text = f"resumed {service} in lane {_ranges(lanes)}" if wait else f"told {service} to resume lane {_ranges(lanes)}"
    show({"service": service, "lanes": lanes, "still_halted": left}, json=as_json, table=text if not left else None)
    if left:
        fail(
            f"{service} was told to resume, but lane {_ranges(left)} is still halted after {_WAIT_SECONDS:.0f} s: does "
            f"the service run (`ai-infra groups show {service}`), or has it failed again (`ai-infra dlq list`)?",
            code="still_halted",
        )


@app.command()
def renumber(
    service: Service,
    reason: Reason,
    lane: Annotated[
        int | None, typer.Option("--lane", "-l", help="Only this lane; all that need it if left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let a service number its events anew where others have heard a newer epoch of it, and so hear it no more.

    That takes somebody else who had its key, or a clock that was far ahead when its state was lost.
    """
    from ai_infra.bus.broadcast import Broadcast
    from ai_infra.bus.kafka.topics import check_service
    from ai_infra.bus.lane import RENUMBER_ACTION
    from ai_infra.cli.acting import Operator
    from ai_infra.cli.numbering import numbering
    from ai_infra.cli.reading import LogReader
    from ai_infra.settings import load_settings

    settings = load_settings()
    check_service(service)
    _check_lane(settings, lane)
    reader = LogReader(settings)
    with Operator(settings) as operator, closing(Broadcast(settings, service="cli")) as broadcast:
        broadcast.catch_up(_WAIT_SECONDS)

        def unheard() -> dict[int, int]:
            found = numbering(reader, broadcast.verifier, settings.log.lanes, service)
            return {n.lane: n.heard for n in found if n.unheard and lane in (None, n.lane)}

        with progress("looking what others have heard of it"):
            wrong = unheard()
        if not wrong:
            fail(f"nobody has heard a newer epoch of {service} than its own; nothing is to be done", code="not_needed")
        # Milliseconds since 1970 as the service's own choice would be, and beyond what was heard in any case.
        epochs = {number: max(time.time_ns() // 1_000_000, heard + 1) for number, heard in wrong.items()}
        said = {number: {"epoch": epoch, "heard": wrong[number]} for number, epoch in epochs.items()}
        operator.act_in_lanes(RENUMBER_ACTION, service, said, reason)
        left = _wait_until_none(lambda: [n for n in unheard() if n in wrong])
    text = f"{service} numbers anew in lane {_ranges(list(epochs))}"
    show({"service": service, "epochs": epochs, "unheard": left}, json=as_json, table=text if not left else None)
    if left:
        fail(
            f"{service} was told to number anew, but goes on as before in lane {_ranges(left)} after "
            f"{_WAIT_SECONDS:.0f} s: does it run (`ai-infra groups show {service}`)?",
            code="still_unheard",
        )


def _wait_until_none(look: Callable[[], list[int]]) -> list[int]:
    deadline = time.monotonic() + _WAIT_SECONDS
    with progress("waiting for the service"):
        while (left := look()) and time.monotonic() < deadline:
            time.sleep(0.3)  # between two looks at the state topic
    return left


def _targets(admin: KafkaAdmin, partitions: list[Partition], to: str, topic: str | None) -> dict[Partition, int]:
    from ai_infra.cli.events import parse_time

    marks = admin.watermarks(partitions)
    if to == "start":
        return {p: m.low for p, m in marks.items()}
    if to == "end":
        return {p: m.high for p, m in marks.items()}
    if to.isdigit():
        if topic is None or len(partitions) != 1:
            raise ConfigurationError("an offset counts for one partition: say which with --topic and --lane")
        offset, mark = int(to), marks[partitions[0]]
        if not mark.low <= offset <= mark.high:
            raise ConfigurationError(f"{topic}/{partitions[0][1]} has offsets {mark.low} to {mark.high}; got {offset}")
        return {partitions[0]: offset}
    return admin.offsets_at(partitions, int(parse_time(to).timestamp() * 1000))


def _check_lane(settings: Settings, lane: int | None) -> None:
    if lane is not None and not 0 <= lane < settings.log.lanes:
        raise ConfigurationError(f"there are lanes 0 to {settings.log.lanes - 1}; got {lane}")


def _lanes(partitions: tuple[tuple[str, int], ...]) -> list[int]:
    return sorted({partition for _, partition in partitions})


def _ranges(lanes: list[int]) -> str:
    """`0-3, 6` for [0, 1, 2, 3, 6]."""
    parts: list[list[int]] = []
    for lane in sorted(lanes):
        if parts and lane == parts[-1][-1] + 1:
            parts[-1].append(lane)
        else:
            parts.append([lane])
    return ", ".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
