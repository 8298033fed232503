"""Every topic of the system, who listens to what, and how topics are made and checked.

The one table of topics: what is said comes from the schemas (`events.generated.BODIES`), what a service has of its own
(`.state`, `.retry`, `.dlq`) from its name. All lane topics have the same number of partitions, fixed when the log is
created: partition p of each is lane p. This room never changes a number of partitions and never deletes a topic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ai_infra.bus.kafka.admin import KafkaAdmin, Partition, TopicState
from ai_infra.bus.kafka.config import DEAD_LETTER_BATCH_BYTES, LANE_BATCH_BYTES, KafkaUnavailableError
from ai_infra.errors import AiInfraError, ConfigurationError
from ai_infra.events.generated import BODIES
from ai_infra.settings import Settings

BROADCAST_TOPICS: Final = ("signer.changed", "policy.changed")
"""One partition; every process reads them whole before it works, and follows them."""

LANE_TOPICS: Final = tuple(sorted(set(BODIES) - set(BROADCAST_TOPICS)))
"""Topics with a partition for each lane."""

UNSEQUENCED: Final = frozenset({"serving.window", "serving.profile", "audit.checkpoint"})
"""Signed, but not entered into the log: what is decided from them carries what it was decided from."""

PLAIN: Final = "audit-events"
"""The Kernel's view of the log: plain JSON, written by the indexer, not sequenced."""

# What each service hears, in the words of its `Service.listens`. The indexer hears all that is sequenced.
_HEARS: Final[Mapping[str, tuple[str, ...]]] = {
    "trainer": ("job.queued", "job.cancel_requested"),
    "registry": ("artifact.produced", "artifact.revoked"),
    "promoter": (
        "promotion.requested",
        "promotion.approval",
        "rollback.requested",
        "artifact.registered",
        "artifact.revoked",
        "evaluation.recorded",
        "deployment.changed",
        "canary.status",
    ),
    "canary": ("promotion.decided", "artifact.revoked"),
    "indexer": tuple(t for t in LANE_TOPICS if t not in UNSEQUENCED),
}

SERVICES: Final = tuple(_HEARS)

SERVICE_INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    name: tuple(dict.fromkeys((*heard, "operator.action", f"{name}.retry"))) for name, heard in _HEARS.items()
}
"""Input topics of each service's group: what it hears, what an operator says to it, and what was redriven to it. A
replica works a lane only while it holds that partition of all of them."""

DAY_MS: Final = 86_400_000
INPUT_RETENTION_MS: Final = 30 * DAY_MS
_FIX: Final = "ai-infra topics check --fix"
_UP_TIMEOUT: Final = 60.0  # seconds until new topics must have leaders


class TopicsError(AiInfraError):
    """Topics aren't as they have to be."""

    code = "bad_topics"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be. `config` holds what correctness rests on; other settings are the broker's business."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about topics or groups that is not as it should be, and what to do. `serious`: services can't work."""

    subject: str
    what: str
    fix: str
    serious: bool = True


@dataclass(frozen=True, slots=True)
class Created:
    """What `create_topics` has done: topics made, and groups that were given the start of so many partitions."""

    topics: tuple[str, ...]
    offsets: Mapping[str, int]


def group_of(service: str) -> str:
    """Consumer group of a service."""
    return f"ai-infra.{service}"


def own_topics(service: str) -> tuple[str, str, str]:
    """State, retry and dead-letter topics of a service."""
    return f"{service}.state", f"{service}.retry", f"{service}.dlq"


def check_service(service: str) -> str:
    """The name, if there is such a service; ConfigurationError otherwise."""
    if service not in SERVICE_INPUTS:
        raise ConfigurationError(f"there is no service {service!r}; there are {', '.join(SERVICES)}")
    return service


def input_partitions(service: str, lanes: int, lane: int | None = None) -> list[Partition]:
    """All partitions of a service's inputs, or those of one lane."""
    return [(t, p) for t in SERVICE_INPUTS[service] for p in (range(lanes) if lane is None else (lane,))]


def topic_specs(settings: Settings) -> tuple[TopicSpec, ...]:
    """Every topic of this installation."""
    lanes = settings.log.lanes
    replicas = settings.kafka.replication_factor or (1 if settings.environment == "dev" else 3)
    common = {
        # Appended by the broker's clock: validity of a signature is judged by it, so no writer may choose it.
        "message.timestamp.type": "LogAppendTime",
        "min.insync.replicas": str(max(1, replicas - 1)),
        "max.message.bytes": str(LANE_BATCH_BYTES),
        "unclean.leader.election.enable": "false",
    }
    deleted = {**common, "cleanup.policy": "delete"}
    lane = {**deleted, "retention.ms": str(INPUT_RETENTION_MS)}
    specs = [TopicSpec(name, lanes, replicas, lane) for name in (*LANE_TOPICS, PLAIN)]
    # Whoever starts has to read every keyring and policy since the beginning.
    specs += [TopicSpec(name, 1, replicas, {**deleted, "retention.ms": "-1"}) for name in BROADCAST_TOPICS]
    for service in SERVICES:
        state, retry, dead = own_topics(service)
        specs.append(
            TopicSpec(
                state,
                lanes,
                replicas,
                {
                    **common,
                    "cleanup.policy": "compact",
                    # Restoring reads all of it: small segments and an eager cleaner keep it near the state's own size.
                    "segment.bytes": str(64 * 1024 * 1024),
                    "min.cleanable.dirty.ratio": "0.2",
                },
            )
        )
        specs.append(TopicSpec(retry, lanes, replicas, lane))
        specs.append(
            TopicSpec(
                dead,
                lanes,
                replicas,
                {
                    # No longer than operator.action, which says what became of a dead letter.
                    **lane,
                    "max.message.bytes": str(DEAD_LETTER_BATCH_BYTES),
                },
            )
        )
    return tuple(sorted(specs, key=lambda spec: spec.name))


def create_topics(settings: Settings, *, progress: Callable[[str], None] = lambda _: None) -> Created:
    """Makes every topic that is missing, and gives each service's group the start of each partition it has none for.

    Safe to repeat. With a position everywhere, a service can run with `auto.offset.reset=error`: an offset that is
    missing later was lost, and the service stops instead of skipping. Raises TopicsError where a topic is there with
    another number of partitions, GroupActiveError where a running service lacks positions.
    """
    admin = KafkaAdmin(settings)
    specs = {spec.name: spec for spec in topic_specs(settings)}
    existing = admin.topics()
    wrong = [p for p in _shape_problems(specs.values(), existing) if p.subject in existing]
    if wrong:
        others = f" (and {len(wrong) - 1} more topics)" if wrong[1:] else ""
        raise TopicsError(f"topic {wrong[0].subject} has {wrong[0].what}{others}; {wrong[0].fix}")
    missing = [s for s in specs.values() if s.name not in existing]
    if missing:
        progress(f"creating {len(missing)} topics with {settings.log.lanes} lanes")
    created = admin.create((s.name, s.partitions, s.replicas, s.config) for s in missing)
    _wait_until_served(admin, specs)
    # The first question about a group has the broker make its offsets topic: on a busy machine that takes its time.
    admin = KafkaAdmin(settings, timeout=_UP_TIMEOUT)
    offsets: dict[str, int] = {}
    for service in SERVICES:
        group = group_of(service)
        committed = admin.committed(group, input_partitions(service, settings.log.lanes))
        unset = [p for p, offset in committed.items() if offset is None]
        if unset:
            progress(f"setting the start of {len(unset)} partitions for group {group}")
            marks = admin.watermarks(unset)
            admin.set_offsets(group, {p: marks[p].low for p in unset})
            offsets[group] = len(unset)
    return Created(tuple(sorted(created)), offsets)


def check_topics(settings: Settings) -> list[Problem]:
    """Everything about topics and positions that isn't as it should be; empty when all is well."""
    admin = KafkaAdmin(settings)
    specs = {spec.name: spec for spec in topic_specs(settings)}
    existing = admin.topics()
    problems = _shape_problems(specs.values(), existing)
    present = [name for name in specs if name in existing]
    for name, wrong in _wrong_settings(admin, specs, present).items():
        problems += [
            Problem(name, f"{key} is {found}, expected {specs[name].config[key]}", _FIX, serious=False)
            for key, found in wrong.items()
        ]
    if all(name in existing and existing[name].partitions == specs[name].partitions for name in specs):
        for service in SERVICES:
            problems += _position_problems(admin, service, settings.log.lanes)
    problems += _broker_problems(admin)
    return problems


def correct_settings(settings: Settings) -> tuple[str, ...]:
    """Sets the settings of topics that differ from what they should be; returns those topics."""
    admin = KafkaAdmin(settings)
    specs = {spec.name: spec for spec in topic_specs(settings)}
    wrong = _wrong_settings(admin, specs, [name for name in specs if name in admin.topics()])
    for name, keys in wrong.items():
        admin.set_topic_config(name, {key: specs[name].config[key] for key in keys})
    return tuple(wrong)


def _wrong_settings(
    admin: KafkaAdmin, specs: Mapping[str, TopicSpec], present: Sequence[str]
) -> dict[str, dict[str, str | None]]:
    """Per topic, the settings that differ and what they are."""
    found = {
        name: {key: config.get(key) for key, wanted in specs[name].config.items() if config.get(key) != wanted}
        for name, config in admin.configs(present).items()
    }
    return {name: wrong for name, wrong in found.items() if wrong}


def _shape_problems(specs: Iterable[TopicSpec], existing: Mapping[str, TopicState]) -> list[Problem]:
    problems = []
    for spec in specs:
        found = existing.get(spec.name)
        if found is None:
            problems.append(Problem(spec.name, "missing", "create it: ai-infra topics create"))
            continue
        partitions, replicas = found.partitions, found.replicas
        if partitions != spec.partitions:
            problems.append(
                Problem(
                    spec.name,
                    f"{partitions} partitions, expected {spec.partitions}",
                    "lanes are fixed when the log is created: set AI_INFRA_LANES to the number that the log has, or "
                    "start a new log on topics of its own",
                )
            )
        if replicas < spec.replicas:
            problems.append(
                Problem(
                    spec.name,
                    f"{replicas} replicas, expected {spec.replicas}",
                    "add replicas with kafka-reassign-partitions.sh, or set AI_INFRA_REPLICATION_FACTOR to what this "
                    "cluster has",
                )
            )
    return problems


def _position_problems(admin: KafkaAdmin, service: str, lanes: int) -> list[Problem]:
    group, partitions = group_of(service), input_partitions(service, lanes)
    committed, marks = admin.committed(group, partitions), admin.watermarks(partitions)
    unset = [p for p in partitions if committed[p] is None]
    problems = []
    if unset:
        problems.append(
            Problem(
                group,
                f"no position in {len(unset)} of {len(partitions)} partitions, e.g. {unset[0][0]}/{unset[0][1]}",
                f"stop the {service}, then: ai-infra topics create (it begins at the start of these partitions)",
            )
        )
    for (topic, p), offset in committed.items():
        low, high = marks[topic, p].low, marks[topic, p].high
        if offset is not None and offset < low:
            problems.append(
                Problem(
                    group,
                    f"{topic}/{p}: {low - offset} records were deleted before they were read",
                    f"restore them from the archive, or accept the loss: ai-infra groups seek {service} "
                    f"--lane {p} --to start --reason TEXT",
                )
            )
        elif offset is not None and offset > high:
            problems.append(
                Problem(
                    group,
                    f"{topic}/{p}: its position {offset} is past the end {high}; the topic was made anew",
                    "if Kafka has lost its data: ai-infra restore-bus --reason TEXT; if only this topic was made anew: "
                    f"ai-infra groups seek {service} --lane {p} --to start --reason TEXT",
                )
            )
    return problems


def _broker_problems(admin: KafkaAdmin) -> list[Problem]:
    for broker, config in admin.broker_configs().items():
        minutes = config.get("offsets.retention.minutes")
        if minutes is not None and int(minutes) * 60_000 <= INPUT_RETENTION_MS:
            need = math.ceil(2 * INPUT_RETENTION_MS / 60_000)
            return [
                Problem(
                    f"broker {broker}",
                    f"offsets.retention.minutes is {minutes}: a group that stands still loses its position before its "
                    f"input is deleted",
                    f"set offsets.retention.minutes={need} on all brokers",
                    serious=False,
                )
            ]
    return []


def _wait_until_served(admin: KafkaAdmin, names: Iterable[str]) -> None:
    deadline = time.monotonic() + _UP_TIMEOUT
    pause = 0.02
    while waiting := admin.leaderless(names):
        if time.monotonic() > deadline:
            raise KafkaUnavailableError(
                f"{len(waiting)} topics have no leader after {_UP_TIMEOUT:.0f} s, e.g. {min(waiting)}; "
                "look at the broker's log (`ai-infra dev logs kafka`)"
            )
        time.sleep(pause)  # between two questions, nothing is synchronised by it
        pause = min(2 * pause, 0.5)
