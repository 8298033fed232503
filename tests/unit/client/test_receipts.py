"""A receipt proves only by a checkpoint that nobody but the log can have signed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ai_infra.client.receipts import Receipt, Receipts
from ai_infra.events.canonical import canonical_json
from ai_infra.events.statement import EVENT_PAYLOAD_TYPE, event_hash, pae
from ai_infra.objects.reader import FolderReader
from ai_infra.tlog.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from ai_infra.tlog.exceptions import TlogError
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.note import NoteSigner, VerifierKey
from ai_infra.tlog.proof_file import LogProof
from ai_infra.tlog.proofs import TileHashes
from ai_infra.trust.keyring import AUDIT, Key, Keyring, Revocation, Roots
from ai_infra.trust.signers import LocalSigner

LOG, LANE = "example.org/log", 3
ORIGIN = f"{LOG}/lanes/{LANE}"


class World:
    """One lane with one entry, archived in a folder; two audit keys, the first of which has signed its checkpoint."""

    def __init__(self, root: Path) -> None:
        self.signers = {name: LocalSigner.fresh(name) for name in ("audit-1", "audit-2")}
        keys = {name: Key(name, signer.public_key, "", AUDIT) for name, signer in self.signers.items()}
        self.keyring = Keyring(1, 0, Roots({"root": b"r" * 32}, 1), keys, {}, {}, {})
        statement = {"ce_id": "e-1"}
        self.entry = orjson.dumps({"statement": statement}) + b"\nbody"
        self.hash = event_hash(pae(EVENT_PAYLOAD_TYPE, canonical_json(statement)))
        self.reader = FolderReader(root)
        growth = grow(RightEdge(), [self.entry])
        for write in growth.writes:
            path = root / f"lanes/{LANE}" / write.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write.data)
        self.note = sign_checkpoint(
            Checkpoint(ORIGIN, 1, growth.edge.root()), [NoteSigner(ORIGIN, self.signers["audit-1"])]
        )
        (root / f"lanes/{LANE}/checkpoint").write_bytes(self.note)

    def receipt(self) -> Receipt:
        key = VerifierKey(ORIGIN, self.signers["audit-1"].public_key)
        opened = open_checkpoint(self.note, origin=ORIGIN, log_keys=[key])
        proof = LogProof.make(0, opened, TileHashes(1, lambda *_: b""))
        return Receipt("e-1", self.hash, ORIGIN, LANE, 0, 1, self.entry, proof.to_bytes())

    def revoking(self, key: str) -> Keyring:
        return replace(self.keyring, version=2, revocations={key: Revocation(key, 1, "stolen")})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_receipt_by_a_revoked_audit_key_proves_nothing(world: World) -> None:
    receipt = world.receipt()
    assert receipt.verify(world.keyring).checkpoint.size == 1
    assert receipt.verify(world.revoking("audit-2")).checkpoint.size == 1
    with pytest.raises(TlogError):
        receipt.verify(world.revoking("audit-1"))


def test_a_checkpoint_by_a_revoked_audit_key_covers_nothing(world: World) -> None:
    nothing: Any = None  # what is looked for does not matter: the checkpoint is not even opened
    with pytest.raises(TlogError):
        Receipts(world.reader, LOG, LANE, lambda: world.revoking("audit-1")).find(nothing)
