"""Entries as a proof file encloses them: decoded, placed, verified, or the proof fails and says in what way."""

from __future__ import annotations

from typing import Any

from ai_infra.events.event import Event
from ai_infra.events.exceptions import EventError
from ai_infra.trust.exceptions import KeyringError, TrustError
from ai_infra_indexer.entry import Entry, decode
from ai_infra_indexer.exceptions import IndexerError, MalformedEntry
from ai_infra_indexer.replay import LaneVerifier


class NotProven(IndexerError):
    """The file does not prove what it should. `code` says in what way."""

    code = "not_proven"


def decoded(raw: bytes, lane: int, what: str) -> Entry:
    """The entry, if it is one, says that it is of this lane, and belongs there."""
    try:
        entry = decode(raw)
    except MalformedEntry as error:
        raise NotProven(f"{what} is no log entry: {error}", code=error.code) from error
    if entry.lane != lane:
        raise NotProven(f"{what} says that it is of lane {entry.lane}, the checkpoint is of {lane}", code="misplaced")
    if entry.partition != entry.home:
        raise NotProven(
            f"{what} is entered into lane {lane} and of partition {entry.partition}, expected {entry.home}: it belongs "
            "into another lane",
            code="wrong_lane",
        )
    return entry


def verified(verifier: LaneVerifier, entry: Entry, what: str) -> Event[Any]:
    """Its event, by the keyrings that the verifier has; a keyring that it brings is taken in."""
    try:
        event = verifier.verify(entry.record())
    except (EventError, TrustError, KeyringError, MalformedEntry) as error:
        raise NotProven(f"{what} at position {entry.position} does not verify: {error}", code=error.code) from error
    if event.hash != entry.event_hash:
        raise NotProven(f"{what} at position {entry.position} is not what was signed", code="bad_statement")
    return event
