"""Checkpoints, heads of all lanes, and proof files: the only places that a size and a root are taken from."""

from __future__ import annotations

import base64

import pytest
from nacl.signing import SigningKey

from ai_infra.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.exceptions import (
    BadProof,
    MalformedCheckpoint,
    MalformedNote,
    TlogError,
    UnverifiedNote,
    WrongOrigin,
)
from ai_infra.tlog.heads import Heads, LaneHead, heads_origin, lane_origin, open_heads, sign_heads
from ai_infra.tlog.note import COSIGNATURE, NoteSigner, sign_note
from ai_infra.tlog.proof_file import LogProof, verify_log_proof
from ai_infra.tlog.proofs import LeafHashes, inclusion_proof
from ai_infra.tlog.tree import EMPTY_ROOT, leaf_hash, root


class Key:
    def __init__(self, seed: int) -> None:
        self._key = SigningKey(bytes([seed]) * 32)
        self.public_key = bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


ORIGIN = lane_origin("example.com/log", 3)
LOG = NoteSigner(ORIGIN, Key(1))
WITNESSES = [NoteSigner(f"witness.example/w{i}", Key(10 + i), COSIGNATURE) for i in range(3)]
ENTRIES = [b"entry %d" % i for i in range(100)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
HEAD = Checkpoint(ORIGIN, 100, root(LEAVES))
NOTE = sign_checkpoint(HEAD, [LOG])


def test_a_checkpoint_reads_back() -> None:
    opened = open_checkpoint(NOTE, origin=ORIGIN, log_keys=[LOG.verifier])
    assert opened.checkpoint == HEAD
    assert opened.signed_by == (LOG.verifier,)


def test_an_empty_log_has_a_checkpoint_too() -> None:
    note = sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), [LOG])
    assert note.startswith(f"{ORIGIN}\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n".encode())
    assert open_checkpoint(note, origin=ORIGIN, log_keys=[LOG.verifier]).checkpoint.size == 0


def test_a_checkpoint_of_another_log_is_refused_even_if_its_key_is_known() -> None:
    with pytest.raises(WrongOrigin, match="lanes/4"):
        open_checkpoint(NOTE, origin=lane_origin("example.com/log", 4), log_keys=[LOG.verifier])


def test_a_rotated_log_key_is_one_of_several_that_count() -> None:
    new = NoteSigner(ORIGIN, Key(2))
    note = sign_checkpoint(HEAD, [new])
    assert open_checkpoint(note, origin=ORIGIN, log_keys=[LOG.verifier, new.verifier]).signed_by == (new.verifier,)


def test_witnesses_are_counted_and_never_stand_in_for_the_log() -> None:
    note = NOTE
    for i, witness in enumerate(WITNESSES[:2]):
        note = cosign(note, witness, 1000 + i)
    keys = {"origin": ORIGIN, "witnesses": [witness.verifier for witness in WITNESSES]}
    opened = open_checkpoint(note, log_keys=[LOG.verifier], quorum=2, **keys)
    assert [item.timestamp for item in opened.witnessed] == [1000, 1001]
    with pytest.raises(UnverifiedNote, match="2 known witnesses have cosigned, 3 are needed"):
        open_checkpoint(note, log_keys=[LOG.verifier], quorum=3, **keys)
    with pytest.raises(UnverifiedNote, match="the log itself"):
        open_checkpoint(note, log_keys=[], quorum=1, **keys)


def test_one_witness_under_two_names_is_one_witness() -> None:
    twin = NoteSigner("witness.example/twin", WITNESSES[0].key, COSIGNATURE)
    note = cosign(cosign(NOTE, WITNESSES[0], 1), twin, 2)
    with pytest.raises(UnverifiedNote):
        open_checkpoint(
            note,
            origin=ORIGIN,
            log_keys=[LOG.verifier],
            witnesses=[WITNESSES[0].verifier, twin.verifier],
            quorum=2,
        )


def test_a_witness_key_is_no_log_key() -> None:
    with pytest.raises(MalformedNote):
        open_checkpoint(NOTE, origin=ORIGIN, log_keys=[WITNESSES[0].verifier])


ROOT64 = base64.b64encode(root(LEAVES)).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n100\n",
        f"{ORIGIN}\n100\n{ROOT64}\nextension\n",
        f"\n100\n{ROOT64}\n",
        f"{ORIGIN}\n0100\n{ROOT64}\n",
        f"{ORIGIN}\n+100\n{ROOT64}\n",
        f"{ORIGIN}\n-1\n{ROOT64}\n",
        f"{ORIGIN}\n 100\n{ROOT64}\n",
        f"{ORIGIN}\n1e2\n{ROOT64}\n",
        f"{ORIGIN}\n١٠٠\n{ROOT64}\n",
        f"{ORIGIN}\n\n{ROOT64}\n",
        f"{ORIGIN}\n9223372036854775808\n{ROOT64}\n",
        f"{ORIGIN}\n99999999999999999999999999\n{ROOT64}\n",
        f"{ORIGIN}\n0\n{ROOT64}\n",
        f"{ORIGIN}\n100\n{ROOT64[:-1]}\n",
        f"{ORIGIN}\n100\n{ROOT64[:-4]}\n",
        f"{ORIGIN}\n100\n{root(LEAVES).hex()}\n",
        f"{ORIGIN}\n100\n{ROOT64} \n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    note = sign_note(text.encode(), [LOG])
    with pytest.raises(MalformedCheckpoint):
        open_checkpoint(note, origin=ORIGIN, log_keys=[LOG.verifier])


def test_heads_bind_all_lanes_at_one_moment() -> None:
    audit = NoteSigner(heads_origin("example.com/log"), Key(7))
    lanes = tuple(LaneHead(size, root(LEAVES[:size])) for size in (0, 17, 100))
    heads = Heads(audit.name, 1_732_147_200_000, lanes)
    opened = open_heads(sign_heads(heads, [audit]), origin=audit.name, log_keys=[audit.verifier])
    assert opened.heads == heads
    with pytest.raises(WrongOrigin):
        open_heads(sign_heads(heads, [audit]), origin="example.com/other/heads", log_keys=[audit.verifier])


def test_heads_are_never_read_as_a_checkpoint_nor_a_checkpoint_as_heads() -> None:
    heads = Heads(ORIGIN, 1, (LaneHead(0, EMPTY_ROOT),))
    with pytest.raises(MalformedCheckpoint):
        open_checkpoint(sign_heads(heads, [LOG]), origin=ORIGIN, log_keys=[LOG.verifier])
    with pytest.raises(MalformedCheckpoint):
        open_heads(NOTE, origin=ORIGIN, log_keys=[LOG.verifier])


def test_fifty_lanes_of_any_size_fit_into_what_a_kms_signs() -> None:
    heads = Heads(heads_origin("log.example.com/production"), 2**52, (LaneHead(2**63 - 1, bytes(32)),) * 50)
    audit = NoteSigner(heads.origin, Key(7))
    assert open_heads(sign_heads(heads, [audit]), origin=heads.origin, log_keys=[audit.verifier]).heads == heads


@pytest.mark.parametrize(
    "text",
    [
        "o\nheads/v1\ntime 1\n",
        "o\nheads/v2\ntime 1\nlane 0 0 {empty}\n",
        "o\nheads/v1\n1\nlane 0 0 {empty}\n",
        "o\nheads/v1\ntime 01\nlane 0 0 {empty}\n",
        "o\nheads/v1\ntime 1\nlane 1 0 {empty}\n",
        "o\nheads/v1\ntime 1\nlane 0 0 {empty}\nlane 2 0 {empty}\n",
        "o\nheads/v1\ntime 1\nlane 0 0 {empty} \n",
        "o\nheads/v1\ntime 1\nlane 0 0 {empty}\n\n",
        "o\nheads/v1\ntime 1\nlane 0 1\n",
        "o\nheads/v1\ntime 1\nlane 0 1 AAAA\n",
    ],
)
def test_a_text_that_is_no_heads_is_refused(text: str) -> None:
    with pytest.raises(MalformedCheckpoint):
        Heads.parse(text.format(empty=base64.b64encode(EMPTY_ROOT).decode()).encode())


def receipt(index: int, /, **change: object) -> bytes:
    proof = inclusion_proof(index, 100, LeafHashes(LEAVES))
    fields = {"index": index, "hashes": tuple(proof), "checkpoint": NOTE, "extra": None} | change
    return LogProof(**fields).to_bytes()


def verify(data: bytes, entry: bytes) -> object:
    return verify_log_proof(data, entry=entry, origin=ORIGIN, log_keys=[LOG.verifier])


def test_a_receipt_of_every_entry_verifies_offline() -> None:
    for index, entry in enumerate(ENTRIES):
        assert LogProof.parse(receipt(index)).to_bytes() == receipt(index)
        verify(receipt(index, extra=b"context" if index % 2 else None), entry)


def test_a_receipt_in_a_tree_of_one_has_no_hashes() -> None:
    head = sign_checkpoint(Checkpoint(ORIGIN, 1, LEAVES[0]), [LOG])
    verify(LogProof(0, (), head).to_bytes(), ENTRIES[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        receipt(7, index=8),
        receipt(7, index=100),
        receipt(7, hashes=()),
        receipt(7, hashes=(bytes(32),) * 7),
        receipt(7, hashes=(bytes(31),) * 7),
        receipt(7, hashes=(bytes(32),) * 64),
        receipt(7, checkpoint=b""),
        receipt(7, checkpoint=HEAD.text),
        receipt(7, checkpoint=sign_checkpoint(HEAD, [NoteSigner(ORIGIN, Key(9))])),
        receipt(7, checkpoint=sign_checkpoint(Checkpoint("example.com/other", 100, HEAD.root), [LOG])),
        receipt(7).replace(b"@v1", b"@v2"),
        receipt(7).replace(b"index 7", b"index 07"),
        receipt(7).replace(b"index 7", b"index -7"),
        receipt(7).replace(b"index 7\n", b""),
        receipt(7).replace(b"index 7\n", b"index 7\nextra AAAA\n"),
        receipt(7, extra=b"x").replace(b"extra eA==", b"extra eA"),
        receipt(7).replace(b"\n\n", b"\n", 1),
        receipt(7) + b"trailing",
        receipt(7)[:-10],
        b"\xff" + receipt(7),
        b"x" * (1 << 20) + receipt(7),
    ],
)
def test_a_receipt_that_proves_nothing_is_refused(data: bytes) -> None:
    with pytest.raises(TlogError):
        verify(data, ENTRIES[7])


def test_a_receipt_is_of_its_entry_alone() -> None:
    with pytest.raises(BadProof):
        verify(receipt(7), ENTRIES[8])
