"""C2SP tlog-cosignature v1: a witness says when it saw that a checkpoint continues all those that it saw before.

The witness must never cosign before it has verified that consistency: this module only writes down that it has.
"""

from __future__ import annotations

from ai_infra.tlog.exceptions import MalformedNote
from ai_infra.tlog.note import COSIGNATURE, Note, NoteSignature, NoteSigner, cosigned_message, parse_note


def cosign(note: bytes, signer: NoteSigner, timestamp: int) -> bytes:
    """The same note with one more signature line by a witness (`kind=COSIGNATURE`) at `timestamp` (unix seconds)."""
    if signer.kind != COSIGNATURE:
        raise MalformedNote(f"key {signer.name} signs notes; a witness's key has kind 0x04")
    parsed = parse_note(note)
    signature = timestamp.to_bytes(8, "big") + signer.key.sign(cosigned_message(parsed.text, timestamp))
    signer.verifier.verify(parsed.text, signature)
    line = NoteSignature(signer.name, signer.verifier.key_id, signature)
    return Note(parsed.text, (*parsed.signatures, line)).to_bytes()
