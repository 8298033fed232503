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
_LAST_MS: Final = 253_402_300_799_999
_RAN_KEYS: Final = frozenset({"at", "between", "next"})
_BETWEEN_KEYS: Final = frozenset({"consistency", "entries", "frontier"})


@dataclass(frozen=True, slots=True)
class Enclosed:
    """A log entry with its inclusion proof under the file's checkpoint."""

    entry: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Between:
    """The entries that follow the event without a gap: `frontier` of the tree before the event, the entries, and the
    proof that the tree which ends with them is the beginning of the checkpoint's."""

    frontier: tuple[bytes, ...]
    entries: tuple[bytes, ...]
    consistency: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Ran:
    """About a time (ms since the epoch): that the event, a deployment.changed, was the newest of its model and
    environment then. All entries in between, or the change that came next, or neither."""

    at_ms: int
    between: Between | None
    following: Enclosed | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """`lanes`: how many lanes the log has; `schema`: of the event's body, for readers without our schemas."""

    entry: bytes
    schema: str
    keyrings: tuple[Enclosed, ...]
    lanes: int
    ran: Ran | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        said: dict[str, Any] = {
            "entry": _text(self.entry),
            "keyrings": [_enclosed(item) for item in self.keyrings],
            "lanes": self.lanes,
            "schema": self.schema,
            "v": VERSION,
        }
        if self.ran is not None:
            said["ran"] = _ran(self.ran)
        return orjson.dumps(said, option=orjson.OPT_SORT_KEYS)

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
            if not isinstance(said, dict) or said.get("v") != VERSION or said.keys() - {"ran"} != _KEYS:
                raise BadProof(f"expected evidence of version {VERSION} with {', '.join(sorted(_KEYS))}")
            lanes, schema = said["lanes"], said["schema"]
            if type(lanes) is not int or not 1 <= lanes <= 1024 or not isinstance(schema, str):
                raise BadProof("the evidence's `lanes` is a number from 1 to 1024, its `schema` a text")
            keyrings = tuple(map(_read_enclosed, said["keyrings"]))
            ran = _read_ran(said["ran"]) if "ran" in said else None
            return cls(_bytes(said["entry"]), schema, keyrings, lanes, ran)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, MalformedNote) as error:
            raise BadProof(f"the evidence beside the proof can't be read: {error}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("expected base64")
    return decode_base64(text)


def _enclosed(item: Enclosed) -> dict[str, Any]:
    return {"entry": _text(item.entry), "proof": [_text(part) for part in item.proof]}


def _read_enclosed(said: Any) -> Enclosed:
    return Enclosed(_bytes(said["entry"]), tuple(_bytes(part) for part in said["proof"]))


def _ran(ran: Ran) -> dict[str, Any]:
    between = None
    if ran.between is not None:
        between = {name: [_text(item) for item in getattr(ran.between, name)] for name in sorted(_BETWEEN_KEYS)}
    return {
        "at": ran.at_ms,
        "between": between,
        "next": None if ran.following is None else _enclosed(ran.following),
    }


def _read_ran(said: Any) -> Ran:
    if not isinstance(said, dict) or said.keys() != _RAN_KEYS:
        raise BadProof(f"expected `ran` with {', '.join(sorted(_RAN_KEYS))}")
    if type(said["at"]) is not int or not 0 <= said["at"] <= _LAST_MS:
        raise BadProof(f"expected `at` of `ran` as milliseconds since 1970, at most {_LAST_MS}, which is the year 9999")
    between, following = said["between"], said["next"]
    if between is not None and following is not None:
        raise BadProof("expected either all entries in between, or the next change; both are there")
    if between is not None and (not isinstance(between, dict) or between.keys() != _BETWEEN_KEYS):
        raise BadProof(f"expected `between` with {', '.join(sorted(_BETWEEN_KEYS))}")
    return Ran(
        said["at"],
        None if between is None else Between(**{name: tuple(map(_bytes, between[name])) for name in _BETWEEN_KEYS}),
        None if following is None else _read_enclosed(following),
    )
