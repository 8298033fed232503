"""A proof file is checked with pinned keys alone, and fails for every part of it that was changed."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from tests.unit.indexer.log_folder import unverified

from ai_infra.errors import AiInfraError
from ai_infra.events import schemas
from ai_infra.events.canonical import sha256_hex
from ai_infra.events.generated import JobStatusKind, SignerChanged
from ai_infra.objects.reader import FolderReader
from ai_infra.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ai_infra.tlog.consistency_file import ConsistencyFile, verify_consistency_file
from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.exceptions import TlogError, WrongOrigin
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import COSIGNATURE, NoteSigner, VerifierKey
from ai_infra.tlog.proof_file import LogProof, verify_log_proof
from ai_infra.trust.keyring import Revocation
from ai_infra.trust.keyring_document import sign_keyring, verify_keyring
from ai_infra.trust.keyring_files import latest_keyring
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.entry import decode
from ai_infra_indexer.proofs.checking import check_event_proof
from ai_infra_indexer.proofs.entries import NotProven
from ai_infra_indexer.proofs.evidence import Evidence
from ai_infra_indexer.proofs.making import (
    NotProvable,
    find_event,
    find_keyrings,
    kept_checkpoint,
    prove_consistency,
    prove_event,
)
from ai_infra_indexer.sequence import Head, sequence

ORIGIN = "example.org/log"
LANES = 4
ENTRIES = 300


def write_archive(root: Path, world: Any, raws: list[bytes], *, pauses: tuple[int, ...] = ()) -> ArchivedLane:
    """A lane as the indexer archives it, with a checkpoint kept at each pause."""
    lane, edge, origin = root / f"lanes/{world.lane}", RightEdge(), f"{ORIGIN}/lanes/{world.lane}"
    for size in (*pauses, len(raws)):
        growth = grow(edge, raws[edge.size : size])
        edge = growth.edge
        for write in growth.writes:
            path = lane / write.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write.data)
        note = sign_checkpoint(
            Checkpoint(origin, edge.size, edge.root()), [NoteSigner(origin, world.signers["audit-1"])]
        )
        (lane / "checkpoint").write_bytes(note)
        (lane / "checkpoints").mkdir(exist_ok=True)
        (lane / f"checkpoints/{size:020d}").write_bytes(note)
    return ArchivedLane(FolderReader(root), ORIGIN, world.lane)


def opened(archived: ArchivedLane, world: Any, note: bytes | None = None) -> Any:
    note = note or archived.note()
    assert note is not None
    return archived.checkpoint(note, world.keyring)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> tuple[ArchivedLane, Any, list[Any]]:
    world = make_world()
    records = [world.keyring_record(), *world.story()]
    while len(records) < ENTRIES:
        records.append(world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=len(records))))
    verifier = world.verifier()
    events = [verifier.verify(record) for record in records]
    lines, _ = sequence(Head(world.lane, f"{ORIGIN}/lanes/{world.lane}"), events, world.chain())
    archived = write_archive(tmp_path_factory.mktemp("log"), world, [line.raw for line in lines], pauses=(100, 257))
    return archived, world, events


@pytest.fixture(scope="module")
def proof(log: tuple[ArchivedLane, Any, list[Any]]) -> bytes:
    archived, world, _ = log
    return prove_event(archived, opened(archived, world), 4, find_keyrings(archived, ENTRIES), lanes=LANES)


@pytest.mark.parametrize("position", [0, 1, 255, 256, 299])
def test_a_proof_tells_all_about_its_event_with_nothing_but_the_roots(
    log: tuple[ArchivedLane, Any, list[Any]], position: int
) -> None:
    archived, world, events = log
    data = prove_event(archived, opened(archived, world), position, find_keyrings(archived, ENTRIES), lanes=LANES)
    found = check_event_proof(data, world.roots, log_origin=ORIGIN)
    event = events[position]
    assert (found.position, found.event_id, found.type, found.principal) == (
        position,
        event.id,
        event.type,
        event.principal,
    )
    assert (found.event_hash, found.signer, found.keyring, found.size) == (event.hash, event.signer, 1, ENTRIES)
    assert found.appended == event.append_time
    assert find_event(archived, event.id, ENTRIES) == position


def test_the_proof_part_is_a_public_tlog_proof(log: tuple[ArchivedLane, Any, list[Any]], proof: bytes) -> None:
    archived, world, _ = log
    parsed = LogProof.parse(proof)
    assert parsed.to_bytes() == proof
    key = VerifierKey(archived.origin, world.signers["audit-1"].public_key)
    entry = Evidence.parse(parsed.extra).entry
    assert verify_log_proof(proof, entry=entry, origin=archived.origin, log_keys=[key]).checkpoint.size == ENTRIES
    bare = LogProof(parsed.index, parsed.hashes, parsed.checkpoint).to_bytes()
    verify_log_proof(bare, entry=entry, origin=archived.origin, log_keys=[key])


def test_a_pinned_log_key_must_be_the_one_that_signed(log: tuple[ArchivedLane, Any, list[Any]], proof: bytes) -> None:
    _, world, _ = log
    check_event_proof(proof, world.roots, log_keys=[world.signers["audit-1"].public_key])
    with pytest.raises(AiInfraError) as error:
        check_event_proof(proof, world.roots, log_keys=[world.signers["manifest-1"].public_key])
    assert error.value.code == "unknown_log_key"


def test_witnesses_that_are_asked_for_must_have_cosigned(
    log: tuple[ArchivedLane, Any, list[Any]], proof: bytes
) -> None:
    _, world, _ = log
    witness = NoteSigner("witness.example/w1", LocalSigner.fresh("w1"), COSIGNATURE)
    with pytest.raises(AiInfraError) as error:
        check_event_proof(proof, world.roots, witnesses=[witness.verifier], quorum=1)
    assert error.value.code == "unverified_note"
    parsed = LogProof.parse(proof)
    cosigned = replace(parsed, checkpoint=cosign(parsed.checkpoint, witness, 1_780_000_000)).to_bytes()
    found = check_event_proof(cosigned, world.roots, witnesses=[witness.verifier], quorum=1)
    assert [item.name for item in found.witnesses] == ["witness.example/w1"]
    assert not any("witness" in line for line in found.not_proven)


def _changed(proof: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    parsed = LogProof.parse(proof)
    said = orjson.loads(parsed.extra or b"")
    change(said)
    return replace(parsed, extra=orjson.dumps(said)).to_bytes()


def _flip(text: str, at: int) -> str:
    data = bytearray(base64.b64decode(text))
    data[at] ^= 1
    return base64.b64encode(bytes(data)).decode()


def _spare_bit(said: dict[str, Any]) -> None:
    """The same bytes of an entry, in a base64 that sets a bit which a lenient reader drops."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = said["keyrings"][0]["proof"][0]
    last = text.rstrip("=")[-1]
    said["keyrings"][0]["proof"][0] = text.rstrip("=")[:-1] + letters[letters.index(last) ^ 1] + "="


def _swap_entry(said: dict[str, Any]) -> None:
    said["entry"], said["keyrings"][0]["entry"] = said["keyrings"][0]["entry"], said["entry"]


def _hashes(proof: bytes, change: Callable[[tuple[bytes, ...]], tuple[bytes, ...]]) -> bytes:
    parsed = LogProof.parse(proof)
    return replace(parsed, hashes=change(parsed.hashes)).to_bytes()


MUST_FAIL: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda p: p[:-20],
    "bytes behind it": lambda p: p + b"x",
    "no evidence": lambda p: replace(LogProof.parse(p), extra=None).to_bytes(),
    "evidence that is no JSON": lambda p: replace(LogProof.parse(p), extra=b"{").to_bytes(),
    "evidence of another version": lambda p: _changed(p, lambda s: s.update(v=2)),
    "evidence with more in it": lambda p: _changed(p, lambda s: s.update(more=1)),
    "no keyring": lambda p: _changed(p, lambda s: s.update(keyrings=[])),
    "the keyring twice": lambda p: _changed(p, lambda s: s.update(keyrings=s["keyrings"] * 2)),
    "entry and keyring swapped": lambda p: _changed(p, _swap_entry),
    "a byte of the body": lambda p: _changed(p, lambda s: s.update(entry=_flip(s["entry"], -3))),
    "a byte of the header": lambda p: _changed(p, lambda s: s.update(entry=_flip(s["entry"], 30))),
    "a byte of the keyring": lambda p: _changed(
        p, lambda s: s["keyrings"][0].update(entry=_flip(s["keyrings"][0]["entry"], -200))
    ),
    "a byte of the keyring's proof": lambda p: _changed(
        p, lambda s: s["keyrings"][0]["proof"].__setitem__(0, _flip(s["keyrings"][0]["proof"][0], 3))
    ),
    "a hash in another spelling": lambda p: _changed(p, _spare_bit),
    "another number of lanes": lambda p: _changed(p, lambda s: s.update(lanes=3)),
    "a number of lanes that is none": lambda p: _changed(p, lambda s: s.update(lanes=0)),
    "another schema": lambda p: _changed(p, lambda s: s.update(schema=s["schema"] + " ")),
    "another index": lambda p: replace(LogProof.parse(p), index=5).to_bytes(),
    "a hash less": lambda p: _hashes(p, lambda h: h[:-1]),
    "a hash more": lambda p: _hashes(p, lambda h: (*h, h[0])),
    "siblings swapped": lambda p: _hashes(p, lambda h: (h[1], h[0], *h[2:])),
    "a byte of the root": lambda p: p.replace(b"\n300\n", b"\n301\n"),
    "the checkpoint's signature gone": lambda p: p[: p.rindex("—".encode())],
    "another origin": lambda p: p.replace(b"\nexample.org/log/lanes/", b"\nexample.com/log/lanes/"),
    "an origin that is no lane": lambda p: p.replace(b"example.org/log/lanes/", b"example.org/log/lines/"),
}


def test_no_bit_of_a_proof_file_can_be_changed(log: tuple[ArchivedLane, Any, list[Any]], proof: bytes) -> None:
    """Of those that dice choose, and every one of the last characters of a base64, where spare bits are."""
    _, world, _ = log
    dice = random.Random(7)
    spare = proof.index(b"\nindex ") - 1
    for at in [*dice.sample(range(len(proof)), 300), *range(spare - 4, spare)]:
        changed = bytearray(proof)
        changed[at] ^= 1 << dice.randrange(7)
        with pytest.raises(AiInfraError):
            check_event_proof(bytes(changed), world.roots)


@pytest.mark.parametrize("what", MUST_FAIL)
def test_a_changed_proof_file_proves_nothing(log: tuple[ArchivedLane, Any, list[Any]], proof: bytes, what: str) -> None:
    _, world, _ = log
    changed = MUST_FAIL[what](proof)
    assert changed != proof
    with pytest.raises(AiInfraError):
        check_event_proof(changed, world.roots)


def test_a_proof_of_another_log_or_under_other_roots_is_refused(
    log: tuple[ArchivedLane, Any, list[Any]], proof: bytes
) -> None:
    _, world, _ = log
    with pytest.raises(AiInfraError) as error:
        check_event_proof(proof, world.roots, log_origin="example.org/other")
    assert error.value.code == "wrong_origin"
    others = replace(world.roots, keys={key: bytes([n]) * 32 for n, key in enumerate(world.roots.keys)})
    with pytest.raises(AiInfraError):
        check_event_proof(proof, others)


def test_an_event_that_no_checkpoint_covers_is_not_provable(log: tuple[ArchivedLane, Any, list[Any]]) -> None:
    archived, world, _ = log
    early = opened(archived, world, kept_checkpoint(archived, 100))
    with pytest.raises(NotProvable, match="not final yet"):
        prove_event(archived, early, 100, [0], lanes=LANES)
    proof = prove_event(archived, early, 99, [0], lanes=LANES, size=ENTRIES)
    assert check_event_proof(proof, world.roots).size == 100


def test_a_retroactive_revocation_makes_an_event_void_and_the_proof_says_so(
    keys: Path, make_world: Callable[[], Any], tmp_path: Path
) -> None:
    world = make_world()
    records = [world.keyring_record(), *world.story()]
    first = latest_keyring(keys)
    assert first is not None
    roots = [LocalSigner(path.stem, _private(path)) for path in sorted((keys / "private").glob("root-*.key"))]

    def revoked(position: int) -> str:
        revocation = Revocation("trainer-1", int(world.clock.timestamp() * 1000), "stolen", {world.lane: position})
        return sign_keyring(replace(first, version=2, revocations={"trainer-1": revocation}), roots)

    for position, void in ((2, True), (3, False)):
        text = revoked(position)
        verify_keyring(text, first)
        body = SignerChanged(version=2, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason="stolen")
        verifier = world.verifier()
        events = [verifier.verify(record) for record in [*records, world.say("operator", body)]]
        lines, _ = sequence(Head(world.lane, f"{ORIGIN}/lanes/{world.lane}"), events, world.chain())
        archived = write_archive(tmp_path / str(position), world, [line.raw for line in lines])
        assert decode(lines[2].raw).statement["signer"] == "trainer-1"
        found = find_keyrings(archived, len(lines))
        assert found == [0, len(lines) - 1]
        proof = prove_event(archived, opened(archived, world), 2, found, lanes=LANES)
        if void:
            with pytest.raises(AiInfraError) as error:
                check_event_proof(proof, world.roots)
            assert error.value.code == "void"
        else:
            told = check_event_proof(proof, world.roots)
            assert (told.keyring, told.newest_keyring) == (1, 2)


def _private(path: Path) -> bytes:
    from ai_infra.trust.ed25519 import read_private_key

    return read_private_key(path.read_text(), path.stem)


def test_an_event_in_a_schema_that_is_newer_than_the_reader_is_read_by_the_enclosed_one(
    log: tuple[ArchivedLane, Any, list[Any]], proof: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, world, _ = log
    sha256 = decode(Evidence.parse(LogProof.parse(proof).extra).entry).statement["schema_sha256"]
    for table in (schemas._topics, schemas._crcs, schemas._texts):
        monkeypatch.delitem(table, sha256)
    with pytest.raises(AiInfraError):
        check_event_proof(_changed(proof, lambda s: s.update(schema="")), world.roots)
    assert check_event_proof(proof, world.roots).body["artifact_id"] == "art-1"


# --- consistency ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"), [(100, 257), (100, 300), (257, 300), (300, 300), (1, 300), (256, 300), (0, 100)]
)
def test_one_checkpoint_is_shown_to_continue_another(
    log: tuple[ArchivedLane, Any, list[Any]], old: int, new: int
) -> None:
    archived, world, _ = log
    newer = opened(archived, world, kept_checkpoint(archived, new))
    data = prove_consistency(archived, old, newer, size=ENTRIES)
    assert ConsistencyFile.parse(data).to_bytes() == data
    edge = grow(RightEdge(), [raw for _, raws in archived.bundles(0, ENTRIES) for raw in raws][:old]).edge
    before = Checkpoint(archived.origin, old, edge.root())
    key = VerifierKey(archived.origin, world.signers["audit-1"].public_key)
    assert verify_consistency_file(data, old=before, log_keys=[key]).checkpoint.size == new
    if old not in (0, new):
        for wrong in (
            replace(before, root=bytes(32)),
            replace(before, size=old + 1),
            replace(before, origin="example.org/other"),
        ):
            with pytest.raises(TlogError):
                verify_consistency_file(data, old=wrong, log_keys=[key])
        broken = ConsistencyFile.parse(data)
        for hashes in (broken.hashes[:-1], (*broken.hashes, bytes(32)), broken.hashes[::-1], ()):
            if hashes != broken.hashes:
                with pytest.raises(TlogError):
                    verify_consistency_file(replace(broken, hashes=hashes).to_bytes(), old=before, log_keys=[key])


def test_a_size_without_a_signed_checkpoint_is_named(log: tuple[ArchivedLane, Any, list[Any]]) -> None:
    archived, world, _ = log
    with pytest.raises(NotProvable, match=r"100, 257, 300"):
        kept_checkpoint(archived, 200)
    key = VerifierKey(archived.origin, world.signers["audit-1"].public_key)
    note = kept_checkpoint(archived, 257)
    assert open_checkpoint(note, origin=archived.origin, log_keys=[key]).checkpoint.size == 257


@pytest.mark.parametrize("number", ["1" * 5_000, "\N{ARABIC-INDIC DIGIT THREE}", "01", ""], ids=len)
def test_a_lane_that_is_no_number_of_one_is_a_wrong_origin(log: Any, proof: bytes, number: str) -> None:
    made = LogProof.parse(proof)
    lane = made.checkpoint.split(b"\n", 1)[0].rpartition(b"/")[2]
    checkpoint = made.checkpoint.replace(b"/lanes/%s\n" % lane, f"/lanes/{number}\n".encode(), 1)
    with pytest.raises(WrongOrigin) as error:
        check_event_proof(LogProof(made.index, made.hashes, checkpoint, made.extra).to_bytes(), log[1].roots)
    assert len(error.value.message) < 500


def test_an_event_that_was_entered_into_another_lane_than_its_own_is_not_proven_there(
    tmp_path: Path, make_world: Callable[[], Any]
) -> None:
    world = make_world()
    lane = (world.lane + 1) % LANES
    origin = f"{ORIGIN}/lanes/{lane}"
    records = [world.keyring_record(), world.say("orchestrator", world.queued())]
    lines, _ = sequence(Head(lane, origin), [unverified(record) for record in records], world.chain())
    other = SimpleNamespace(lane=lane, signers=world.signers)
    archived = write_archive(tmp_path, other, [line.raw for line in lines])
    data = prove_event(archived, opened(archived, world), 1, [0], lanes=LANES)
    with pytest.raises(NotProven) as error:
        check_event_proof(data, world.roots, log_origin=ORIGIN)
    assert error.value.code == "wrong_lane"
    broadcast = prove_event(archived, opened(archived, world), 0, [0], lanes=LANES)
    assert check_event_proof(broadcast, world.roots, log_origin=ORIGIN).lane == lane
