"""C2SP tlog-checkpoint: a log's signed head. The only place from which a size and a root may be taken.

Ours have no extension lines, and a checkpoint that has some is refused: nobody could audit what they say.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ai_infra.tlog.exceptions import MalformedCheckpoint, MalformedNote, UnverifiedNote, WrongOrigin
from ai_infra.tlog.note import (
    COSIGNATURE,
    ED25519,
    NoteSigner,
    OpenedNote,
    VerifiedSignature,
    VerifierKey,
    decode_base64,
    open_note,
    sign_note,
)
from ai_infra.tlog.tree import EMPTY_ROOT, HASH_BYTES, MAX_SIZE

SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's origin, its number of leaves and its root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_origin(self.origin)
        check_head(self.size, self.root)

    @property
    def text(self) -> bytes:
        """The note's text: origin, size in decimal, root in base64, each on its line."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n".encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Read a note's text. The caller has verified the note."""
        lines = text.decode("utf-8").split("\n")
        if len(lines) != 4 or lines[3]:
            raise MalformedCheckpoint(
                f"a checkpoint is three lines (origin, size, root) and no extension, not {len(lines) - 1} lines"
            )
        return cls(lines[0], parse_size(lines[1]), parse_root(lines[2]))


@dataclass(frozen=True, slots=True)
class OpenedCheckpoint:
    """A checkpoint that its log signed, the witnesses whose cosignatures verified, and the note as it was read."""

    checkpoint: Checkpoint
    signed_by: tuple[VerifierKey, ...]
    witnessed: tuple[VerifiedSignature, ...]
    note: bytes


def sign_checkpoint(checkpoint: Checkpoint, signers: Sequence[NoteSigner]) -> bytes:
    """The signed note. By convention the first signer's name is the log's origin."""
    return sign_note(checkpoint.text, signers)


def open_checkpoint(
    data: bytes,
    *,
    origin: str,
    log_keys: Iterable[VerifierKey],
    witnesses: Iterable[VerifierKey] = (),
    quorum: int = 0,
) -> OpenedCheckpoint:
    """Verify a checkpoint: signed by one of `log_keys`, for `origin`, cosigned by at least `quorum` of `witnesses`."""
    log_keys = tuple(log_keys)
    opened, signed_by, witnessed = open_signed_head(data, log_keys, witnesses, quorum)
    checkpoint = Checkpoint.parse(opened.text)
    if checkpoint.origin != origin:
        raise WrongOrigin(f"expected a checkpoint of {origin}, this one is of {checkpoint.origin}")
    return OpenedCheckpoint(checkpoint, signed_by, witnessed, data)


def open_signed_head(
    data: bytes, log_keys: Iterable[VerifierKey], witnesses: Iterable[VerifierKey], quorum: int
) -> tuple[OpenedNote, tuple[VerifierKey, ...], tuple[VerifiedSignature, ...]]:
    """The verified note, the log keys that signed it, and the witnesses' cosignatures."""
    log_keys, witnesses = set(log_keys), set(witnesses)
    if any(key.kind != ED25519 for key in log_keys) or any(key.kind != COSIGNATURE for key in witnesses):
        raise MalformedNote("log keys are of type 0x01 and witnesses' keys of type 0x04")
    opened = open_note(data, log_keys | witnesses)
    signed_by = tuple(item.key for item in opened.verified if item.key in log_keys)
    witnessed = tuple(item for item in opened.verified if item.key in witnesses)
    if not signed_by:
        raise UnverifiedNote(f"the log itself has not signed: expected one of {sorted(key.name for key in log_keys)}")
    # One name with two keys is one witness, and so is one key under two names.
    distinct = min(len({item.key.name for item in witnessed}), len({item.key.public_key for item in witnessed}))
    if distinct < quorum:
        raise UnverifiedNote(f"{distinct} known witnesses have cosigned, {quorum} are needed")
    return opened, signed_by, witnessed


def check_origin(origin: str) -> None:
    """Raise MalformedCheckpoint unless this can be the first line of a checkpoint."""
    if not origin or any(char < " " for char in origin):
        raise MalformedCheckpoint(f"an origin is one line of text that is not empty, not {origin!r}")


def check_head(size: int, root: bytes) -> None:
    """Raise MalformedCheckpoint unless this can be the head of a tree."""
    if not 0 <= size <= MAX_SIZE or len(root) != HASH_BYTES:
        raise MalformedCheckpoint(f"a head is a size below 2^63 and {HASH_BYTES} bytes, not {size} and {len(root)}")
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedCheckpoint("the root of an empty tree is SHA-256 of nothing")


def parse_size(text: str) -> int:
    """A decimal without leading zeros, below 2^63."""
    if not SIZE.fullmatch(text) or int(text) > MAX_SIZE:
        raise MalformedCheckpoint(f"a tree size is a decimal below 2^63 without leading zeros, not {text[:40]!r}")
    return int(text)


def parse_root(text: str) -> bytes:
    """32 bytes in standard base64."""
    try:
        root = decode_base64(text)
    except MalformedNote as error:
        raise MalformedCheckpoint(f"the root is {error}") from None
    if len(root) != HASH_BYTES:
        raise MalformedCheckpoint(f"a root is {HASH_BYTES} bytes, not {len(root)}")
    return root
