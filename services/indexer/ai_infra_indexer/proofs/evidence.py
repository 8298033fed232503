"""What a proof about an event carries beside its inclusion proof: the `extra` line of a C2SP tlog-proof, in JSON.

The log entry (record, delegation and signature are in it), the schema of its body, and every keyring that was entered
into the lane up to the checkpoint, as the log entry that brought it, with an inclusion proof of its own. None of it is
authenticated by being here: `checking.py` believes of it what hashes, signatures and the checkpoint vouch for.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ai_infra.tlog.exceptions import BadProof, MalformedNote
from ai_infra.tlog.note import decode_base64

VERSION: Final = 1
_KEYS: Final = frozenset({"entry", "keyrings", "lanes", "schema", "v"})


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A log entry with its inclusion proof under the file's checkpoint."""

    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """`lanes`: how many lanes the log has; `schema`: of the event's body, for readers without our schemas."""

    entry: bytes
    schema: str
    keyrings: tuple[Enclosed, ...]
    lanes: int

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        return orjson.dumps(
            {
                "entry": _text(self.entry),
                "keyrings": [
                    {"entry": _text(item.entry), "proof": [_text(part) for part in item.proof]}
                    for item in self.keyrings
                ],
                "lanes": self.lanes,
                "schema": self.schema,
                "v": VERSION,
            }
        )

    @classmethod
    def parse(cls, data: bytes | None) -> Evidence:
        """Read it; nothing is verified by this. Raises BadProof."""
        if data is None:
            raise BadProof(
                "the proof carries no entry: it shows that something is in the log, not what. `ai-infra audit prove` "
                "writes one that can be checked by itself"
            )
        try:
            said: Any = orjson.loads(data)
            if not isinstance(said, dict) or said.get("v") != VERSION or said.keys() != _KEYS:
                raise BadProof(f"expected evidence of version {VERSION} with {', '.join(sorted(_KEYS))}")
            lanes, schema = said["lanes"], said["schema"]
            if type(lanes) is not int or not 1 <= lanes <= 1024 or not isinstance(schema, str):
                raise BadProof("the evidence's `lanes` is a number from 1 to 1024, its `schema` a text")
            keyrings = tuple(
                Enclosed(_bytes(item["entry"]), tuple(_bytes(part) for part in item["proof"]))
                for item in said["keyrings"]
            )
            return cls(_bytes(said["entry"]), schema, keyrings, lanes)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, MalformedNote) as error:
            raise BadProof(f"the evidence beside the proof can't be read: {error}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("expected base64")
    return decode_base64(text)
