"""A lane's entries, one after the other, each verified as it was when it was entered.

Everything that a reader can recompute is: place, chain, time, payload, and the event itself by the keyring that the
lane had at that position. It needs the pinned root keys and nothing else. Live indexing does not come through here;
restoring, rebuilding and auditing do.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from ai_infra.bus.redrive import read_redrive
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import SignerChanged
from ai_infra.trust.ed25519 import verifies
from ai_infra.trust.exceptions import KeyringError, TrustError
from ai_infra.trust.keyring import CHAIN
from ai_infra.trust.keyring_event import take_keyring_event
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.verify import Verdict, Verifier
from ai_infra_indexer import kernel
from ai_infra_indexer.entry import Entry, Link, decode
from ai_infra_indexer.exceptions import IndexerError, MalformedEntry
from ai_infra_indexer.sequence import Head, Line, line_of

RETRY: Final = "indexer.retry"
TOGETHER: Final = 64  # entries of which each step is done before the next one


class BadEntry(IndexerError):
    """An entry that is not what it should be at its place. `code` says in what way."""

    code = "bad_entry"


class LaneVerifier:
    """Verifies records by the keyrings that were entered into one lane, up to here."""

    def __init__(self, keyrings: Keyrings, lanes: int, verifier: Verifier | None = None) -> None:
        """`verifier`: one of these keyrings that asks a schema registry; what is replayed needs none."""
        self.keyrings = keyrings
        self._verifier = verifier if verifier is not None else Verifier(keyrings, lanes)
        self.lanes = lanes

    def verify(self, record: Record, *, caught_up: bool = True) -> Event[Any]:
        """The event in a record. A keyring is taken in, once it and the event that brings it verify.

        Raises EventError, TrustError, KeyringError; AwaitKeyring where not `caught_up` and the keyring is newer.
        """
        if record.topic == SignerChanged.TOPIC:
            return take_keyring_event(record, self.keyrings, self._verifier, self.lanes)
        return self._verifier.verify(record, caught_up=caught_up)

    def verify_each(self, records: Sequence[Record], *, caught_up: bool = True) -> list[Verdict]:
        """What `verify` returns or raises for each of these records, none of which brings a keyring."""
        return self._verifier.verify_each(records, caught_up=caught_up)

    def original(self, record: Record) -> Record:
        """The record that an operator has redriven, for one of the retry topic; any other as it is."""
        return read_redrive(record, self._verifier) if record.topic == RETRY else record


class Replay:
    """Reads one lane from `head` on. `take` raises BadEntry and does not move; `resume_after` steps over."""

    def __init__(self, head: Head, keyrings: Keyrings, lanes: int, *, chain_signatures: bool) -> None:
        """`chain_signatures`: whether to verify each row's signature; the chain of hashes always is."""
        self.head = head
        self.verifier = LaneVerifier(keyrings, lanes)
        self._chain_signatures = chain_signatures

    @property
    def keyrings(self) -> Keyrings:
        return self.verifier.keyrings

    def take(self, raw: bytes) -> Line:
        """The line of the next entry. Raises BadEntry."""
        entry = self._decoded(raw)
        _check_place(self.head, entry)
        try:
            event = self.verifier.verify(entry.record())
        except (EventError, TrustError, KeyringError) as error:
            raise BadEntry(f"the event {entry.event_id} does not verify: {error}", code=error.code) from error
        except MalformedEntry as error:
            raise BadEntry(error.message, code=error.code) from error
        line = self._line(entry, event)
        if self._chain_signatures:
            check_chain_signature(self.keyrings, line.link)
        self.head = _after(self.head, entry)
        return line

    def take_all(self, raws: Sequence[bytes]) -> list[Line]:
        """The lines of the next entries up to the first bad one, of which `take` then tells what is wrong.

        Each step is done for some before the next one: signatures in a row take a fifth less time than each between the
        reading of two entries, for which the processor's caches are too small; and so they are for what is known of
        many entries, which is why it is not all of them at once.
        """
        lines: list[Line] = []
        try:
            while len(lines) < len(raws):
                together = self._together(raws[len(lines) : len(lines) + TOGETHER])
                lines += together if together else [self.take(raws[len(lines)])]
        except AiInfraError:
            with suppress(BadEntry):
                while len(lines) < len(raws):
                    lines.append(self.take(raws[len(lines)]))
        return lines

    def _together(self, raws: Sequence[bytes]) -> list[Line]:
        """Up to the next keyring, by which what is behind it is judged. Has not moved when it raises."""
        head, entries = self.head, list[Entry]()
        for raw in raws:
            entry = decode(raw)
            if entry.type == SignerChanged.TOPIC:
                break
            _check_place(head, entry)
            head = _after(head, entry)
            entries.append(entry)
        if not entries:
            return []
        lines = []
        for entry, event in zip(entries, self.verifier.verify_each([e.record() for e in entries]), strict=True):
            if isinstance(event, Exception):
                raise event
            lines.append(self._line(entry, event))
        if self._chain_signatures:
            for line in lines:
                check_chain_signature(self.keyrings, line.link)
        self.head = head
        return lines

    def resume_after(self, raw: bytes | None) -> None:
        """Step over a bad entry, so that the ones behind it can be judged."""
        head = self.head
        try:
            entry = decode(raw) if raw is not None else None
        except MalformedEntry:
            entry = None
        if entry is not None and entry.position == head.size:
            self.head = _after(head, entry)
        else:
            self.head = Head(head.lane, head.origin, head.size + 1, "?", 0)

    def _decoded(self, raw: bytes) -> Entry:
        try:
            return decode(raw)
        except MalformedEntry as error:
            raise BadEntry(error.message, code=error.code) from error

    def _line(self, entry: Entry, event: Event[Any]) -> Line:
        if entry.message != event.message:
            raise BadEntry("its statement is not the one that its event was signed with", code="bad_statement")
        try:
            line = line_of(entry, event)
        except AiInfraError as error:
            raise BadEntry(error.message, code=error.code) from error
        link = line.link
        digest = kernel.chain_hash(line.payload, link.prev_hash).hex()
        if digest != link.hash:
            raise BadEntry(f"its chain hash is {link.hash}, its payload gives {digest}", code="bad_chain_hash")
        if link.id != event.id:
            raise BadEntry(f"its chain row is about {link.id}, its event is {event.id}", code="broken_chain")
        return line


def _check_place(head: Head, entry: Entry) -> None:
    if (entry.lane, entry.position) != (head.lane, head.size):
        raise BadEntry(
            f"expected entry {head.size} of lane {head.lane}; this is entry {entry.position} of lane {entry.lane}",
            code="wrong_position",
        )
    if entry.partition != entry.home:
        raise BadEntry(
            f"expected an event of partition {entry.home} in lane {entry.lane}; {entry.type} {entry.event_id} is of "
            f"partition {entry.partition}: it belongs into another lane",
            code="wrong_lane",
        )
    if head.head_hash != "?" and entry.link.prev_hash != (head.head_hash or None):
        raise BadEntry(
            f"its previous hash is {entry.link.prev_hash}, the entry before has {head.head_hash or 'none'}",
            code="broken_chain",
        )
    expected = max(entry.append_time_ms * 1000, head.last_ts_us + 1)
    if head.head_hash != "?" and entry.link.ts_us != expected:
        raise BadEntry(f"its time is {entry.link.ts_us} us, expected {expected}", code="bad_time")


def check_chain_signature(keyrings: Keyrings, link: Link) -> None:
    """Raise BadEntry unless a chain key that the keyring has and has not revoked signed the row."""
    signer_id = link.signer_id
    key = keyrings.latest.key_of(signer_id, CHAIN)
    if key is None:
        raise BadEntry(f"{signer_id!r} is no chain key of the keyring", code="unknown_chain_key")
    if signer_id in keyrings.latest.revocations:
        raise BadEntry(f"its chain row is signed by {signer_id}, which was revoked before", code="revoked_key")
    if not verifies(bytes.fromhex(link.hash), binascii.a2b_base64(link.signature), key.public_key):
        raise BadEntry(f"its chain row is not signed by {signer_id}", code="bad_chain_signature")


def _after(head: Head, entry: Entry) -> Head:
    return Head(head.lane, head.origin, entry.position + 1, entry.link.hash, entry.link.ts_us)
