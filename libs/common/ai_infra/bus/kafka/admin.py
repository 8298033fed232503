"""What Kafka says about topics and groups, and the few things that an operator changes there.

A thin, typed face of confluent-kafka's AdminClient: plain values in and out, every failure an error of ours with what
was being done. It never reads or writes a record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported there without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from ai_infra.bus.kafka.config import KafkaUnavailableError, client_config, no_broker, opened, unavailable
from ai_infra.errors import AiInfraError
from ai_infra.settings import Settings

T = TypeVar("T")

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # its stub has no types
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]

Partition = tuple[str, int]
"""Topic and partition."""

TIMEOUT: Final = 15.0  # seconds that a request may take; a broker that is starting needs a few
BETWEEN_ATTEMPTS: Final = 0.1  # seconds
UNREACHABLE: Final = frozenset({KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._ALL_BROKERS_DOWN})
_HAS_MEMBERS: Final = frozenset(
    {
        KafkaError.NON_EMPTY_GROUP,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
    }
)
LEADER_MOVED: Final = frozenset(
    {
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError._NOENT,  # what an admin client says when no leader is known at all
    }
)
_COORDINATOR_MOVING: Final = frozenset(
    {
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
    }
)


class GroupActiveError(AiInfraError):
    """Offsets of a group with members can't be set from outside."""

    code = "group_active"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is on the broker. `replicas`: the smallest replication factor among its partitions."""

    name: str
    partitions: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Watermarks:
    """First offset that is still there, and the end as a reader of committed records sees it."""

    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Member:
    """A process in a group and the partitions that it has."""

    client_id: str
    host: str
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group. `state`: stable, empty, preparing_rebalancing, …; `unknown` where the broker has none."""

    name: str
    state: str
    protocol: str
    assignor: str
    members: tuple[Member, ...]


class KafkaAdmin:
    """Asks and tells the broker. Raises KafkaUnavailableError when it doesn't answer."""

    def __init__(self, settings: Settings, *, timeout: float = TIMEOUT) -> None:
        self._settings = settings
        self._timeout = timeout
        self._client = opened(AdminClient, client_config(settings, "admin"))

    def topics(self) -> dict[str, TopicState]:
        """All topics but Kafka's own."""
        try:
            listed = self._client.list_topics(timeout=self._timeout).topics
        except KafkaException as error:
            if error.args[0].code() in UNREACHABLE:
                raise no_broker(self._settings, "listing topics") from None
            raise unavailable("listing topics", error) from None
        return {
            name: TopicState(name, len(t.partitions), min((len(p.replicas) for p in t.partitions.values()), default=0))
            for name, t in listed.items()
            if not name.startswith("__") and t.error is None
        }

    def leaderless(self, names: Iterable[str]) -> set[str]:
        """Those of the topics that the broker doesn't serve yet."""
        try:
            listed = self._client.list_topics(timeout=self._timeout).topics
        except KafkaException as error:
            raise unavailable("listing topics", error) from None
        return {
            name
            for name in names
            if name not in listed
            or not listed[name].partitions
            or any(p.leader < 0 for p in listed[name].partitions.values())
        }

    def create(self, name_partitions_replicas_config: Iterable[tuple[str, int, int, Mapping[str, str]]]) -> list[str]:
        """Creates topics; returns those that weren't there yet. One that somebody else has just made is no error."""
        new = [
            NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=dict(config))
            for name, partitions, replicas, config in name_partitions_replicas_config
        ]
        if not new:
            return []
        created: list[str] = []
        for name, future in self._client.create_topics(new, request_timeout=self._timeout).items():
            try:
                future.result(timeout=self._timeout)
                created.append(name)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise unavailable(f"creating topic {name}", error) from None
        return created

    def configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Settings of topics, by name."""
        return self._configs(ResourceType.TOPIC, names)

    def broker_configs(self) -> dict[str, dict[str, str]]:
        """Settings of brokers, by broker id; empty where the broker doesn't tell (managed services)."""
        try:
            brokers = [str(b) for b in self._client.list_topics(timeout=self._timeout).brokers]
            return self._configs(ResourceType.BROKER, brokers)
        except (KafkaUnavailableError, KafkaException):
            return {}

    def set_topic_config(self, name: str, config: Mapping[str, str]) -> None:
        """Changes some settings of a topic and leaves the others."""
        resource = ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
            ],
        )
        futures = self._client.incremental_alter_configs([resource], request_timeout=self._timeout)
        self._wait(futures[resource], f"changing settings of topic {name}")

    def watermarks(self, partitions: Iterable[Partition]) -> dict[Partition, Watermarks]:
        """Where partitions begin and end, the end without records of open transactions."""
        wanted = list(partitions)
        low, high = (self._offsets(wanted, spec) for spec in (_EARLIEST, _LATEST))
        return {p: Watermarks(low[p], high[p]) for p in wanted}

    def committed_ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where partitions end, without records of open transactions: one question where `watermarks` asks two."""
        return self._offsets(list(partitions), _LATEST)

    def ends(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        """Where partitions end, records of open transactions included."""
        return self._offsets(list(partitions), _LATEST, IsolationLevel.READ_UNCOMMITTED)

    def offsets_at(self, partitions: Iterable[Partition], time_ms: int) -> dict[Partition, int]:
        """First offset at or after a time (append time, ms); the end of the partition where there is none."""
        wanted = list(partitions)
        found = self._offsets(wanted, OffsetSpec.for_timestamp(time_ms))
        missing = [p for p in wanted if found[p] < 0]
        return {**found, **self._offsets(missing, _LATEST)}

    def committed(self, group: str, partitions: Iterable[Partition]) -> dict[Partition, int | None]:
        """Committed position of a group in each partition, None where it has none."""
        wanted = [TopicPartition(t, p) for t, p in partitions]
        if not wanted:
            return {}
        doing = f"reading the offsets of group {group}"
        with self._as_group(group, doing) as consumer:
            answer = self._patiently(lambda: consumer.committed(wanted, timeout=self._timeout))
        for tp in answer:
            if tp.error is not None:
                raise unavailable(f"{doing} in {tp.topic}/{tp.partition}", tp.error)
        return {(tp.topic, tp.partition): None if tp.offset == OFFSET_INVALID else tp.offset for tp in answer}

    def set_offsets(self, group: str, offsets: Mapping[Partition, int]) -> None:
        """Sets the position of a group without members. Raises GroupActiveError while it has some."""
        if not offsets:
            return
        doing = f"setting offsets of group {group}"
        with self._as_group(group, doing) as consumer:
            # The answer to whether the coordinator is there; a commit alone doesn't wait for it.
            first = [TopicPartition(t, p) for t, p in list(offsets)[:1]]
            self._patiently(lambda: consumer.committed(first, timeout=self._timeout))
            answer = consumer.commit(
                offsets=[TopicPartition(t, p, o) for (t, p), o in offsets.items()], asynchronous=False
            )
        for tp in answer or ():
            if tp.error is not None:
                raise _group_error(group, tp.error)

    def group(self, name: str) -> Group:
        """A group and its members."""
        found = self._describe(name)
        if found is None:
            return Group(name, "unknown", "", "", ())
        members = tuple(
            Member(
                m.client_id,
                m.host,
                tuple(sorted((tp.topic, tp.partition) for tp in m.assignment.topic_partitions)) if m.assignment else (),
            )
            for m in found.members
        )
        kind = getattr(found, "type", None)
        state = "unknown" if found.state.name == "DEAD" and not members else found.state.name.lower()
        return Group(name, state, kind.name.lower() if kind else "", found.partition_assignor or "", members)

    def _describe(self, name: str) -> Any:
        """What the broker says of a group; None where there is none. Asks again while its coordinator moves."""
        doing = f"describing group {name}"
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                future = self._client.describe_consumer_groups([name], request_timeout=self._timeout)[name]
                return future.result(timeout=self._timeout + 1.0)
            except KafkaException as error:
                code = error.args[0].code()
                if code in {KafkaError.GROUP_ID_NOT_FOUND, KafkaError._UNKNOWN_GROUP}:
                    return None
                if code not in _COORDINATOR_MOVING or time.monotonic() > deadline:
                    raise unavailable(doing, error) from None
            except TimeoutError:
                raise no_broker(self._settings, doing) from None
            time.sleep(BETWEEN_ATTEMPTS)  # between two questions

    def _configs(self, kind: ResourceType, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(kind, name) for name in names]
        futures = self._client.describe_configs(resources, request_timeout=self._timeout)
        return {
            resource.name: {
                entry.name: entry.value for entry in self._wait(future, f"reading settings of {resource.name}").values()
            }
            for resource, future in futures.items()
        }

    def _offsets(
        self,
        partitions: Sequence[Partition],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[Partition, int]:
        if not partitions:
            return {}
        deadline = time.monotonic() + self._timeout
        while True:
            futures = self._client.list_offsets(
                {TopicPartition(t, p): spec for t, p in partitions},
                isolation_level=isolation,
                request_timeout=self._timeout,
            )
            try:
                found = {
                    (tp.topic, tp.partition): self._wait(future, f"reading offsets of {tp.topic}/{tp.partition}").offset
                    for tp, future in futures.items()
                }
                # While a broker goes or comes, there are answers without an error and without an offset. (For a time,
                # "none" is an answer.)
                if spec not in (_EARLIEST, _LATEST) or all(offset >= 0 for offset in found.values()):
                    return found
                if time.monotonic() > deadline:
                    raise no_broker(self._settings, "reading offsets")
            except KafkaUnavailableError as error:
                cause = error.__context__
                if not isinstance(cause, KafkaException) or cause.args[0].code() not in LEADER_MOVED:
                    raise
                if time.monotonic() > deadline:
                    raise
                # An admin client keeps the leader epochs that it has once seen, for minutes after a broker's restart,
                # and asks with them in vain (librdkafka 2.16). A new one asks anew.
                self._client = opened(AdminClient, client_config(self._settings, "admin"))
            time.sleep(BETWEEN_ATTEMPTS)  # between two questions

    @contextmanager
    def _as_group(self, group: str, doing: str) -> Iterator[Consumer]:
        """A client that speaks of a group without joining it.

        Not by AdminClient's group offsets: on a broker whose offsets topic is just being made, they hang until their
        time is over, or end the process (librdkafka 2.16). A consumer waits for the coordinator as it should.
        """
        config = client_config(
            self._settings, "admin", **{"group.id": group, "enable.auto.commit": False, "group.protocol": "classic"}
        )
        consumer = opened(Consumer, config)
        try:
            yield consumer
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() in UNREACHABLE:
                raise no_broker(self._settings, doing) from None
            raise _group_error(group, cause) from None
        finally:
            consumer.close()

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Asks again while the group's coordinator is moving: a broker that has just started is still loading it."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                return ask()
            except KafkaException as error:
                if error.args[0].code() not in _COORDINATOR_MOVING or time.monotonic() > deadline:
                    raise
            time.sleep(BETWEEN_ATTEMPTS)  # between two questions

    def _wait(self, future: Future[T], doing: str) -> T:
        try:
            return future.result(timeout=self._timeout)
        except KafkaException as error:
            if error.args[0].code() in UNREACHABLE:
                raise no_broker(self._settings, doing) from None
            raise unavailable(doing, error) from None
        except TimeoutError:
            raise no_broker(self._settings, doing) from None


def _group_error(group: str, error: Any) -> AiInfraError:
    if error.code() in _HAS_MEMBERS:
        return GroupActiveError(
            f"group {group} has members, so its offsets can't be set; stop every replica of the service "
            f"(`ai-infra groups show` lists them), then try again"
        )
    return unavailable(f"asking about group {group}", error)
