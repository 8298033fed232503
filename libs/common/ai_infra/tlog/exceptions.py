"""What can be wrong with a log, a note or a proof. Each error has a stable `code` that other programs may rely on."""

from __future__ import annotations

from ai_infra.errors import AiInfraError


class TlogError(AiInfraError):
    """Base of this room's errors."""

    code = "tlog"


class BadFrontier(TlogError):
    """A stored frontier or right edge does not fit its size, or its root is not the expected one."""

    code = "bad_frontier"


class BadTile(TlogError):
    """A tile, an entry bundle or its path is malformed, or not of the width that the tree's size demands."""

    code = "bad_tile"


class EntryTooLarge(TlogError):
    """A log entry is longer than an entry bundle can carry (65,535 bytes)."""

    code = "entry_too_large"


class BadProof(TlogError):
    """An inclusion or consistency proof does not prove what it claims, or is malformed."""

    code = "bad_proof"


class MalformedNote(TlogError):
    """The bytes are not a signed note, or a verifier key is not one."""

    code = "malformed_note"


class BadNoteSignature(TlogError):
    """A signature line names a known key and does not verify: the whole note is rejected."""

    code = "bad_note_signature"


class UnverifiedNote(TlogError):
    """No known key has signed the note, or too few witnesses have."""

    code = "unverified_note"


class MalformedCheckpoint(TlogError):
    """A note's text is not a checkpoint (or not a `heads` text)."""

    code = "malformed_checkpoint"


class WrongOrigin(TlogError):
    """A checkpoint speaks for another log than the expected one."""

    code = "wrong_origin"
