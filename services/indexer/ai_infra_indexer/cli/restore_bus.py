"""`ai-infra restore-bus`: services back to work after Kafka was lost, from the log alone; and what was lost with it.

It writes to a Kafka that was made anew, and nothing to the archive. Each service's state is signed by that service.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import orjson
import typer

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.bus.kafka.topics import topic_specs
from ai_infra.bus.restoring import RESTORE_ACTION, NotRestorable
from ai_infra.cli.acting import Operator
from ai_infra.cli.output import Json, Reason, fail, note, progress, record, rows, show, stack
from ai_infra.cli.reading import LogReader, judge, partitions_of
from ai_infra.client.gate import Gate
from ai_infra.errors import ConfigurationError
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    EventRefused,
    OperatorAction,
    PolicyChanged,
    ProducerHeartbeat,
    SignerChanged,
)
from ai_infra.readmodel.connection import connect
from ai_infra.readmodel.migrations import migrate
from ai_infra.settings import Settings, load_settings
from ai_infra.trust.exceptions import SigningUnavailable
from ai_infra_indexer import SERVICE
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.cli.options import Archive, Origin, RootKeys, archive_reader, counter, pinned_roots
from ai_infra_indexer.restoring.broadcasts import Told, places, tell
from ai_infra_indexer.restoring.log import LaneLog, place, read_lane
from ai_infra_indexer.restoring.services import (
    Restorable,
    RestoredService,
    check_standing_still,
    lanes_with_state,
    restorable,
    restore_service,
)

LOST: Final = (
    "events that were in Kafka and not yet in the log (whoever waits for an answer asks again; the SDK has its own "
    "signed bytes until they are acknowledged)",
    "serving.window and serving.profile, which the log never has",
    "dead letters with what was discarded of them, and what was redriven and not heard",
    "halts of lanes, timers' exact times, and the progress of work: what was under way begins again",
)


@dataclass(slots=True)
class Restoration:
    """What was restored and what was not. `before`: lanes that an earlier run of the command had brought back."""

    told: Told | None = None
    lanes: list[LaneLog] = field(default_factory=list)
    before: list[int] = field(default_factory=list)
    services: list[RestoredService] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Services that are not restored yet, and why."""
    lost: tuple[str, ...] = LOST
    """What no log has."""


def restore_bus(
    reason: Reason,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service",
            help="Only the state of this service, run with its key and settings, after the rest was restored. May be "
            "repeated. Without it: all, and the state of each service whose key is at hand here.",
        ),
    ] = None,
    archive: Archive = None,
    origin: Origin = None,
    roots: RootKeys = None,
    json: Json = False,
) -> None:
    """After Kafka was lost and its topics were made anew: keyrings, policies, the indexer's places and the state of all
    services, from the log. Everything must stand still. May be repeated; says what was lost.
    """
    settings = load_settings()
    installed = restorable()
    chosen = {name: _installed(installed, name) for name in service} if service else installed
    admin, pinned = KafkaAdmin(settings), pinned_roots(settings, roots)
    there = admin.topics()
    if missing := [spec.name for spec in topic_specs(settings) if spec.name not in there]:
        fail(f"{len(missing)} topics are missing, e.g. {missing[0]}: ai-infra topics create", code="topics_missing")
    check_standing_still(admin, [*chosen, *(() if service else (SERVICE,))])
    objects, name = archive_reader(settings, archive), origin or settings.log.origin
    wanted = _wanted(chosen)
    done = Restoration()
    with progress("reading the log") as say:
        if settings.database.configured and not service:
            migrate(settings.database.url)
        for number in range(settings.log.lanes):
            tell_read = counter(say, number, "read and verified")
            archived = ArchivedLane(objects, name, number)
            done.lanes.append(read_lane(settings, archived, pinned, wanted, tell_read, fill_up=not service))
        if not service:
            _check_lost(settings, installed)
            say("telling keyrings and policies")
            done.told = tell(settings, [lane.events for lane in done.lanes], reason)
        sizes = _restored_sizes(settings)
        if not service:
            done.before = sorted(sizes)
            sizes |= _restore_log(settings, [lane for lane in done.lanes if lane.lane not in sizes], reason)
        logs = _logs(done.lanes, sizes)
        for each, how in chosen.items():
            try:
                _check_settings(settings, each)
                done.services.append(restore_service(settings, each, how, logs, say))
            except (ConfigurationError, SigningUnavailable) as error:
                if service:
                    raise
                done.left[each] = str(error)
    show(_plain(done), json=json, table=lambda: _table(done))
    if not json:
        note("Start the indexer and the services now; `ai-infra status` says whether all is well.")
    if done.left:
        raise typer.Exit(1)


def _installed(installed: dict[str, Restorable], name: str) -> Restorable:
    if name not in installed:
        fail(f"there is no service {name!r} with a state here; there are {', '.join(installed)}", code="usage")
    return installed[name]


def _check_settings(settings: Settings, service: str) -> None:
    if service == "trainer" and not settings.runner.enabled:
        raise ConfigurationError(
            "which jobs may run is a setting of the trainer: restore it where it runs, with AI_INFRA_RUNNER=true and "
            "its AI_INFRA_ALLOWED_REPOSITORIES (`ai-infra restore-bus --service trainer`)"
        )


def _wanted(chosen: dict[str, Restorable]) -> frozenset[type]:
    found: set[type] = {EventRefused, OperatorAction, ProducerHeartbeat, SignerChanged, PolicyChanged}
    for how in chosen.values():
        found |= how.restorer.events
    return frozenset(found)


def _check_lost(settings: Settings, services: dict[str, Restorable]) -> None:
    """Raise NotRestorable for a Kafka that was not lost: its services have state that nothing restored."""
    reader = LogReader(settings)
    for name in services:
        for lane, restored in lanes_with_state(reader, name, settings.log.lanes).items():
            if not restored:
                raise NotRestorable(
                    f"this Kafka has state of {name} in lane {lane} that is not from restoring. If it is the old "
                    f"cluster, nothing is lost. If {name} was started in a new one before this command, it has begun "
                    f"anew: stop it, delete and create its topic {name}.state, then try again"
                )


def _restored_sizes(settings: Settings) -> dict[int, int]:
    """Lanes that were brought back in this Kafka, and how long their log was then."""
    sizes: dict[int, int] = {}
    with closing(Gate(settings)) as gate:
        found = LogReader(settings).whole(partitions_of([OperatorAction.TOPIC], range(settings.log.lanes)))
        for raw in found:
            event = judge(gate, raw).event
            if event is not None and not event.model and event.body.action == RESTORE_ACTION:
                size = orjson.loads(event.body.arguments_json).get("size")
                if isinstance(size, int):
                    sizes.setdefault(event.lane, size)
    return sizes


def _restore_log(settings: Settings, lanes: Sequence[LaneLog], reason: str) -> dict[int, int]:
    """Set the indexer's places anew, then say for each lane that its log goes on from here in another Kafka."""
    if not lanes:
        return {}
    if settings.database.configured:
        with connect(settings.database.url, application="ai-infra restore-bus", autocommit=True) as connection:
            for lane in lanes:
                place(connection, lane, places(settings, lane.events))
    with Operator(settings) as operator:
        said = {lane.lane: {"archived": lane.archived, "size": lane.size} for lane in lanes}
        operator.act_in_lanes(RESTORE_ACTION, "bus", said, reason)
    return {lane.lane: lane.size for lane in lanes}


def _logs(lanes: Sequence[LaneLog], sizes: dict[int, int]) -> dict[int, list[Event[Any]]]:
    """Of each lane what was in the log when Kafka was lost: what came since is in the new one, and is heard there."""
    logs: dict[int, list[Event[Any]]] = {}
    for lane in lanes:
        size = sizes.get(lane.lane)
        if size is None:
            raise NotRestorable(
                f"lane {lane.lane} is not restored yet: run `ai-infra restore-bus` without --service first"
            )
        if lane.size < size:
            raise NotRestorable(
                f"lane {lane.lane} had {size} entries, of which {lane.size} can be read here: start the indexer, which "
                "archives the rest, or give this command the database too (AI_INFRA_DATABASE_URL)"
            )
        logs[lane.lane] = [placed.event for placed in lane.events.placed if placed.position < size]
    return logs


def _plain(done: Restoration) -> dict[str, Any]:
    return {
        "told": done.told,
        "lanes": [
            {
                "lane": lane.lane,
                "archived": lane.archived,
                "size": lane.size,
                "filled_up": lane.filled_up,
                "refusals_lost": lane.refusals_lost,
                "restored_before": lane.lane in done.before,
            }
            for lane in done.lanes
        ],
        "services": [
            {
                "service": s.service,
                "restored_before": s.before,
                "lanes": [
                    {
                        "lane": r.lane,
                        "state": r.state,
                        "epoch": r.epoch,
                        "last": None if r.last is None else {"epoch": r.last[0], "seq": r.last[1]},
                        "again": r.again,
                        "pending": r.pending,
                        "said": r.said,
                    }
                    for r in s.lanes
                ],
            }
            for s in done.services
        ],
        "left": done.left,
        "lost": done.lost,
    }


def _table(done: Restoration) -> Any:
    parts: list[Any] = []
    if done.told is not None:
        told = done.told
        parts.append(
            record(
                {
                    "keyring": f"version {told.keyring} ({told.keyrings_sent} told again)",
                    "policy": f"version {told.policy} ({told.policies_sent} told again)",
                }
            )
        )
    parts.append(
        rows(
            ("lane", "entries archived", "in all", "Postgres lacked", "refusals lost", ""),
            [
                (r.lane, r.archived, r.size, r.filled_up, r.refusals_lost, "restored before" * (r.lane in done.before))
                for r in done.lanes
            ],
        )
    )
    parts.append(
        rows(
            ("service", "lane", "state", "last event in the log", "speaks on in epoch", "not answered", "begun again"),
            [
                (s.service, r.lane, r.state, "none" if r.last is None else f"epoch {r.last[0]} number {r.last[1]}",
                 r.epoch, len(r.again), ", ".join(r.pending))
                for s in done.services
                for r in s.lanes
            ],
        )
    )  # fmt: skip
    for name, why in done.left.items():
        parts.append(f"{name} is not restored yet: {why}")
    parts.append("Lost with the old Kafka, if there was any:")
    parts.extend(f"  - {what}" for what in done.lost)
    return stack(*parts)
