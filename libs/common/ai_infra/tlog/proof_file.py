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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ai_infra.tlog.checkpoint import OpenedCheckpoint, open_checkpoint, parse_size
from ai_infra.tlog.exceptions import BadProof, MalformedCheckpoint, MalformedNote
from ai_infra.tlog.note import VerifierKey, decode_base64
from ai_infra.tlog.proofs import HashReader, inclusion_proof, verify_inclusion
from ai_infra.tlog.tree import HASH_BYTES, leaf_hash

_HEADER: Final = "c2sp.org/tlog-proof@v1"
MAX_HASHES: Final = 63  # a tree of fewer than 2^63 leaves is at most that high
MAX_PROOF_BYTES: Final = 16 << 20  # a checkpoint is bounded by itself; `extra` may carry keyrings and an entry
FILE_EXTENSION: Final = ".tlog-proof"


@dataclass(frozen=True, slots=True)
class LogProof:
    """An entry's index, its inclusion proof, and the checkpoint (note bytes) that it leads to; unverified."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    @classmethod
    def make(cls, index: int, opened: OpenedCheckpoint, hashes: HashReader, *, extra: bytes | None = None) -> LogProof:
        """The proof of leaf `index` under a verified checkpoint, from the hashes of the checkpoint's tree."""
        proof = inclusion_proof(index, opened.checkpoint.size, hashes)
        return cls(index, tuple(proof), opened.note, extra)

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
        if len(data) > MAX_PROOF_BYTES:
            raise BadProof(f"a proof file has at most {MAX_PROOF_BYTES} bytes, not {len(data)}")
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
            hashes = parse_hashes(lines)
        except (MalformedNote, MalformedCheckpoint) as error:
            raise BadProof(f"malformed proof: {error}") from None
        return cls(index, hashes, checkpoint, extra)


def parse_hashes(lines: Sequence[str]) -> tuple[bytes, ...]:
    """The hashes of a proof, one in base64 on each line. Raises BadProof, MalformedNote."""
    if len(lines) > MAX_HASHES:
        raise BadProof(f"a proof has at most {MAX_HASHES} hashes, not {len(lines)}")
    hashes = tuple(decode_base64(line) for line in lines)
    if any(len(item) != HASH_BYTES for item in hashes):
        raise BadProof(f"a proof's hashes have {HASH_BYTES} bytes")
    return hashes


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
