"""C2SP tlog-proof: one file that proves, offline, that an entry is in a log. What a receipt is made of.

    c2sp.org/tlog-proof@v1
    extra <base64>                (optional; authenticated by nothing)
    index <decimal>
    <base64 hash>                 (the inclusion proof, from the leaf's sibling up)

    <the log's checkpoint, verbatim>

Size and root are taken from the checkpoint after its signature has been verified, from nowhere else. `extra` must never
be believed.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ai_infra.tlog.checkpoint import OpenedCheckpoint, open_checkpoint, parse_size
from ai_infra.tlog.exceptions import BadProof, MalformedCheckpoint, MalformedNote
from ai_infra.tlog.note import MAX_NOTE_BYTES, VerifierKey, decode_base64
from ai_infra.tlog.proofs import verify_inclusion
from ai_infra.tlog.tree import HASH_BYTES, leaf_hash

_HEADER: Final = "c2sp.org/tlog-proof@v1"
_MAX_HASHES: Final = 63  # a tree of fewer than 2^63 leaves is at most that high
FILE_EXTENSION: Final = ".tlog-proof"


@dataclass(frozen=True, slots=True)
class LogProof:
    """An entry's index, its inclusion proof, and the checkpoint (note bytes) that it leads to; unverified."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def to_bytes(self) -> bytes:
        """The proof file."""
        lines = [_HEADER]
        if self.extra is not None:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        lines.append(f"index {self.index}")
        lines += [base64.b64encode(item).decode() for item in self.hashes]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> LogProof:
        """Read a proof file; nothing in it is verified by this."""
        if len(data) > MAX_NOTE_BYTES:
            raise BadProof(f"a proof file has at most {MAX_NOTE_BYTES} bytes, not {len(data)}")
        head, blank, checkpoint = data.partition(b"\n\n")
        if not blank or not checkpoint:
            raise BadProof("expected a proof, a blank line and a checkpoint")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeDecodeError:
            raise BadProof("a proof is ASCII down to its checkpoint") from None
        if lines.pop(0) != _HEADER:
            raise BadProof(f"a proof file begins with {_HEADER!r}")
        try:
            extra = None
            if lines and lines[0].startswith("extra "):
                extra = decode_base64(lines.pop(0).removeprefix("extra "))
            if not lines or not lines[0].startswith("index "):
                raise BadProof("expected a line 'index <decimal>'")
            index = parse_size(lines.pop(0).removeprefix("index "))
            hashes = tuple(decode_base64(line) for line in lines)
        except (MalformedNote, MalformedCheckpoint) as error:
            raise BadProof(f"malformed proof: {error}") from None
        if len(hashes) > _MAX_HASHES or any(len(item) != HASH_BYTES for item in hashes):
            raise BadProof(f"a proof has at most {_MAX_HASHES} hashes of {HASH_BYTES} bytes")
        return cls(index, hashes, checkpoint, extra)


def verify_log_proof(
    data: bytes,
    *,
    entry: bytes,
    origin: str,
    log_keys: Iterable[VerifierKey],
    witnesses: Iterable[VerifierKey] = (),
    quorum: int = 0,
) -> OpenedCheckpoint:
    """Verify that `entry` is in the log; returns the checkpoint that it is under. Raises a TlogError otherwise."""
    proof = LogProof.parse(data)
    opened = open_checkpoint(proof.checkpoint, origin=origin, log_keys=log_keys, witnesses=witnesses, quorum=quorum)
    verify_inclusion(
        leaf=leaf_hash(entry),
        index=proof.index,
        size=opened.checkpoint.size,
        proof=proof.hashes,
        root=opened.checkpoint.root,
    )
    return opened
