"""From a Kafka message to our `Record`, and the errors of a consumer that must stop a service."""

from __future__ import annotations

from collections.abc import Sequence
from operator import methodcaller
from typing import Final, cast

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message

from ai_infra.errors import AiInfraError
from ai_infra.events.event import NO_APPEND_TIME, UNREADABLE_HEADERS, Record

_GONE: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


# Where a header's name is not UTF-8, confluent-kafka 2.16 sets an error and returns a list with holes all the same. Of
# `message.headers()`, code that Python has specialised hands that list on, and who looks into it crashes. Called from
# C, the result is checked: SystemError.
_headers_of: Final = methodcaller("headers")


class LostOffsetsError(AiInfraError):
    """The group has no committed position for an input, or one that the topic no longer has."""

    code = "lost_offsets"


class RestartNeededError(AiInfraError):
    """The process cannot know what became of its transaction or its membership, and must start anew."""

    code = "restart_needed"


class PositionGoneError(RestartNeededError):
    """What a reader without a group was to read next is no longer there: it must begin again from what there is."""

    code = "position_gone"


def record_from_message(message: Message, *, own: bool = False) -> Record:
    """The message as a `Record`: raw bytes, all headers in order (a header without a value has b""; where a name is not
    UTF-8, none can be had: UNREADABLE_HEADERS).

    A time that the writer chose is no append time: it could be one at which an expired key still counted. `own`: take
    it all the same, for a topic of which nobody would gain by that (state is numbered and signed).
    """
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    if topic is None or partition is None or offset is None:
        raise ValueError("a message without topic, partition or offset is not a record")
    kind, time_ms = message.timestamp()
    headers: tuple[tuple[str, bytes], ...]
    try:
        received = cast("Sequence[tuple[str, str | bytes | None]]", _headers_of(message) or ())  # a list, when read
    except (SystemError, UnicodeDecodeError):
        headers = UNREADABLE_HEADERS
    else:
        for _, value in received:
            if value.__class__ is not bytes:
                headers = tuple([(name, _bytes(value)) for name, value in received])
                break
        else:
            headers = cast("tuple[tuple[str, bytes], ...]", tuple(received))
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        append_time_ms=time_ms if own or kind == TIMESTAMP_LOG_APPEND_TIME else NO_APPEND_TIME,
        key=_maybe_bytes(message.key()),
        value=_maybe_bytes(message.value()),
        headers=headers,
    )


def check_reader_error(error: KafkaError, what: str) -> None:
    """As `check_message_error`, for who reads on its own account, without a group: there is nothing to be placed."""
    if error.code() in _GONE:
        raise PositionGoneError(
            f"{what} is behind what is still there: {error.str()}. Retention has deleted it, or the topics were made "
            "anew: begin again, from what there is"
        )
    check_message_error(error, what)


def check_message_error(error: KafkaError, group: str) -> None:
    """Raises for errors that a consumer cannot go on after; returns for those that pass by themselves."""
    code = error.code()
    if code in _GONE:
        raise LostOffsetsError(
            f"group {group} has lost its position: {error.str()}. Nothing was skipped. "
            "See how much is missing with `ai-infra lag`, then place the group with `ai-infra groups seek`; if all of "
            "Kafka was lost and made anew, `ai-infra restore-bus` brings the services back from the log"
        )
    if code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}:
        raise RestartNeededError(f"an input topic is not there: {error.str()}; run `ai-infra topics create`")
    if code in {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}:
        raise RestartNeededError(
            f"the broker refuses: {error.str()}; `ai-infra topics acl` prints what this role needs"
        )
    if error.fatal():
        raise RestartNeededError(f"the consumer of {group} cannot go on: {error.str()}")


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _maybe_bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
