"""How this project's Kafka clients are configured: one place for the settings that its guarantees rest on.

What an operator sets (`KAFKA_<LIBRDKAFKA_NAME>`: brokers, TLS, SASL) comes first; what correctness needs is put over it
and can't be changed from outside. A configuration may hold a password: it must never be logged or shown.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import structlog
from confluent_kafka import KafkaError, KafkaException

from ai_infra.errors import ConfigurationError, UnavailableError
from ai_infra.settings import Settings

log = structlog.get_logger(__name__)

C = TypeVar("C")

# How librdkafka names the setting that it refuses, and its value, which may be a password in the wrong place.
_PROPERTY: Final = re.compile(r'configuration property:? "([a-z0-9._]+)"')
_QUOTED_VALUE: Final = re.compile(r'Invalid value "[^"]*"')

# Largest batch of a lane topic, bytes; also set on the topics. A body has at most 48 KiB: no limit to events.
LANE_BATCH_BYTES: Final = 1_048_576
# A dead letter is a record as large as its topic allows, plus headers: it must always fit, or junk could stop a lane.
DEAD_LETTER_BATCH_BYTES: Final = 2 * LANE_BATCH_BYTES
# How long an open transaction of a process that has died holds back readers, ms.
TRANSACTION_TIMEOUT_MS: Final = 10_000
# While the coordinator still writes the markers of the transaction before, it refuses the next one (CONCURRENT_
# TRANSACTIONS), and librdkafka asks again after this long, then twice as long …, up to a second. Its default of 100 ms
# would be most of the latency of whatever takes two transactions in a row (benchmarks/README.md).
TRANSACTION_RETRY_MS: Final = 5
# Larger than any pause of the loop between two polls: work runs beside it, a batch is bounded.
MAX_POLL_INTERVAL_MS: Final = 300_000


class KafkaUnavailableError(UnavailableError):
    """The broker doesn't answer, or has refused; `retriable` says whether asking again may help."""

    code = "kafka_unavailable"

    def __init__(self, message: str, *, retriable: bool = True) -> None:
        super().__init__(message)
        self.retriable = retriable


def client_config(settings: Settings, what: str, **ours: Any) -> dict[str, Any]:
    """Configuration of any client. `what` becomes part of the client id, so that a broker's log names the process."""
    return {
        "client.id": f"ai-infra.{what}@{socket.gethostname()}",
        "socket.keepalive.enable": True,
        # After a broker's restart a client should be back in a second or two, not in ten.
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "logger": _LIBRARY_LOG,
        "error_cb": on_client_error,
        **settings.kafka.client_config(),
        # A broker that makes topics for whoever names one would make them with its own number of partitions and without
        # LogAppendTime: a producer of librdkafka asks for that by default.
        "allow.auto.create.topics": False,
        **ours,
    }


def reader_config(settings: Settings, what: str, **ours: Any) -> dict[str, Any]:
    """A consumer that reads assigned partitions on its own account: never joins a group, never commits."""
    return client_config(
        settings,
        what,
        **{
            "group.id": f"ai-infra.reader.{what}",  # librdkafka asks for one; nothing is stored under it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            **ours,
        },
    )


def group_config(settings: Settings, group: str, *, protocol: str = "consumer", **ours: Any) -> dict[str, Any]:
    """A member of a service's group. `protocol`: `consumer`, or `classic` for brokers without KIP-848.

    Always the range assignor: with another one, partition p of one topic and of the next could be on two replicas.
    """
    assignment: dict[str, Any] = (
        {"group.protocol": "consumer", "group.remote.assignor": "range"}
        if protocol == "consumer"
        else {
            "group.protocol": "classic",
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 10_000,
            "heartbeat.interval.ms": 2_000,
        }
    )
    return client_config(
        settings,
        group,
        **{
            "group.id": group,
            **assignment,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            # `topics create` commits the start of every partition: an offset that is missing was lost, and a service
            # stops rather than skip what lies between.
            "auto.offset.reset": "error",
            "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
            "fetch.wait.max.ms": 50,
            **ours,
        },
    )


def producer_config(settings: Settings, what: str, **ours: Any) -> dict[str, Any]:
    """An idempotent producer: acknowledged by all in-sync replicas, in order, without duplicates of its own."""
    return client_config(
        settings,
        what,
        **{
            "enable.idempotence": True,
            "acks": "all",
            "message.max.bytes": DEAD_LETTER_BATCH_BYTES,
            "batch.size": LANE_BATCH_BYTES // 2,  # a batch must stay below what a lane topic takes
            "linger.ms": 2,
            # Java's default partitioner; partitions are set explicitly all the same.
            "partitioner": "murmur2_random",
            **ours,
        },
    )


def transactional_config(settings: Settings, service: str, transactional_id: str, **ours: Any) -> dict[str, Any]:
    """The producer of a service's transactions. `transactional_id` is random per process (docs: topics acl)."""
    return producer_config(
        settings,
        service,
        **{
            "transactional.id": transactional_id,
            # With all brokers away librdkafka 2.16 forgets them and begins again at the bootstrap servers, but for the
            # handle of its transaction coordinator: the next send_offsets_to_transaction then never returns. Without
            # that it finds the same brokers again; who moves to others ends its processes.
            "metadata.recovery.strategy": "none",
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "retry.backoff.ms": TRANSACTION_RETRY_MS,
            **ours,
        },
    )


def opened(kind: Callable[[dict[str, Any]], C], config: dict[str, Any]) -> C:
    """A client of this kind (Consumer, Producer, AdminClient). Raises ConfigurationError for settings that it does not
    take, without their values."""
    try:
        return kind(config)
    except KafkaException as error:
        said = str(error.args[0].str() if isinstance(error.args[0], KafkaError) else error.args[0])
        found = _PROPERTY.search(said)
        name = f"KAFKA_{found[1].upper().replace('.', '_')}: " if found is not None else ""
        raise ConfigurationError(
            f"The Kafka client does not take its settings: {name}{_QUOTED_VALUE.sub('Invalid value', said)}. Each "
            "KAFKA_<NAME> is a setting of librdkafka by its own name; docs/configuration.md says how."
        ) from None


def transactional_id_prefix(service: str) -> str:
    """What every transactional id of a service begins with: the broker's ACL is for this prefix."""
    return f"ai-infra.{service}."


_SAY_AGAIN_SECONDS: Final = 30.0
_said: dict[str, float] = {}  # what was reported, and when last


def on_client_error(error: KafkaError) -> None:
    """Notes what librdkafka reports on the side (a broker is away, …); operations report their own failures.

    Each client of a process repeats it with every attempt, about once a second: it is said once in half a minute.
    """
    about = f"{error.name()} {error.str().partition(' (after ')[0]}"
    now = time.monotonic()
    if now - _said.get(about, -_SAY_AGAIN_SECONDS) < _SAY_AGAIN_SECONDS:
        return
    _said[about] = now
    log.warning("kafka client", code=error.name(), detail=error.str())


def unavailable(doing: str, error: KafkaException | KafkaError) -> KafkaUnavailableError:
    """The error of ours for one of Kafka's, with what was being done and what to do about it."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(cause, KafkaError):
        return KafkaUnavailableError(f"Kafka failed while {doing}: {cause}")
    advice = _ADVICE.get(cause.name(), "")
    return KafkaUnavailableError(
        f"Kafka failed while {doing}: {cause.str()} ({cause.name()}){advice}", retriable=cause.retriable()
    )


def no_broker(settings: Settings, doing: str) -> KafkaUnavailableError:
    """No broker answers at all."""
    return KafkaUnavailableError(
        f"Kafka doesn't answer at {settings.kafka.bootstrap_servers} while {doing}; start one with `ai-infra dev up`, "
        "see `ai-infra dev status`, or correct KAFKA_BOOTSTRAP_SERVERS"
    )


_ADVICE: Final[Mapping[str, str]] = {
    "_TRANSPORT": "; is it up, and is KAFKA_BOOTSTRAP_SERVERS right? (`ai-infra dev status`)",
    "_ALL_BROKERS_DOWN": "; is it up, and is KAFKA_BOOTSTRAP_SERVERS right? (`ai-infra dev status`)",
    "_TIMED_OUT": "; is it up, and is KAFKA_BOOTSTRAP_SERVERS right? (`ai-infra dev status`)",
    "_UNKNOWN_TOPIC": "; create the topics with `ai-infra topics create`",
    "UNKNOWN_TOPIC_OR_PART": "; create the topics with `ai-infra topics create`",
    "TOPIC_AUTHORIZATION_FAILED": "; grant what `ai-infra topics acl` prints",
    "GROUP_AUTHORIZATION_FAILED": "; grant what `ai-infra topics acl` prints",
    "CLUSTER_AUTHORIZATION_FAILED": "; grant what `ai-infra topics acl` prints",
    "_AUTHENTICATION": "; check KAFKA_SASL_… or the client certificate",
}


class _LibraryLog:
    """librdkafka's own log lines, as structured ones: it calls `log` of what it's given as `logger`."""

    def log(self, level: int, message: str, *args: Any) -> None:
        # It repeats a broker that is away several times a second; `on_client_error` says that once, as a warning.
        log.debug("librdkafka", level_no=level, detail=message % args if args else message)


_LIBRARY_LOG: Final = _LibraryLog()
