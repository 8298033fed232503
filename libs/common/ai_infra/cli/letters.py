"""Dead letters: which there are, what they were, and what an operator has done about them.

A dead letter stays in its topic; that it was redriven or discarded is said by a verified `operator.action` in the same
lane, with `{"dlq_offset": n}` in its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from ai_infra.bus.kafka.topics import SERVICES
from ai_infra.bus.redrive import BadRedriveError, before_redrive, record_sha256, split_dead_letter
from ai_infra.cli.event_text import header
from ai_infra.cli.reading import LogReader, partitions_of
from ai_infra.client.gate import Gate
from ai_infra.errors import ConfigurationError
from ai_infra.events.event import Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import OperatorAction
from ai_infra.events.lanes import is_model, lane_key
from ai_infra.trust.exceptions import TrustError

REDRIVE: Final = "dlq.redrive"
DISCARD: Final = "dlq.discard"
OPEN: Final = "open"
_OUTCOME: Final = {REDRIVE: "redriven", DISCARD: "discarded"}


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One dead letter. `original`: the record as it first was. `outcome`: open, redriven or discarded."""

    service: str
    lane: int
    offset: int
    time: datetime
    code: str
    reason: str
    original: Record
    outcome: str

    @property
    def place(self) -> str:
        """How it's named on the command line: `<service>/<lane>/<offset>`."""
        return f"{self.service}/{self.lane}/{self.offset}"

    @property
    def event_id(self) -> str:
        """The id that the record claims, empty where it has none."""
        return header(self.original, "ce_id") or ""

    @property
    def key(self) -> str:
        """Under which key an operator acts on it: its model's, or its lane's where the key is no model."""
        text = (self.original.key or b"").decode("utf-8", "replace")
        return text if is_model(text) else lane_key(self.lane)


def parse_place(text: str) -> tuple[str, int, int]:
    """`<service>/<lane>/<offset>`; ConfigurationError for anything else."""
    service, _, rest = text.partition("/")
    lane, _, offset = rest.partition("/")
    if service not in SERVICES or not lane.isdigit() or not offset.isdigit():
        raise ConfigurationError(
            f"a dead letter is named SERVICE/LANE/OFFSET, as `ai-infra dlq list` shows it; got {text!r}"
        )
    return service, int(lane), int(offset)


def dead_letters(
    reader: LogReader, gate: Gate, lanes: Iterable[int], services: Sequence[str] = SERVICES
) -> list[DeadLetter]:
    """All dead letters in these lanes, oldest first. Records that are none (somebody else's junk) are left out."""
    lanes = list(lanes)
    letters = []
    for record in reader.whole(partitions_of([f"{service}.dlq" for service in services], lanes)):
        letter = as_letter(record)
        if letter is not None:
            letters.append(letter)
    if not letters:
        return []
    outcomes = _outcomes(reader, gate, sorted({letter.lane for letter in letters}))
    found = [_with_outcome(letter, outcomes) for letter in letters]
    return sorted(found, key=lambda letter: (letter.time, letter.service, letter.lane, letter.offset))


def as_letter(record: Record) -> DeadLetter | None:
    """The record as a dead letter; None where the runtime hasn't written it."""
    try:
        original, notes = split_dead_letter(record)
        when = datetime.fromtimestamp(int(notes["dlq_time"]) / 1000, UTC)
    except (BadRedriveError, ValueError, OverflowError, OSError):
        return None
    service = record.topic.removesuffix(".dlq")
    # A redriven record that failed again lies here as it came by the retry topic.
    original = before_redrive(original)
    return DeadLetter(
        service=service,
        lane=record.partition,
        offset=record.offset,
        time=when,
        code=notes["dlq_error"],
        reason=notes["dlq_reason"],
        original=original,
        outcome=OPEN,
    )


def proven(reader: LogReader, letter: DeadLetter) -> bool | None:
    """Whether Kafka still has the record where and as the dead letter says: True, or None where Kafka has forgotten it.

    False means that the dead letter's claim is wrong: it must not be vouched for.
    """
    original = letter.original
    place = (original.topic, original.partition)
    if original.topic not in reader.admin.topics():
        return False
    marks = reader.admin.watermarks([place])[place]
    if original.offset < marks.low:
        return None
    if original.offset >= marks.high:
        return False  # nothing was ever there; to read it would be to wait for it
    for record in reader.between({place: original.offset}, {place: original.offset + 1}):
        same_time = record.append_time_ms == original.append_time_ms
        return same_time and record_sha256(record) == record_sha256(original)
    return False


def _with_outcome(letter: DeadLetter, outcomes: dict[tuple[str, int, int], str]) -> DeadLetter:
    outcome = outcomes.get((letter.service, letter.lane, letter.offset), OPEN)
    return DeadLetter(
        letter.service, letter.lane, letter.offset, letter.time, letter.code, letter.reason, letter.original, outcome
    )


def _outcomes(reader: LogReader, gate: Gate, lanes: Sequence[int]) -> dict[tuple[str, int, int], str]:
    outcomes: dict[tuple[str, int, int], str] = {}
    for record in reader.whole(partitions_of([OperatorAction.TOPIC], lanes)):
        try:
            body = gate.verify(record).body
        except (EventError, TrustError):
            continue
        if isinstance(body, OperatorAction) and body.action in _OUTCOME:
            arguments: Any = orjson.loads(body.arguments_json)
            offset = arguments.get("dlq_offset")
            if isinstance(offset, int):
                outcomes[body.target, record.partition, offset] = _OUTCOME[body.action]
    return outcomes
