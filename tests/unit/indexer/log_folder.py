"""A whole small log in a folder, as the indexer archives it, with everybody's keys: to be checked, and to be forged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ai_infra.events.event import Event, Record
from ai_infra.events.generated import JobStatusKind
from ai_infra.events.lanes import lane_of
from ai_infra.events.parse import read
from ai_infra.events.schemas import KNOWN
from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.growth import RightEdge, grow
from ai_infra.tlog.heads import Heads, LaneHead, sign_heads
from ai_infra.tlog.note import NoteSigner
from ai_infra.trust.certificate import certify_chain_key
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer.sequence import Head, sequence

ORIGIN = "example.org/log"
LANES = 4
LONG = 300  # entries of lane 0: a full bundle and a partial one


def model_in(lane: int) -> str:
    """A model of that lane."""
    return next(name for name in map("model-{}".format, range(100)) if lane_of(name, LANES) == lane)


def unverified(record: Record) -> Event[Any]:
    """The event in a record as a writer would take it who verifies nothing."""
    found = read(record, LANES)
    return Event(
        body=found.decode(),
        attributes=found.attributes,
        record=found.record,
        lane=found.lane,
        model=found.model,
        hash=found.hash,
        message=found.message,
        principal="",
    )


@dataclass
class LogFolder:
    """Lanes by number; `records` are what was said, `raws` the entries that they became."""

    root: Path
    worlds: dict[int, Any]
    records: dict[int, list[Record]] = field(default_factory=dict)
    raws: dict[int, list[bytes]] = field(default_factory=dict)

    @classmethod
    def make(cls, root: Path, make_world: Callable[[], Any]) -> LogFolder:
        """Four lanes with a story each, the first of them longer than a bundle."""
        worlds = {lane: make_world() for lane in range(LANES)}
        log = cls(root, worlds)
        for lane, world in worlds.items():
            world.model = model_in(lane)
            log.records[lane] = [world.keyring_record(), *world.story()]
        world = worlds[0]
        while len(log.records[0]) < LONG:
            log.records[0].append(
                world.say("trainer", world.status(JobStatusKind.RUNNING, attempt=len(log.records[0])))
            )
        for lane in worlds:
            log.enter(lane, log.records[lane])
        log.write_companions()
        return log

    def enter(
        self,
        lane: int,
        records: Sequence[Record],
        *,
        chain: LocalSigner | None = None,
        audit: LocalSigner | None = None,
        kept: Iterable[int] = (),
    ) -> list[bytes]:
        """Sequence records into a lane from its start, verified by nobody, and archive it."""
        world = self.worlds[lane]
        events = [unverified(record) for record in records]
        lines, _ = sequence(Head(lane, f"{ORIGIN}/lanes/{lane}"), events, chain or world.chain())
        return self.archive(lane, [line.raw for line in lines], audit=audit, kept=kept or ((256,) if lane == 0 else ()))

    def archive(
        self,
        lane: int,
        raws: list[bytes],
        *,
        audit: LocalSigner | None = None,
        origin: str = "",
        kept: Iterable[int] = (),
    ) -> list[bytes]:
        """Tiles, bundles and checkpoint of these entries."""
        prefix, edge = self.root / f"lanes/{lane}", RightEdge()
        for at in range(0, len(raws), 256):
            growth = grow(edge, raws[at : at + 256])
            edge = growth.edge
            for write in growth.writes:
                put(prefix / write.path, write.data)
            if edge.size in kept:
                put(prefix / f"checkpoints/{edge.size:020d}", self.note(lane, edge.size, edge.root()))
        put(prefix / "checkpoint", self.note(lane, edge.size, edge.root(), audit=audit, origin=origin))
        self.raws[lane] = raws
        return raws

    def note(self, lane: int, size: int, root: bytes, *, audit: LocalSigner | None = None, origin: str = "") -> bytes:
        """A signed checkpoint."""
        name = origin or f"{ORIGIN}/lanes/{lane}"
        signer = audit or self.worlds[lane].signers["audit-1"]
        return sign_checkpoint(Checkpoint(name, size, root), [NoteSigner(name, signer)])

    def heads(self, sizes: dict[int, tuple[int, bytes]] | None = None, audit: LocalSigner | None = None) -> bytes:
        """Signed heads: of the lanes as they are, or as said."""
        lanes = []
        for lane in range(LANES):
            edge = RightEdge()
            for at in range(0, len(self.raws[lane]), 256):
                edge = grow(edge, self.raws[lane][at : at + 256]).edge
            size, root = (sizes or {}).get(lane, (edge.size, edge.root()))
            lanes.append(LaneHead(size, root))
        name = f"{ORIGIN}/heads"
        signer = NoteSigner(name, audit or self.worlds[0].signers["audit-1"])
        return sign_heads(Heads(name, 1_790_000_000_000, tuple(lanes)), [signer])

    def write_companions(self) -> None:
        """What lies beside the lanes."""
        for sha256, text in KNOWN.items():
            put(self.root / f"schemas/{sha256}.avsc", text.encode())
        world = self.worlds[0]
        chain = world.chain()
        certificate = certify_chain_key(
            world.signers["audit-1"], "chain-1", chain.public_key, issued_at=world.keyring.created_at
        )
        put(self.root / "trust/chain-1.certificate.json", certificate.encode())
        put(self.root / "heads", self.heads())


def put(path: Path, data: bytes) -> None:
    """Write a file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
