"""Keyrings and policies, told to everybody again as the log has them.

A keyring proves itself by the roots, so its record is sent again as it was, whoever's delegation has run out since. A
policy is judged by who brings it: its record is sent again where it still counts, else an operator says it anew.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

from ai_infra.bus.announce import announce, publish_keyring, published_keyrings, send_again
from ai_infra.bus.broadcast import Broadcast
from ai_infra.cli.reading import LogReader
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event, Record
from ai_infra.events.exceptions import EventError
from ai_infra.events.generated import PolicyChanged, SignerChanged
from ai_infra.events.parse import read
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import TrustError
from ai_infra_indexer.decisions import LaneEvents
from ai_infra_indexer.exceptions import IndexerError
from ai_infra_indexer.order import Source

CATCH_UP_SECONDS: Final = 30.0


class AnotherHistory(IndexerError):
    """Kafka tells of another keyring or policy than the log."""

    code = "another_history"


@dataclass(frozen=True, slots=True)
class Told:
    """Versions that everybody knows now, and how many of them had to be said again."""

    keyring: int
    policy: int
    keyrings_sent: int
    policies_sent: int


def tell(settings: Settings, lanes: Sequence[LaneEvents], reason: str) -> Told:
    """Have the broadcast topics say what the log says. Raises AnotherHistory, and what publishing raises."""
    keyrings = _versions(lanes, SignerChanged)
    policies = _versions(lanes, PolicyChanged)
    if not keyrings:
        raise AnotherHistory("the log has no keyring: is this the archive, and are these its lanes?")
    known, _ = published_keyrings(settings)
    sent = [v for v in keyrings if v > known.latest_version]
    for event in keyrings.values():
        known.accept(event.body.keyring)  # raises where Kafka has another one of that version
    for version in sent:
        send_again(settings, keyrings[version].record)
    # A lane that has not entered a version yet will look for it: then somebody must bring it whose word still counts.
    for version in sorted({v for lane in lanes for v in keyrings.keys() - _of(lane, SignerChanged)}):
        publish_keyring(settings, keyrings[version].body.keyring, reason)
    said = _tell_policies(settings, policies, reason)
    with closing(Broadcast(settings, service="restore")) as broadcast:
        broadcast.catch_up(CATCH_UP_SECONDS)
        newest = broadcast.keyrings.latest_version, broadcast.policy.version
    if newest[0] < max(keyrings) or newest[1] < max(policies, default=0):
        raise AnotherHistory(
            f"after all was said again, readers know keyring {newest[0]} and policy {newest[1]}; the log has "
            f"{max(keyrings)} and {max(policies, default=0)}: a record there stands in the way (`ai-infra events list "
            "--unverified`)"
        )
    return Told(newest[0], newest[1], len(sent), said)


def places(settings: Settings, lane: LaneEvents) -> dict[Source, int]:
    """Where a lane goes on reading the broadcast topics: at the first version that its log lacks."""
    found: dict[Source, int] = {}
    reader = LogReader(settings)
    for kind in (SignerChanged, PolicyChanged):
        source, has = (kind.TOPIC, 0), _of(lane, kind)
        found[source] = reader.admin.committed_ends([source])[source]
        for record in reader.whole([source]):
            version = _version(record)
            if version is not None and version not in has:
                found[source] = min(found[source], record.offset)
    return found


def _tell_policies(settings: Settings, policies: Mapping[int, Event[Any]], reason: str) -> int:
    with closing(Broadcast(settings, service="restore")) as broadcast:
        broadcast.catch_up(CATCH_UP_SECONDS)
        known = broadcast.policy
        wanted = policies.get(known.version)
        if known.version and (wanted is None or wanted.body.policy_sha256 != known.sha256):
            raise AnotherHistory(f"policy version {known.version} in Kafka is not the one in the log")
        missing = [v for v in sorted(policies) if v > known.version]
        for version in missing:
            event = policies[version]
            try:
                now = replace(event.record, append_time_ms=time.time_ns() // 1_000_000)
                broadcast.verifier.verify(now, caught_up=True)
            except (EventError, TrustError):
                announce(settings, replace(event.body, reason=reason), broadcast.keyrings)
            else:
                send_again(settings, event.record)
    return len(missing)


def _versions(lanes: Sequence[LaneEvents], kind: type[SignerChanged] | type[PolicyChanged]) -> dict[int, Event[Any]]:
    """The first event of each version, in their order, without a gap: as every reader takes them in."""
    found: dict[int, Event[Any]] = {}
    for lane in lanes:
        for placed in lane.placed:
            if isinstance(body := placed.event.body, kind):
                found.setdefault(body.version, placed.event)
    first = min(found, default=1)
    return {v: found[v] for n, v in enumerate(sorted(found)) if v == first + n}


def _of(lane: LaneEvents, kind: type[SignerChanged] | type[PolicyChanged]) -> set[int]:
    return {body.version for p in lane.placed if isinstance(body := p.event.body, kind)}


def _version(record: Record) -> int | None:
    try:
        body = read(record, 1).decode()
    except AiInfraError:
        return None
    return body.version if isinstance(body, SignerChanged | PolicyChanged) else None
