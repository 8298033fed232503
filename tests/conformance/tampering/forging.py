"""What somebody could do to a log who has written it: with files alone, or with keys that they should not have used."""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from tests.unit.indexer.log_folder import ORIGIN, LogFolder, put, unverified

from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.event import Record
from ai_infra.events.generated import SignerChanged
from ai_infra.events.statement import EVENT_PAYLOAD_TYPE, pae
from ai_infra.tlog.tiles import decode_bundle, encode_bundle
from ai_infra.trust.delegation import DELEGATION_PAYLOAD_TYPE
from ai_infra.trust.keyring import Keyring
from ai_infra.trust.keyring_document import sign_keyring
from ai_infra.trust.session import Session
from ai_infra.trust.signers import LocalSigner
from ai_infra_indexer import kernel
from ai_infra_indexer.entry import decode

Header = dict[str, Any]


@dataclass
class Forger:
    """A copy of a log, to be changed."""

    log: LogFolder

    @classmethod
    def of(cls, log: LogFolder, root: Path) -> Forger:
        shutil.copytree(log.root, root)
        worlds = {lane: replace(world, counters=dict(world.counters)) for lane, world in log.worlds.items()}
        return cls(LogFolder(root, worlds, {k: list(v) for k, v in log.records.items()}, dict(log.raws)))

    @property
    def root(self) -> Path:
        return self.log.root

    def world(self, lane: int = 0) -> Any:
        return self.log.worlds[lane]

    def signer(self, name: str) -> LocalSigner:
        found: LocalSigner = self.world().signers[name]
        return found

    # --- files only -----------------------------------------------------------------------------------------------

    def path(self, path: str, lane: int = 0) -> Path:
        return self.root / f"lanes/{lane}" / path

    def edit(self, path: str, change: Callable[[bytes], bytes], lane: int = 0) -> None:
        place = self.path(path, lane)
        place.write_bytes(change(place.read_bytes()))

    def edit_bundle(self, change: Callable[[list[bytes]], list[bytes]], path: str = "tile/entries/000") -> None:
        self.edit(path, lambda data: encode_bundle(change(decode_bundle(data))))

    def note(self, lane: int, size: int, root: bytes, **changes: Any) -> None:
        put(self.path("checkpoint", lane), self.log.note(lane, size, root, **changes))

    # --- with the keys of the log: chain and tree fit again ---------------------------------------------------------

    def relink(
        self, lane: int, change: Callable[[list[tuple[Header, bytes]]], list[tuple[Header, bytes]]], **keys: Any
    ) -> None:
        """Change entries (header and body), then number, chain, hash and sign them anew, and sign the new tree."""
        entries = [
            (orjson.loads(head), body) for head, _, body in (raw.partition(b"\n") for raw in self.log.raws[lane])
        ]
        chain: LocalSigner = keys.pop("chain", None) or self.signer("chain-1")
        prev, ts, raws = None, 0, []
        for position, (header, body) in enumerate(change(entries)):
            ts = max(header["append_time_ms"] * 1000, ts + 1)
            header |= {"position": position, "lane": lane}
            digest = kernel.chain_hash(self._payload(header, body), prev)
            signature = base64.b64encode(chain.sign(digest)).decode()
            header["chain"] |= {"hash": digest.hex(), "prev_hash": prev, "signature": signature, "ts": ts}
            header["chain"]["signer_id"] = chain.key_id
            prev = digest.hex()
            raws.append(orjson.dumps(header, option=orjson.OPT_SORT_KEYS) + b"\n" + body)
        self.log.archive(lane, raws, kept=(256,) if lane == 0 else (), **keys)
        put(self.root / "heads", self.log.heads())

    @staticmethod
    def _payload(header: Header, body: bytes) -> bytes:
        """What the row's payload is; where nobody can read the entry, any bytes will do."""
        try:
            raw = orjson.dumps({**header, "v": 1}, option=orjson.OPT_SORT_KEYS) + b"\n" + body
            said = unverified(decode(raw).record()).body.to_dict()
            digest = sha256_hex(message_of(header))
            return kernel.payload(
                header["statement"], said, lane=header["lane"], position=header["position"], event_hash=digest
            )
        except Exception:  # noqa: BLE001
            return b"{}"

    def change(self, lane: int, position: int, change: Callable[[Header], Any], body: bytes | None = None) -> None:
        """One entry's header, and its body where one is given."""

        def apply(entries: list[tuple[Header, bytes]]) -> list[tuple[Header, bytes]]:
            header, old = entries[position]
            change(header)
            entries[position] = (header, old if body is None else body)
            return entries

        self.relink(lane, apply)

    def re_sign(
        self, lane: int, position: int, who: str, change: Callable[[Header], Any], body: bytes | None = None
    ) -> None:
        """Change what an entry states, and have `who`, whose session it was, sign that."""
        session = self.world(lane).sessions[who]

        def apply(header: Header) -> None:
            change(header)
            if body is not None:
                header["statement"]["body_sha256"] = sha256_hex(body)
            sign_header(header, session.sign)

        self.change(lane, position, apply, body)

    def edit_entry(self, lane: int, position: int, change: Callable[[Header], Any]) -> None:
        """One entry's header, and nothing after it; the tree is signed anew."""
        raws = list(self.log.raws[lane])
        head, _, body = raws[position].partition(b"\n")
        header = orjson.loads(head)
        change(header)
        raws[position] = orjson.dumps(header, option=orjson.OPT_SORT_KEYS) + b"\n" + body
        self.replant(lane, raws)

    def replant(self, lane: int, raws: list[bytes]) -> None:
        """Sign a tree of these entries."""
        self.log.archive(lane, raws)
        put(self.root / "heads", self.log.heads())

    def append(self, lane: int, *records: Record) -> int:
        """Enter more records, as an indexer that verifies nothing; the position of the first of them."""
        first = len(self.log.records[lane])
        self.log.enter(lane, [*self.log.records[lane], *records])
        put(self.root / "heads", self.log.heads())
        return first

    # --- keyrings and sessions --------------------------------------------------------------------------------------

    def keyring_record(self, lane: int, text: str, version: int) -> Record:
        body = SignerChanged(version=version, keyring=text, keyring_sha256=sha256_hex(text.encode()), reason="next")
        record: Record = self.world(lane).say("operator", body)
        return record

    def next_keyring(
        self, lane: int, change: Callable[[Keyring], Keyring], roots: tuple[str, ...] = ("root-1", "root-2")
    ) -> int:
        """Enter the next version of the keyring, signed by these roots."""
        keyring = change(replace(self.world(lane).keyring, version=2))
        text = sign_keyring(keyring, [self.signer(root) for root in roots])
        return self.append(lane, self.keyring_record(lane, text, keyring.version))

    def session(self, lane: int, who: str, **changes: Any) -> None:
        """Give a voice another session."""
        world = self.world(lane)
        options = {"events": world.keyring.events_of(who)[:12], "keyring_version": lambda: 1} | changes
        signer = options.pop("signer", None) or world.signers[f"{who}-1"]
        world.sessions = {**world.sessions, who: Session(signer, options.pop("service", who), **options)}


def message_of(header: Header) -> bytes:
    return pae(EVENT_PAYLOAD_TYPE, orjson.dumps(header["statement"], option=orjson.OPT_SORT_KEYS))


def sign_header(header: Header, sign: Callable[[bytes], bytes]) -> None:
    header["signature"] = base64.b64encode(sign(message_of(header))).decode()


def long_delegation(signer: LocalSigner, raw: bytes, /, **changes: Any) -> bytes:
    """A delegation changed and signed again."""
    fields = orjson.loads(raw[64:]) | changes
    body = canonical_json(fields)
    return signer.sign(pae(DELEGATION_PAYLOAD_TYPE, body)) + body


def with_delegation(header: Header, raw: bytes) -> None:
    header["delegation"] = base64.b64encode(raw).decode()
    header["statement"]["delegation_sha256"] = hashlib.sha256(raw).hexdigest()


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


LANE_0 = f"{ORIGIN}/lanes/0"
