"""What an audit found: one report a lane and source, one problem a finding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from ai_infra.events.canonical import sha256_hex
from ai_infra.events.event import Event
from ai_infra.events.generated import ArtifactRegistered, PolicyChanged, SignerChanged
from ai_infra.trust.keyring import Keyring
from ai_infra_indexer.completeness.ledger import Ledger, Said

Progress = Callable[[int], None]
"""Told the number of entries that were looked at."""

MAX_PROBLEMS: Final = 1_000  # of one lane and source: a log that is wholly wrong need not be told entry by entry


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be, and where."""

    lane: int | None
    source: str
    """archive, postgres or bucket."""
    position: int | None
    """Position in the lane's log; None where it is about the whole lane."""
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class RegisteredBytes:
    """An object whose SHA-256 the log vouches for."""

    lane: int
    position: int
    what: str
    uri: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Broadcasted:
    """A keyring or policy as a lane has it. `append_ms`: when the broker appended it."""

    sha256: str
    append_ms: int
    position: int


@dataclass(slots=True)
class LaneReport:
    """One lane as one source shows it."""

    lane: int
    source: str
    entries: int = 0
    pruned: int = 0
    """Of Postgres: the position below which there are no rows any more; the archive has those entries."""
    checkpoint_size: int | None = None
    root: str | None = None
    keyring_version: int = 0
    keyring: Keyring | None = field(default=None, repr=False)
    """The newest that was entered; None where none verifies."""
    seconds: float = 0.0
    versions: str = ""
    """Of the archive: `checked`, or why the versions of its objects were not."""
    problems: list[Problem] = field(default_factory=list)
    registered: list[RegisteredBytes] = field(default_factory=list)
    broadcasts: dict[tuple[str, int], Broadcasted] = field(default_factory=dict)
    """By event type and version."""
    newest_ms: int = 0
    """The newest append time of an entry."""
    _heard: Ledger = field(default_factory=lambda: Ledger(0), repr=False)

    @property
    def ok(self) -> bool:
        return not self.problems

    def add(self, position: int | None, code: str, detail: str) -> None:
        """Name a problem. Beyond a bound they are only known to be more."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(self.lane, self.source, position, code, detail))
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append(Problem(self.lane, self.source, None, "more", "and more problems of this lane"))

    def note(self, position: int, event: Event[Any]) -> None:
        """Name an event that the log has at an earlier position already; remember what a registration vouches for.

        Whether anything is missing, or was said differently under one number, is for `audit complete`: the log is
        right to hold that.
        """
        if not self._heard.take(_said(position, event)):
            self.add(position, "sequenced_twice", f"the event {event.id} is in the log before this position already")
        body, append_ms = event.body, event.record.append_time_ms
        self.newest_ms = max(self.newest_ms, append_ms)
        if isinstance(body, SignerChanged):
            self.broadcasts[event.type, body.version] = Broadcasted(_content_sha256(body.keyring), append_ms, position)
        elif isinstance(body, PolicyChanged):
            self.broadcasts[event.type, body.version] = Broadcasted(body.policy_sha256, append_ms, position)
        if isinstance(body, ArtifactRegistered):
            artifact = f"artifact {body.artifact_id}"
            self.registered += [
                RegisteredBytes(self.lane, position, artifact, body.artifact_uri, body.artifact_sha256),
                RegisteredBytes(
                    self.lane, position, f"manifest of {artifact}", body.manifest_uri, body.manifest_sha256
                ),
            ]

    def told(self) -> LaneReport:
        """Without what only the reading needed: what a process hands to the one that asked it."""
        return replace(self, _heard=Ledger(0))


def _content_sha256(envelope: str) -> str:
    """Of what was signed, without the signatures: another set of roots may have signed the same keyring."""
    return sha256_hex(orjson.loads(envelope)["payload"].encode())


def _said(position: int, event: Event[Any]) -> Said:
    return Said(
        position=position,
        type=event.type,
        event_id=event.id,
        signer=event.signer,
        event_hash=event.hash,
        append_ms=event.record.append_time_ms,
        producer=event.producer,
        epoch=event.epoch,
        seq=event.seq,
    )
