"""One file that proves, offline, that one tree is the beginning of another: what `audit prove --consistency` writes.

Byte for byte the body of a C2SP tlog-witness `add-checkpoint` request, so a public witness takes it as it is:

    old <size>
    <base64 hash>                 (the consistency proof)

    <the newer checkpoint, verbatim>

The older tree's root is not in it: whoever checks has the older checkpoint, and both must verify before either size or
root is used.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from ai_infra.tlog.checkpoint import Checkpoint, OpenedCheckpoint, open_checkpoint, parse_size
from ai_infra.tlog.exceptions import BadProof, MalformedCheckpoint, MalformedNote
from ai_infra.tlog.note import MAX_NOTE_BYTES, VerifierKey
from ai_infra.tlog.proof_file import parse_hashes
from ai_infra.tlog.proofs import HashReader, consistency_proof, verify_consistency


@dataclass(frozen=True, slots=True)
class ConsistencyFile:
    """The older size, the proof from it, and the newer checkpoint (note bytes); unverified."""

    old_size: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes

    @classmethod
    def make(cls, old_size: int, opened: OpenedCheckpoint, hashes: HashReader) -> ConsistencyFile:
        """The proof from `old_size` leaves to a verified checkpoint, from the hashes of the checkpoint's tree."""
        size = opened.checkpoint.size
        proof = consistency_proof(old_size, size, hashes) if old_size else []  # the empty tree begins every tree
        return cls(old_size, tuple(proof), opened.note)

    def to_bytes(self) -> bytes:
        """The file."""
        lines = [f"old {self.old_size}", *(base64.b64encode(item).decode() for item in self.hashes)]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint

    @classmethod
    def parse(cls, data: bytes) -> ConsistencyFile:
        """Read the file; nothing in it is verified by this."""
        if len(data) > MAX_NOTE_BYTES:
            raise BadProof(f"a consistency proof has at most {MAX_NOTE_BYTES} bytes, not {len(data)}")
        head, blank, checkpoint = data.partition(b"\n\n")
        if not blank or not checkpoint:
            raise BadProof("expected a consistency proof, a blank line and a checkpoint")
        try:
            first, *lines = head.decode("ascii").split("\n")
            if not first.startswith("old "):
                raise BadProof("a consistency proof begins with 'old <size>'")
            return cls(parse_size(first.removeprefix("old ")), parse_hashes(lines), checkpoint)
        except UnicodeDecodeError:
            raise BadProof("a consistency proof is ASCII down to its checkpoint") from None
        except (MalformedNote, MalformedCheckpoint) as error:
            raise BadProof(f"malformed consistency proof: {error}") from None


def verify_consistency_file(
    data: bytes,
    *,
    old: Checkpoint,
    log_keys: Iterable[VerifierKey],
    witnesses: Iterable[VerifierKey] = (),
    quorum: int = 0,
) -> OpenedCheckpoint:
    """The newer checkpoint, if it continues `old`, a verified one. Raises a TlogError otherwise."""
    proof = ConsistencyFile.parse(data)
    if proof.old_size != old.size:
        raise BadProof(f"the proof is from {proof.old_size} leaves, the older checkpoint is of {old.size}")
    opened = open_checkpoint(proof.checkpoint, origin=old.origin, log_keys=log_keys, witnesses=witnesses, quorum=quorum)
    check_continues(old, opened.checkpoint, proof.hashes)
    return opened


def check_continues(old: Checkpoint, new: Checkpoint, proof: tuple[bytes, ...] | list[bytes]) -> None:
    """Raise BadProof unless `new` begins with the tree of `old`: both verified, of one origin."""
    if old.size == 0 and not proof:
        return  # C2SP tlog-witness: the empty tree begins every tree, and needs no proof
    verify_consistency(old_size=old.size, old_root=old.root, new_size=new.size, new_root=new.root, proof=proof)
