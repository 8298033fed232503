"""The state of the services, written by each with its own key, lane by lane in one transaction each.

Who restores a service is that service: its key, its settings, its rules. It must stand still meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Any, Final

from ai_infra.bus.kafka.admin import GroupActiveError, KafkaAdmin
from ai_infra.bus.kafka.topics import group_of
from ai_infra.bus.process import ServiceProcess
from ai_infra.bus.records import SELF, Head
from ai_infra.bus.restoring import NotRestorable, RestoredLane, Restorer, restore_lane
from ai_infra.bus.runtime import utc_now
from ai_infra.bus.service import Service
from ai_infra.bus.speech import Speech
from ai_infra.bus.state import decode_record, record_name
from ai_infra.bus.state_records import read_state_record
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.bus.voice import Surroundings
from ai_infra.cli.reading import LogReader, partitions_of
from ai_infra.errors import ConfigurationError
from ai_infra.events.event import Event, Record
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import TrustError

SERVICES: Final = "ai_infra.services"
_HEAD_KEY: Final = f"{record_name(Head)}/{SELF}"


@dataclass(frozen=True, slots=True)
class Restorable:
    """A service that is installed here, and how it remembers."""

    restorer: Restorer
    build: Callable[[Settings], Service]


@dataclass(slots=True)
class RestoredService:
    """What became of a service. `before`: lanes that had been restored already."""

    service: str
    lanes: list[RestoredLane] = field(default_factory=list)
    before: list[int] = field(default_factory=list)


def restorable() -> dict[str, Restorable]:
    """The installed services that have a state: `RESTORER` in the module `restoring` beside their `service`."""
    found: dict[str, Restorable] = {}
    for entry in sorted(entry_points(group=SERVICES), key=lambda e: e.name):
        package = entry.module.rpartition(".")[0]
        if entry.name != "indexer" and find_spec(f"{package}.restoring") is not None:
            service = import_module(entry.module)
            found[entry.name] = Restorable(import_module(f"{package}.restoring").RESTORER, service.build)
    return found


def check_standing_still(admin: KafkaAdmin, services: list[str]) -> None:
    """Raise GroupActiveError while a replica of one of them runs."""
    for service in services:
        if members := admin.group(group_of(service)).members:
            raise GroupActiveError(
                f"{service} runs ({len(members)} replica(s)): stop it first. Restoring is for services that stand still"
            )


def lanes_with_state(reader: LogReader, service: str, lanes: int) -> dict[int, bool]:
    """Lanes of which a service has state in Kafka; whether it is from restoring, and not from a start without it."""
    found: dict[int, bool] = {}
    for record in reader.whole(partitions_of([f"{service}.state"], range(lanes))):
        found.setdefault(record.partition, False)
        if record.key == _HEAD_KEY.encode() and record.value is not None:
            head = decode_record(Head, _HEAD_KEY, record.value)
            # Who begins without state numbers it from 1 on; who is restored, from its epoch on.
            found[record.partition] = head.counter > head.epoch
    return found


def restore_service(
    settings: Settings,
    name: str,
    how: Restorable,
    logs: Mapping[int, list[Event[Any]]],
    progress: Callable[[str], None],
) -> RestoredService:
    """Bring a service's state back in these lanes, by their logs. Raises NotRestorable, and what its key raises."""
    had = lanes_with_state(LogReader(settings), name, settings.log.lanes)
    if anew := sorted(lane for lane, restored in had.items() if not restored and lane in logs):
        raise NotRestorable(
            f"{name} has state in lane {', '.join(map(str, anew))} that is not from restoring: it was started before "
            f"it was restored, and has begun anew. Stop it, delete and create its topic {name}.state, then try again"
        )
    done = RestoredService(name, before=sorted(had))
    todo = [lane for lane in sorted(logs) if lane not in had]
    if not todo:
        return done
    service = how.build(settings)
    with (
        closing(ServiceProcess(name, service.says, settings, {})) as process,
        closing(TransactionalProducer(settings, service=name)) as producer,
    ):
        if service.learn_keyrings is not None:
            service.learn_keyrings(process.keyrings)
        surroundings = Surroundings(
            service=service,
            speech=Speech(name, process.session, process.frame),
            clock=utc_now,
            keyring_version=process.keyring_version,
            policy=lambda: process.broadcast.policy,
        )
        producer.initialise()
        for lane in todo:
            progress(f"{name}: lane {lane}")
            restored = restore_lane(how.restorer, surroundings, lane, logs[lane])
            if restored is not None:
                _check_own(process, name, restored)
                producer.transact(restored.records, [], None)
                done.lanes.append(restored)
    return done


def _check_own(process: ServiceProcess, name: str, restored: RestoredLane) -> None:
    """Raise ConfigurationError unless the service will believe its state: with another's key it would begin anew."""
    state = next(r for r in restored.records if r.topic == f"{name}.state")
    now_ms = int(utc_now().timestamp() * 1000)
    record = Record(state.topic, state.partition, 0, now_ms, state.key, state.value, tuple(state.headers))
    try:
        read_state_record(record, process.verifier, service=name)
    except TrustError as error:
        raise ConfigurationError(
            f"{process.session.signer_id} may not sign the state of {name} ({error.message}); restore it where its key "
            f"is: ai-infra restore-bus --service {name}"
        ) from error
