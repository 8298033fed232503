"""Signed notes: the examples of C2SP signed-note, and everything that must not pass."""

from __future__ import annotations

import pytest
from nacl.signing import SigningKey

from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.exceptions import BadNoteSignature, MalformedNote, UnverifiedNote
from ai_infra.tlog.note import (
    COSIGNATURE,
    NoteSigner,
    VerifierKey,
    open_note,
    parse_note,
    parse_vkey,
    sign_note,
)

# The example of the specification, byte for byte.
SPEC_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()


class Key:
    """An Ed25519 key in memory."""

    def __init__(self, seed: int) -> None:
        self._key = SigningKey(bytes([seed]) * 32)
        self.public_key = bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


ALICE = NoteSigner("example.com/alice", Key(1))
BOB = NoteSigner("example.com/bob", Key(2))
WITNESS = NoteSigner("witness.example/w1", Key(3), COSIGNATURE)
TEXT = b"text\nmore\n"


def test_the_specifications_example_verifies() -> None:
    key = parse_vkey(SPEC_VKEY)
    assert str(key) == SPEC_VKEY
    assert open_note(SPEC_NOTE, [key]).text == b"This is an example message.\n"


def test_the_example_changed_in_any_byte_of_its_text_is_rejected() -> None:
    key = parse_vkey(SPEC_VKEY)
    for at in range(len(b"This is an example message.")):
        changed = SPEC_NOTE[:at] + bytes([SPEC_NOTE[at] ^ 1]) + SPEC_NOTE[at + 1 :]
        with pytest.raises(BadNoteSignature):
            open_note(changed, [key])


def test_a_note_names_all_who_signed_it_and_each_known_key_is_verified() -> None:
    note = sign_note(TEXT, [ALICE, BOB])
    opened = open_note(note, [BOB.verifier, ALICE.verifier])
    assert opened.text == TEXT
    assert {item.key for item in opened.verified} == {ALICE.verifier, BOB.verifier}


def test_unknown_keys_are_ignored() -> None:
    note = sign_note(TEXT, [ALICE, BOB])
    assert [item.key for item in open_note(note, [BOB.verifier]).verified] == [BOB.verifier]


def test_a_known_key_that_fails_rejects_the_note_even_if_another_is_good() -> None:
    other = sign_note(b"other\n", [BOB])
    mixed = sign_note(TEXT, [ALICE]) + other.split(b"\n\n")[1]
    assert open_note(mixed, [ALICE.verifier]).text == TEXT
    with pytest.raises(BadNoteSignature):
        open_note(mixed, [ALICE.verifier, BOB.verifier])


def test_a_second_failing_line_of_a_key_that_signed_well_rejects_the_note() -> None:
    bad = sign_note(b"other\n", [ALICE]).split(b"\n\n")[1]
    with pytest.raises(BadNoteSignature):
        open_note(sign_note(TEXT, [ALICE]) + bad, [ALICE.verifier])


def test_a_key_that_signed_twice_counts_once() -> None:
    line = sign_note(TEXT, [ALICE]).split(b"\n\n")[1]
    assert len(open_note(sign_note(TEXT, [ALICE]) + line, [ALICE.verifier]).verified) == 1


def test_a_note_that_no_known_key_signed_is_not_opened() -> None:
    with pytest.raises(UnverifiedNote, match="bob"):
        open_note(sign_note(TEXT, [ALICE]), [BOB.verifier])
    with pytest.raises(UnverifiedNote):
        open_note(sign_note(TEXT, [ALICE]), [])


def test_a_key_of_the_same_name_or_the_same_bytes_is_another_key() -> None:
    note = sign_note(TEXT, [ALICE])
    for key in (
        VerifierKey(ALICE.name, BOB.key.public_key),
        VerifierKey("example.com/eve", ALICE.key.public_key),
        VerifierKey(ALICE.name, ALICE.key.public_key, COSIGNATURE),
    ):
        with pytest.raises(UnverifiedNote):
            open_note(note, [key])


def test_the_text_ends_at_the_last_blank_line() -> None:
    text = b"first\n\nsecond\n\n\nthird\n"
    note = sign_note(text, [ALICE])
    assert open_note(note, [ALICE.verifier]).text == text


def test_a_reader_accepts_sixteen_signatures_and_large_ones_of_unknown_kinds() -> None:
    strangers = [NoteSigner(f"example.com/{i}", Key(100 + i)) for i in range(16)]
    note = sign_note(TEXT, [*strangers, ALICE])
    post_quantum = "— example.com/pq ".encode() + b"A" * 4 * 1000 + b"\n"
    assert open_note(note + post_quantum, [ALICE.verifier]).text == TEXT


GOOD = sign_note(TEXT, [ALICE])
LINE = GOOD.split(b"\n\n")[1]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"text\n",
        b"text\n\n",
        TEXT + LINE,
        TEXT + b"\n" + LINE[:-1],
        TEXT + b"\n" + LINE + b"\n",
        TEXT + b"\n" + LINE + b"trailing",
        TEXT + b"\n" + LINE + b"trailing\n",
        TEXT.replace(b"\n", b"\r\n") + b"\n" + LINE,
        b"\x00" + GOOD,
        b"\xff" + GOOD,
        b"tab\there\n\n" + LINE,
        TEXT + b"\n" + LINE.replace("—".encode(), b"-"),
        TEXT + b"\n" + LINE.replace("— ".encode(), "—".encode()),
        TEXT + b"\n" + LINE.replace(b"=", b""),
        TEXT + b"\n" + LINE[:-3] + b"!!\n",
        TEXT + b"\n" + "— example.com/alice\n".encode(),
        TEXT + b"\n" + "— example.com/alice AAAAAA==\n".encode(),
        TEXT + b"\n" + "—  AAAAAAAA\n".encode(),
        TEXT + b"\n" + "— a+b AAAAAAAA\n".encode(),
        TEXT + b"\n" + "— a\u00a0b AAAAAAAA\n".encode(),
        TEXT + b"\n" + "— a b AAAAAAAA\n".encode(),
        TEXT + b"\n" + LINE * 200,
        b"x" * (1 << 20) + GOOD,
    ],
)
def test_what_is_not_a_note_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedNote):
        parse_note(data)


def test_base64_has_one_spelling() -> None:
    line = LINE.rstrip(b"\n")
    spelled = line[:-3] + bytes([line[-3] + 1]) + line[-2:] + b"\n"  # the unused bits of the last digit
    with pytest.raises((MalformedNote, BadNoteSignature)):
        open_note(TEXT + b"\n" + spelled, [ALICE.verifier])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "example.com/foo",
        "example.com/foo+530d903a",
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903b+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530D903A+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AukyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U",
        "example.com/foo bar+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k\n",
    ],
)
def test_what_is_not_a_verifier_key_is_refused(vkey: str) -> None:
    with pytest.raises(MalformedNote):
        parse_vkey(vkey)


@pytest.mark.parametrize("text", [b"", b"no newline", b"bell\x07\n", b"\xff\n", b"x" * 4096 + b"\n"])
def test_a_text_that_no_note_can_have_is_never_signed(text: bytes) -> None:
    with pytest.raises(MalformedNote):
        sign_note(text, [ALICE])


def test_a_signing_service_that_answers_with_a_wrong_signature_is_found_out() -> None:
    class Liar(Key):
        def sign(self, message: bytes) -> bytes:
            return super().sign(message + b"!")

    with pytest.raises(BadNoteSignature):
        sign_note(TEXT, [NoteSigner("example.com/liar", Liar(4))])
    with pytest.raises(BadNoteSignature):
        cosign(GOOD, NoteSigner("witness.example/liar", Liar(4), COSIGNATURE), 1)


def test_a_cosignature_says_when_and_is_added_to_the_lines_that_are_there() -> None:
    note = cosign(GOOD, WITNESS, 1_679_315_147)
    assert note.startswith(GOOD)
    opened = open_note(note, [ALICE.verifier, WITNESS.verifier])
    assert [item.timestamp for item in opened.verified] == [None, 1_679_315_147]


def test_a_cosignature_of_another_time_or_text_is_rejected() -> None:
    parsed = parse_note(cosign(GOOD, WITNESS, 1_679_315_147))
    line = parsed.signatures[1]
    later = (1_679_315_148).to_bytes(8, "big") + line.signature[8:]
    for text, blob in ((parsed.text, later), (b"other\n", line.signature), (parsed.text, line.signature[8:])):
        with pytest.raises(BadNoteSignature):
            WITNESS.verifier.verify(text, blob)
    with pytest.raises(BadNoteSignature, match="2\\^63"):
        WITNESS.verifier.verify(parsed.text, b"\xff" * 8 + line.signature[8:])


def test_a_notes_key_never_cosigns_nor_a_witness_signs() -> None:
    with pytest.raises(MalformedNote):
        cosign(GOOD, BOB, 1)
    with pytest.raises(MalformedNote):
        sign_note(TEXT, [WITNESS])
