"""C2SP signed notes: text that names its signers, in a form that fits on a page.

The text of a note must never be used before `open_note` has verified a signature by a known key: `parse_note` alone
says nothing about who wrote it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Protocol

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from ai_infra.tlog.exceptions import BadNoteSignature, MalformedNote, UnverifiedNote

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04  # timestamped Ed25519, C2SP tlog-cosignature
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAX_NOTE_BYTES: Final = 1 << 20
MAX_SIGNATURES: Final = 128  # a reader must accept 16; post-quantum lines are 5 kB, so bytes are bounded too
MAX_SIGNED_BYTES: Final = 4096  # what AWS KMS signs in one call; notes that we write stay below it

_DASH: Final = "— "
_VKEY: Final = re.compile(r"(?P<name>[^+]+)\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]+={0,2})")


class SigningKey(Protocol):
    """An Ed25519 key that signs: local, or in a KMS."""

    @property
    def public_key(self) -> bytes:
        """32 raw bytes (RFC 8032)."""
        ...

    def sign(self, message: bytes) -> bytes:
        """64 raw bytes over the message."""
        ...


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name and kind that its signature lines carry; `str()` is its vkey."""

    name: str
    public_key: bytes
    kind: int = ED25519

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if self.kind not in (ED25519, COSIGNATURE):
            raise MalformedNote(f"key {self.name}: expected signature type 0x01 or 0x04, got {self.kind:#04x}")
        if len(self.public_key) != KEY_BYTES:
            raise MalformedNote(f"key {self.name}: an Ed25519 key is {KEY_BYTES} bytes, not {len(self.public_key)}")

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || kind || public key)[:4]."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([self.kind]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """Raise BadNoteSignature unless this key signed `text`; returns the time of a cosignature, in unix seconds."""
        timestamp = None
        message = text
        if self.kind == COSIGNATURE:
            if len(signature) != 8 + SIGNATURE_BYTES:
                raise BadNoteSignature(f"{self.name}: a cosignature is 72 bytes, not {len(signature)}")
            timestamp = int.from_bytes(signature[:8], "big")
            signature = signature[8:]
            message = cosigned_message(text, timestamp)
        try:
            if len(signature) != SIGNATURE_BYTES:
                raise BadSignatureError
            VerifyKey(self.public_key).verify(message, signature)
        except BadSignatureError:
            raise BadNoteSignature(f"the signature by known key {self.name} does not verify") from None
        return timestamp


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """A signing key and the name under which it signs notes."""

    name: str
    key: SigningKey
    kind: int = ED25519

    @property
    def verifier(self) -> VerifierKey:
        """The key that verifies what this one signs."""
        return VerifierKey(self.name, self.key.public_key, self.kind)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line. Nothing in it is trusted before a known key verified it."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def line(self) -> bytes:
        """The line, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n".encode()


@dataclass(frozen=True, slots=True)
class Note:
    """A parsed note, unverified. `text` includes its final newline."""

    text: bytes
    signatures: tuple[NoteSignature, ...]

    def to_bytes(self) -> bytes:
        """The note's bytes."""
        return self.text + b"\n" + b"".join(signature.line for signature in self.signatures)


@dataclass(frozen=True, slots=True)
class VerifiedSignature:
    """A known key that signed, and when, where it is a cosignature (unix seconds)."""

    key: VerifierKey
    timestamp: int | None


@dataclass(frozen=True, slots=True)
class OpenedNote:
    """A note of which at least one known key's signature has been verified, and none failed."""

    text: bytes
    note: Note
    verified: tuple[VerifiedSignature, ...]


def sign_note(text: bytes, signers: Sequence[NoteSigner]) -> bytes:
    """Sign `text` (which ends in a newline) with each Ed25519 signer, in this order. Cosigning is `cosign`."""
    check_text(text)
    if not signers:
        raise MalformedNote("a note has at least one signature: pass a signer")
    if len(text) > MAX_SIGNED_BYTES:
        raise MalformedNote(f"a note that a KMS can sign has at most {MAX_SIGNED_BYTES} bytes of text, not {len(text)}")
    signatures = []
    for signer in signers:
        if signer.kind != ED25519:
            raise MalformedNote(f"key {signer.name} cosigns checkpoints: use cosign()")
        signature = signer.key.sign(text)
        signer.verifier.verify(text, signature)  # a signing service's answer is never released unverified
        signatures.append(NoteSignature(signer.name, signer.verifier.key_id, signature))
    return Note(text, tuple(signatures)).to_bytes()


def parse_note(data: bytes) -> Note:
    """Split a note at its last blank line. The result is not verified."""
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedNote(f"a note has at most {MAX_NOTE_BYTES} bytes, not {len(data)}")
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedNote("a note is valid UTF-8, these bytes are not") from None
    if any(char < " " and char != "\n" for char in decoded):
        raise MalformedNote("a note has no control characters but newlines")
    text, blank, lines = decoded.rpartition("\n\n")
    if not blank:
        raise MalformedNote("expected text, a blank line and signature lines; there is no blank line")
    if not lines.endswith("\n"):
        raise MalformedNote("the last signature line does not end in a newline (truncated, or no signature at all)")
    parts = lines[:-1].split("\n")
    if len(parts) > MAX_SIGNATURES:
        raise MalformedNote(f"a note has at most {MAX_SIGNATURES} signatures, not {len(parts)}")
    return Note(f"{text}\n".encode(), tuple(_parse_signature(line) for line in parts))


def open_note(data: bytes, known: Iterable[VerifierKey]) -> OpenedNote:
    """Verify a note: unknown keys are ignored, a known key that fails rejects it, one known key must have signed."""
    note = parse_note(data)
    by_id = {(key.name, key.key_id): key for key in known}
    verified: dict[VerifierKey, VerifiedSignature] = {}
    for line in note.signatures:
        key = by_id.get((line.name, line.key_id))
        if key is not None:
            timestamp = key.verify(note.text, line.signature)
            verified.setdefault(key, VerifiedSignature(key, timestamp))
    if not verified:
        names = ", ".join(sorted({key.name for key in by_id.values()})) or "none"
        raise UnverifiedNote(f"no known key signed this note (known: {names})")
    return OpenedNote(note.text, note, tuple(verified.values()))


def parse_vkey(text: str) -> VerifierKey:
    """Read `name+hex(key id)+base64(kind || public key)`; the key id must be the one that the key has."""
    match = _VKEY.fullmatch(text)
    if match is None:
        raise MalformedNote(f"a verifier key is <name>+<8 hex digits>+<base64>, not {text!r}")
    material = decode_base64(match["key"])
    if len(material) != 1 + KEY_BYTES:
        raise MalformedNote(f"verifier key {match['name']}: expected 1 + {KEY_BYTES} bytes, got {len(material)}")
    key = VerifierKey(match["name"], material[1:], material[0])
    if key.key_id.hex() != match["id"]:
        raise MalformedNote(f"verifier key {key.name} has key id {key.key_id.hex()}, its text says {match['id']}")
    return key


def cosigned_message(text: bytes, timestamp: int) -> bytes:
    """What a witness signs: two lines of its own, then the note's text."""
    if not 0 <= timestamp < 1 << 63:
        raise BadNoteSignature(f"a cosignature's time is below 2^63 seconds, not {timestamp}")
    return f"cosignature/v1\ntime {timestamp}\n".encode() + text


def check_key_name(name: str) -> None:
    """Raise MalformedNote unless the name is not empty and has no white space, plus sign or control character."""
    if not name or any(char.isspace() or char < " " or char == "+" for char in name):
        raise MalformedNote(f"a key name is not empty and has neither white space nor '+', not {name!r}")


def check_text(text: bytes) -> None:
    """Raise MalformedNote unless the bytes can be the text of a note."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedNote("the text of a note is valid UTF-8") from None
    if not decoded.endswith("\n") or any(char < " " and char != "\n" for char in decoded):
        raise MalformedNote("the text of a note ends in a newline and has no other control character")


def decode_base64(text: str) -> bytes:
    """Standard base64 with padding, the one canonical spelling; anything else raises MalformedNote."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedNote(f"not standard base64: {text[:80]!r}") from None
    if base64.b64encode(data).decode() != text:
        raise MalformedNote(f"not canonical base64: {text[:80]!r}")
    return data


def _parse_signature(line: str) -> NoteSignature:
    if not line.startswith(_DASH):
        raise MalformedNote(f"a signature line starts with an em dash and a space: {line[:80]!r}")
    name, space, encoded = line[len(_DASH) :].partition(" ")
    if not space:
        raise MalformedNote(f"a signature line is '— <name> <base64>': {line[:80]!r}")
    check_key_name(name)
    blob = decode_base64(encoded)
    if len(blob) <= 4:
        raise MalformedNote(f"the signature of {name} is a 4 byte key id and a signature, not {len(blob)} bytes")
    return NoteSignature(name, blob[:4], blob[4:])
