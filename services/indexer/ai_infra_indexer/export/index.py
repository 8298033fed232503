"""What an export says of itself: `index.json`, and `statement.json`, which signs it.

The index names every file with its SHA-256, and for each lane how far it goes. What the audit key signs is a small
statement of the index's SHA-256, since a KMS signs at most 4,096 bytes. Format: docs/log-format.md.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from ai_infra.events.avro import rfc3339
from ai_infra.events.canonical import sha256_hex
from ai_infra.trust.dsse import SignsMessages, sign_document
from ai_infra_indexer.export.selection import Selection

FORMAT: Final = "ai-infra-export/v1"
STATEMENT_TYPE: Final = "application/vnd.ai-infra.export.v1+json"


@dataclass(frozen=True, slots=True)
class Place:
    """An entry, by position and event id."""

    position: int
    event_id: str


@dataclass(frozen=True, slots=True)
class ExportedLane:
    """One lane of an export. `head_hash`: chain hash of the lane's last entry, whether it is shown or not."""

    lane: int
    size: int
    root: bytes
    count: int
    first: Place | None
    last: Place | None
    head_hash: str
    everything: bool

    def document(self) -> dict[str, Any]:
        """As the index has it."""
        said: dict[str, Any] = {
            "lane": self.lane,
            "size": self.size,
            "root": b64encode(self.root).decode(),
            "shows": "all" if self.everything else "a selection",
            "count": self.count,
        }
        for name, place in (("first", self.first), ("last", self.last)):
            if place is not None:
                said[name] = {"position": place.position, "event_id": place.event_id}
        return said | ({"head_hash": self.head_hash} if self.head_hash else {})


@dataclass(frozen=True, slots=True)
class File:
    """A file's size and SHA-256."""

    bytes: int
    sha256: str


def index_json(
    *,
    origin: str,
    made_at: datetime,
    selection: Selection,
    lanes_of_log: int,
    lanes: Sequence[ExportedLane],
    files: Mapping[str, File],
) -> bytes:
    """The text of index.json."""
    said = {
        "format": FORMAT,
        "origin": origin,
        "made_at": rfc3339(made_at),
        "selection": selection.document(),
        "lanes_of_log": lanes_of_log,
        "lanes": [lane.document() for lane in lanes],
        "files": {path: {"bytes": file.bytes, "sha256": file.sha256} for path, file in sorted(files.items())},
    }
    return orjson.dumps(said, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def statement_json(
    index: bytes, signer: SignsMessages, *, origin: str, made_at: datetime, selection: Selection
) -> bytes:
    """The text of statement.json: a DSSE envelope by the audit key. Raises what the signer raises."""
    said = {
        "format": FORMAT,
        "index_sha256": sha256_hex(index),
        "made_at": rfc3339(made_at),
        "origin": origin,
        "selection": selection.document(),
    }
    return (sign_document(STATEMENT_TYPE, said, [signer]) + "\n").encode()
