"""in-toto Statement v1: who is spoken of (subjects, by SHA-256), and what is said of them (a predicate of a type)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ai_infra.events.canonical import canonical_json_numbers
from ai_infra.events.exceptions import CanonicalError
from ai_infra.manifest.dsse import Envelope, Sign, sign_envelope
from ai_infra.manifest.exceptions import BadStatement
from ai_infra.manifest.reading import SHA256_HEX, Fields, parse_json

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
_MAX_SUBJECTS: Final = 16


@dataclass(frozen=True, slots=True)
class Subject:
    """Something by its SHA-256 (hex); the name is for people."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Statement:
    """What is signed. `predicate` is a JSON object."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """The statement as canonical JSON."""
        try:
            return canonical_json_numbers(
                {
                    "_type": STATEMENT_TYPE,
                    "subject": [{"name": item.name, "digest": {"sha256": item.sha256}} for item in self.subjects],
                    "predicateType": self.predicate_type,
                    "predicate": dict(self.predicate),
                }
            )
        except CanonicalError as error:
            raise BadStatement(f"the statement has no canonical form: {error}") from error

    def subject(self, name: str) -> str:
        """SHA-256 of the subject of this name; raises BadStatement where there is not exactly one."""
        found = [item.sha256 for item in self.subjects if item.name == name]
        if len(found) != 1:
            raise BadStatement(f"expected one subject named {name!r}, got {[item.name for item in self.subjects]}")
        return found[0]

    @classmethod
    def parse(cls, payload: bytes, predicate_type: str) -> Statement:
        """Read a payload that has been verified. Unknown fields beside the four are ignored, as in-toto asks."""
        fields = Fields(parse_json(payload, BadStatement, "statement"), BadStatement, "statement")
        kind, said = fields.value("_type"), fields.value("predicateType")
        if kind != STATEMENT_TYPE or said != predicate_type:
            raise BadStatement(f"expected {STATEMENT_TYPE} with predicate {predicate_type}, got {kind!r} with {said!r}")
        subjects = tuple(_subject(item) for item in fields.list("subject", _MAX_SUBJECTS))
        if not subjects:
            raise BadStatement("a statement has at least one subject")
        return cls(subjects, predicate_type, fields.object("predicate"))

    def sign(self, sign: Sign, key_id: str, *, public_key: bytes | None = None) -> Envelope:
        """The signed envelope. Raises StatementTooLarge."""
        return sign_envelope(self.to_bytes(), sign, key_id, public_key=public_key)


def open_statement(envelope: Envelope, public_key: bytes, predicate_type: str) -> Statement:
    """Verify an envelope and read the statement from the bytes that were verified."""
    return Statement.parse(envelope.verify(public_key), predicate_type)


def _subject(item: Any) -> Subject:
    fields = Fields(item, BadStatement, "statement.subject[]")
    digest = fields.fields("digest")
    return Subject(fields.text("name") if fields.has("name") else "", digest.text("sha256", SHA256_HEX))
