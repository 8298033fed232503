"""The newest records in the services' own state topics, for commands that show them.

State is believed only when its service has signed it. A record that isn't is passed over: it hides nothing, whoever
has put it behind the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar, cast

from ai_infra.bus.state import decode_record, record_name
from ai_infra.bus.state_records import read_state_record
from ai_infra.cli.reading import LogReader, partitions_of
from ai_infra.errors import AiInfraError
from ai_infra.events.event import Record
from ai_infra.trust.verify import Verifier

R = TypeVar("R")


def newest_states(
    reader: LogReader, verifier: Verifier, lanes: int, service: str, kind: type[R]
) -> Iterator[tuple[int, R]]:
    """(lane, record) for every record of this kind that a service has in its lanes now."""
    prefix = f"{record_name(kind)}/".encode()
    records = reader.whole(partitions_of([f"{service}.state"], range(lanes)))
    for record in newest_proven((r for r in records if (r.key or b"").startswith(prefix)), verifier, service):
        if record.value is not None:
            with suppress(AiInfraError):  # one that this version can't read stops the service, which says so itself
                yield record.partition, cast("R", decode_record(kind, repr(record.key), record.value))


def newest_proven(records: Iterable[Record], verifier: Verifier, service: str) -> Iterator[Record]:
    """Of each key in each partition the last that the service has written, deletions among them."""
    found: dict[tuple[int, bytes], list[Record]] = {}
    for record in records:
        found.setdefault((record.partition, record.key or b""), []).append(record)
    for _, versions in sorted(found.items()):
        for record in sorted(versions, key=_number, reverse=True):  # so that seldom more than one signature is checked
            with suppress(AiInfraError):
                read_state_record(record, verifier, service=service)
                yield record
                break


def _number(record: Record) -> int:
    """The number that the record claims, by which the service's own are in order."""
    try:
        return int(dict(record.headers)["counter"])
    except (KeyError, ValueError):
        return -1
