"""The signed note `heads`: the heads of all lanes at one moment, so that no lane can be shown older than another.

Our own format (C2SP has none for a group of logs). Its text:

    <log origin>/heads
    heads/v1
    time <unix milliseconds>
    lane 0 <size> <base64 root>
    lane 1 <size> <base64 root>
    ...

Every lane is there, in order. The second line is not a decimal, so these bytes can never be read as a checkpoint, and a
checkpoint never as heads. One Ed25519 signature by the log's audit key is needed; witnesses may cosign as they cosign
a checkpoint. This module must never sign heads that their writer has not read from the lanes' verified checkpoints.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ai_infra.tlog.checkpoint import check_head, check_origin, open_signed_head, parse_root, parse_size
from ai_infra.tlog.exceptions import MalformedCheckpoint, WrongOrigin
from ai_infra.tlog.note import NoteSigner, VerifiedSignature, VerifierKey, sign_note

_HEADER: Final = "heads/v1"


def lane_origin(log_origin: str, lane: int) -> str:
    """Origin of one lane's log: `<log origin>/lanes/<p>`."""
    return f"{log_origin}/lanes/{lane}"


def heads_origin(log_origin: str) -> str:
    """Origin of the heads over all lanes: `<log origin>/heads`."""
    return f"{log_origin}/heads"


@dataclass(frozen=True, slots=True)
class LaneHead:
    """Size and root (32 bytes) of one lane's tree."""

    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_head(self.size, self.root)


@dataclass(frozen=True, slots=True)
class Heads:
    """All lanes' heads, lane 0 first. `origin` ends in `/heads` (see heads_origin); `time_ms` is unix milliseconds."""

    origin: str
    time_ms: int
    lanes: tuple[LaneHead, ...]

    def __post_init__(self) -> None:
        check_origin(self.origin)
        if not 0 <= self.time_ms < 1 << 53:
            raise MalformedCheckpoint(f"the heads' time is unix milliseconds, not {self.time_ms}")
        if not self.lanes:
            raise MalformedCheckpoint("a log has at least one lane")

    @property
    def text(self) -> bytes:
        """The note's text."""
        lines = [self.origin, _HEADER, f"time {self.time_ms}"]
        for lane, head in enumerate(self.lanes):
            lines.append(f"lane {lane} {head.size} {base64.b64encode(head.root).decode()}")
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> Heads:
        """Read a note's text. The caller has verified the note."""
        lines = text.decode("utf-8").split("\n")
        if len(lines) < 5 or lines[1] != _HEADER or lines[-1] or not lines[2].startswith("time "):
            raise MalformedCheckpoint(f"expected an origin, '{_HEADER}', 'time <ms>' and a line for each lane")
        heads: list[LaneHead] = []
        for lane, line in enumerate(lines[3:-1]):
            words = line.split(" ")
            if len(words) != 4 or words[:2] != ["lane", str(lane)]:
                raise MalformedCheckpoint(f"expected 'lane {lane} <size> <root>', got {line[:80]!r}")
            heads.append(LaneHead(parse_size(words[2]), parse_root(words[3])))
        return cls(lines[0], parse_size(lines[2].removeprefix("time ")), tuple(heads))


@dataclass(frozen=True, slots=True)
class OpenedHeads:
    """Heads that the log signed, the witnesses whose cosignatures verified, and the note as it was read."""

    heads: Heads
    signed_by: tuple[VerifierKey, ...]
    witnessed: tuple[VerifiedSignature, ...]
    note: bytes


def sign_heads(heads: Heads, signers: Sequence[NoteSigner]) -> bytes:
    """The signed note. A KMS signs at most 4,096 bytes: enough for 50 lanes of any size."""
    return sign_note(heads.text, signers)


def open_heads(
    data: bytes,
    *,
    origin: str,
    log_keys: Iterable[VerifierKey],
    witnesses: Iterable[VerifierKey] = (),
    quorum: int = 0,
) -> OpenedHeads:
    """Verify heads: signed by one of `log_keys`, for `origin` (`<log origin>/heads`)."""
    opened, signed_by, witnessed = open_signed_head(data, log_keys, witnesses, quorum)
    heads = Heads.parse(opened.text)
    if heads.origin != origin:
        raise WrongOrigin(f"expected the heads of {origin}, these are of {heads.origin}")
    return OpenedHeads(heads, signed_by, witnessed, data)
