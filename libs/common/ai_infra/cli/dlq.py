"""`ai-infra dlq`: what services have put aside, giving it to them again, or letting it go.

Redriving and discarding are acts of an operator: signed, with a reason, in the log, in one transaction with the record
that is redriven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai_infra.cli.output import Json, Reason, fail, note, progress, record, rows, show, stack
from ai_infra.errors import ConfigurationError

if TYPE_CHECKING:
    from ai_infra.cli.letters import DeadLetter
    from ai_infra.cli.reading import LogReader
    from ai_infra.client.gate import Gate
    from ai_infra.settings import Settings

app = typer.Typer(help="Dead letters: list, show, redrive, discard.", no_args_is_help=True)

Places = Annotated[
    list[str] | None, typer.Argument(help="SERVICE/LANE/OFFSET as `dlq list` shows them; or choose by options.")
]
ServiceOption = Annotated[str | None, typer.Option("--service", "-s", help="Only of this service.")]
LaneOption = Annotated[int | None, typer.Option("--lane", "-l", help="Only in this lane.")]
CodeOption = Annotated[str | None, typer.Option("--code", help="Only those with this error, e.g. decide_failed.")]


@app.command("list")
def list_(
    service: ServiceOption = None,
    lane: LaneOption = None,
    code: CodeOption = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that were redriven or discarded.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many, the newest.")] = 100,
    as_json: Json = False,
) -> None:
    """Dead letters that nobody has dealt with yet."""
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("reading dead letters"), _session(settings) as (reader, gate):
        found = [d for d in _chosen(settings, reader, gate, service, lane, code) if every or d.outcome == "open"]
    left_out, found = max(0, len(found) - limit), found[-limit:]
    show(
        [_data(d) for d in found],
        json=as_json,
        table=rows(
            ("dead letter", "when", "topic", "key", "event", "error", "reason", *(("outcome",) if every else ())),
            [
                (
                    d.place,
                    d.time,
                    d.original.topic,
                    d.key,
                    d.event_id,
                    d.code,
                    d.reason[:160],
                    *((d.outcome,) if every else ()),
                )
                for d in found
            ],
        )
        if found
        else "No dead letters.",
    )
    if not as_json:
        if left_out:
            note(f"{left_out} older ones left out; --limit shows more")
        if found:
            note("ai-infra dlq show PLACE shows one; redrive it once the cause is mended, or discard it")


@app.command("show")
def show_(place: Annotated[str, typer.Argument(help="SERVICE/LANE/OFFSET.")], as_json: Json = False) -> None:
    """One dead letter: why, where it came from, and what it is."""
    from ai_infra.cli.event_text import as_data, in_full
    from ai_infra.cli.letters import proven
    from ai_infra.cli.reading import judge
    from ai_infra.settings import load_settings

    settings = load_settings()
    with progress("reading dead letters"), _session(settings) as (reader, gate):
        letter = _one(reader, gate, place)
        judged = judge(gate, letter.original)
        there = proven(reader, letter)
    noted = _data(letter) | {"original_found": {True: "yes", False: "NO", None: "forgotten by Kafka"}[there]}
    show(noted | {"record": as_data(judged)}, json=as_json, table=lambda: stack(record(noted), in_full(judged)))


@app.command()
def redrive(
    reason: Reason,
    places: Places = None,
    service: ServiceOption = None,
    lane: LaneOption = None,
    code: CodeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which ones it would be.")] = False,
    as_json: Json = False,
) -> None:
    """Give dead letters to the service that refused them once more, as they were, with their first append time."""
    _deal("dlq.redrive", reason, places, (service, lane, code), dry_run=dry_run, as_json=as_json)


@app.command()
def discard(
    reason: Reason,
    places: Places = None,
    service: ServiceOption = None,
    lane: LaneOption = None,
    code: CodeOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which ones it would be.")] = False,
    as_json: Json = False,
) -> None:
    """Let dead letters go: they stay where they are and are no longer listed."""
    _deal("dlq.discard", reason, places, (service, lane, code), dry_run=dry_run, as_json=as_json)


def _deal(
    action: str,
    reason: str,
    places: list[str] | None,
    choice: tuple[str | None, int | None, str | None],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from ai_infra.cli.acting import Operator
    from ai_infra.cli.letters import REDRIVE, proven
    from ai_infra.cli.reading import LogReader
    from ai_infra.settings import load_settings

    if not places and choice == (None, None, None):
        raise ConfigurationError("say which: places as `ai-infra dlq list` shows them, or --service, --lane, --code")
    settings = load_settings()
    reader = LogReader(settings)
    with progress("reading dead letters") as say, Operator(settings) as operator:
        letters = (
            [_one(reader, operator.gate, place) for place in places]
            if places
            else [d for d in _chosen(settings, reader, operator.gate, *choice) if d.outcome == "open"]
        )
        done = []
        for number, letter in enumerate(letters, 1):
            say(f"{action} {number} of {len(letters)}")
            there = proven(reader, letter) if action == REDRIVE else None
            if there is False:
                fail(
                    f"{letter.place} says that it was {letter.original.topic}/{letter.original.partition}@"
                    f"{letter.original.offset}, but Kafka has another record there, or none: it isn't redriven",
                    code="bad_dead_letter",
                )
            if not dry_run:
                _carry_out(operator, action, letter, reason, proven=there)
            done.append(_data(letter) | ({"original_found": there is True} if action == REDRIVE else {}))
    verb = {"dlq.redrive": "redriven", "dlq.discard": "discarded"}[action]
    show(
        done,
        json=as_json,
        table=rows(("dead letter", "event", "error"), [(d["place"], d["event_id"], d["code"]) for d in done])
        if done
        else "No dead letters.",
    )
    if done and not as_json:
        note(f"{len(done)} would be {verb}" if dry_run else f"{len(done)} {verb}")


def _carry_out(operator: Any, action: str, letter: DeadLetter, reason: str, *, proven: bool | None) -> None:
    from ai_infra.bus.redrive import record_sha256
    from ai_infra.cli.letters import REDRIVE

    original = letter.original
    arguments = {
        "dlq_offset": letter.offset,
        "event_id": letter.event_id,
        "error": letter.code,
        "offset": original.offset,
        "record_sha256": record_sha256(original),
        "topic": original.topic,
    }
    redriven = []
    if action == REDRIVE:
        # Where Kafka has forgotten the record, its first append time is what the dead letter says, and the log says so.
        arguments["original_found"] = 1 if proven else 0
        redriven.append(operator.redrive(original, letter.service))
    said = operator.action(action, target=letter.service, key=letter.key, arguments=arguments, reason=reason)
    operator.append(said, *redriven)


class _session:  # noqa: N801 - used as a context manager function
    """A reader and a gate, closed together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __enter__(self) -> tuple[LogReader, Gate]:
        from ai_infra.cli.reading import LogReader
        from ai_infra.client.gate import Gate

        self._gate = Gate(self._settings)
        return LogReader(self._settings), self._gate

    def __exit__(self, *_: object) -> None:
        self._gate.close()


def _chosen(
    settings: Settings, reader: LogReader, gate: Gate, service: str | None, lane: int | None, code: str | None
) -> list[DeadLetter]:
    from ai_infra.bus.kafka.topics import SERVICES, check_service
    from ai_infra.cli.letters import dead_letters

    services = SERVICES if service is None else (check_service(service),)
    if lane is not None and not 0 <= lane < settings.log.lanes:
        raise ConfigurationError(f"there are lanes 0 to {settings.log.lanes - 1}; got {lane}")
    lanes = range(settings.log.lanes) if lane is None else [lane]
    return [d for d in dead_letters(reader, gate, lanes, services) if code in (None, d.code)]


def _one(reader: LogReader, gate: Gate, text: str) -> DeadLetter:
    from ai_infra.cli.letters import dead_letters, parse_place

    service, lane, offset = parse_place(text)
    found = next((d for d in dead_letters(reader, gate, [lane], [service]) if d.offset == offset), None)
    if found is None:
        fail(f"there is no dead letter {text}; `ai-infra dlq list --all` shows those that there are", code="not_found")
    return found


def _data(letter: DeadLetter) -> dict[str, Any]:
    return {
        "place": letter.place,
        "service": letter.service,
        "lane": letter.lane,
        "offset": letter.offset,
        "time": letter.time,
        "topic": letter.original.topic,
        "original_offset": letter.original.offset,
        "key": letter.key,
        "event_id": letter.event_id,
        "code": letter.code,
        "reason": letter.reason,
        "outcome": letter.outcome,
    }
