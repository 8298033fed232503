"""Writes corpus.json: what every reader of a log must refuse, beside the like of it that it must accept.

Plain data, so that a reader in any language can be held against it. Keys are derived from their names, and nothing is
random: `python -m tests.conformance.tlog.corpus` writes the same file again, and a test holds that it is not stale.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey

from ai_infra.tlog.checkpoint import Checkpoint, sign_checkpoint
from ai_infra.tlog.consistency_file import ConsistencyFile
from ai_infra.tlog.cosignature import cosign
from ai_infra.tlog.heads import Heads, LaneHead, sign_heads
from ai_infra.tlog.note import COSIGNATURE, NoteSigner, sign_note
from ai_infra.tlog.proof_file import LogProof
from ai_infra.tlog.proofs import LeafHashes, consistency_proof, inclusion_proof
from ai_infra.tlog.tiles import encode_bundle
from ai_infra.tlog.tree import EMPTY_ROOT, leaf_hash, root

PATH = Path(__file__).parent / "corpus.json"
ORIGIN = "example.org/log/lanes/0"
ENTRIES = [b"entry %d" % n for n in range(300)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
DASH = "— "


@dataclass(frozen=True)
class Key:
    """An Ed25519 key that follows from its name."""

    seed: str

    @property
    def _key(self) -> SigningKey:
        return SigningKey(sha256(self.seed.encode()).digest())

    @property
    def public_key(self) -> bytes:
        return bytes(self._key.verify_key)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message).signature


LOG = NoteSigner(ORIGIN, Key("log"))
OTHER = NoteSigner(ORIGIN, Key("other"))
W1 = NoteSigner("witness.example/w1", Key("w1"), COSIGNATURE)
W2 = NoteSigner("witness.example/w2", Key("w2"), COSIGNATURE)
TWIN = NoteSigner("witness.example/w3", Key("w2"), COSIGNATURE)  # one key under two names

Case = dict[str, Any]


def head(size: int) -> Checkpoint:
    return Checkpoint(ORIGIN, size, root(LEAVES[:size]))


def note(size: int = 300, *, signer: NoteSigner = LOG) -> str:
    return sign_checkpoint(head(size), [signer]).decode()


def raw(text: str, signer: NoteSigner = LOG) -> str:
    """Any text, signed; ours would not sign some of them."""
    line = signer.verifier.key_id + signer.key.sign(text.encode())
    return f"{text}\n{DASH}{signer.name} {base64.b64encode(line).decode()}\n"


def note_cases() -> Iterator[Case]:
    text = "A text.\n\nWith a blank line.\n"
    good = sign_note(text.encode(), [LOG]).decode()
    known = [str(LOG.verifier)]
    line = good.splitlines()[-1]
    stranger = f"{DASH}stranger.example {base64.b64encode(bytes(68)).decode()}"

    def case(what: str, data: str, *, ok: bool = False) -> Case:
        return {"kind": "note", "what": what, "data": data, "known": known, "ok": ok}

    yield case("signed by the known key", good, ok=True)
    yield case("a stranger has signed too", good + stranger + "\n", ok=True)
    yield case("16 strangers before the known key", good.replace(line, "\n".join([stranger] * 16 + [line])), ok=True)
    yield case("a line by another key of the known name", good + raw(text, OTHER).splitlines()[-1] + "\n", ok=True)
    yield case("nobody known has signed", raw(text, OTHER))
    yield case("the known key's signature fails", good.replace("A text", "B text"))
    yield case("one of two signatures by the known key fails", good + _flip(line) + "\n")
    yield case("no signature at all", text + "\n")
    yield case("no blank line", text.replace("\n\n", "\n") + line + "\n")
    yield case("the last newline is missing", good[:-1])
    yield case("a blank line behind the signatures", good + "\n")
    yield case("a hyphen for the dash", good.replace(DASH, "- "))
    yield case("two spaces behind the name", good.replace(f"{ORIGIN} ", f"{ORIGIN}  "))
    yield case("base64 without its padding", good.replace("=", ""))
    yield case("base64 with a bit too many", good.replace(line, _spare_bit(line)))
    yield case("a key id and no signature", good.replace(line, f"{DASH}{ORIGIN} {_b64(LOG.verifier.key_id)}"))
    yield case("carriage returns", good.replace("\n", "\r\n"))
    yield case("a tab in the text", raw("A\ttext.\n"))
    yield case("nothing", "")


def vkey_cases() -> Iterator[Case]:
    def case(what: str, data: str, *, ok: bool = False) -> Case:
        return {"kind": "vkey", "what": what, "data": data, "ok": ok}

    log, name = str(LOG.verifier), ORIGIN
    yield case("a log's key", log, ok=True)
    yield case("a witness's key", str(W1.verifier), ok=True)
    yield case("another key id", log.replace(LOG.verifier.key_id.hex(), "00000000"))
    yield case("key id in capitals", log.replace(LOG.verifier.key_id.hex(), LOG.verifier.key_id.hex().upper()))
    yield case(
        "a type that nobody knows", f"{name}+{LOG.verifier.key_id.hex()}+{_b64(bytes([9]) + LOG.key.public_key)}"
    )
    yield case("a key of 31 bytes", f"{name}+{LOG.verifier.key_id.hex()}+{_b64(bytes([1]) + LOG.key.public_key[:31])}")
    yield case("a space in the name", log.replace("example", "exam ple"))
    yield case("no name", log[len(name) :])


def checkpoint_cases() -> Iterator[Case]:
    def case(what: str, data: str, *, ok: bool = False, witnesses: tuple[str, ...] = (), quorum: int = 0) -> Case:
        return {
            "kind": "checkpoint",
            "what": what,
            "data": data,
            "origin": ORIGIN,
            "log_keys": [str(LOG.verifier)],
            "witnesses": list(witnesses),
            "quorum": quorum,
            "ok": ok,
        }

    good = note()
    size_line, root_line = good.splitlines()[1:3]
    yield case("of 300 entries", good, ok=True)
    yield case("of none", raw(f"{ORIGIN}\n0\n{_b64(EMPTY_ROOT)}\n"), ok=True)
    yield case("of none, with another root", raw(f"{ORIGIN}\n0\n{_b64(bytes(32))}\n"))
    yield case("of another log", raw(f"example.org/other\n{size_line}\n{root_line}\n"))
    yield case("by another key", note(signer=OTHER))
    yield case("an extension line", raw(f"{ORIGIN}\n{size_line}\n{root_line}\nextension\n"))
    yield case("two lines", raw(f"{ORIGIN}\n{size_line}\n"))
    yield case("a size with a leading zero", raw(f"{ORIGIN}\n0300\n{root_line}\n"))
    yield case("a size with a sign", raw(f"{ORIGIN}\n+300\n{root_line}\n"))
    yield case("a size that is no decimal", raw(f"{ORIGIN}\n0x12c\n{root_line}\n"))
    yield case("a size in other digits", raw(f"{ORIGIN}\n٣٠٠\n{root_line}\n"))
    yield case("a size of 2^63", raw(f"{ORIGIN}\n{1 << 63}\n{root_line}\n"))
    yield case("a root of 31 bytes", raw(f"{ORIGIN}\n300\n{_b64(bytes(31))}\n"))
    yield case("a root in base64url", raw(f"{ORIGIN}\n300\n{'-' * 43}=\n"))
    yield case("an empty origin", raw(f"\n{size_line}\n{root_line}\n"))
    yield case("the size changed", good.replace("\n300\n", "\n301\n"))
    yield case("the root changed", good.replace(root_line, _b64(bytes(32))))
    yield case("heads in its place", raw(f"{ORIGIN}\nheads/v1\ntime 1\nlane 0 300 {root_line}\n"))

    signed = good.encode()
    one = cosign(signed, W1, 1_780_000_000)
    two = cosign(one, W2, 1_780_000_001)
    keys = (str(W1.verifier), str(W2.verifier))
    yield case("cosigned by one of two, one asked for", one.decode(), ok=True, witnesses=keys, quorum=1)
    yield case("cosigned by two, two asked for", two.decode(), ok=True, witnesses=keys, quorum=2)
    yield case("a stranger's cosignature, none asked for", one.decode(), ok=True)
    yield case("cosigned by one, two asked for", one.decode(), witnesses=keys, quorum=2)
    yield case("cosigned by strangers", two.decode(), witnesses=(str(TWIN.verifier),), quorum=1)
    twice = cosign(one, W1, 1_780_000_009)
    yield case("cosigned twice by the same", twice.decode(), witnesses=keys, quorum=2)
    twins = cosign(cosign(signed, W2, 1), TWIN, 2)
    yield case("one key under two names", twins.decode(), witnesses=(keys[1], str(TWIN.verifier)), quorum=2)
    last = one.decode().splitlines()[-1]
    yield case("the cosignature's time changed", one.decode().replace(last, _flip(last, 8)), witnesses=keys, quorum=1)
    yield case("a cosignature that fails, none asked for", one.decode().replace(last, _flip(last)), witnesses=keys)
    plain = NoteSigner(W1.name, W1.key)
    wrong = _relabel(raw(head(300).text.decode(), plain).splitlines()[-1], W1)
    yield case("a witness's plain signature as a cosignature", good + wrong + "\n", witnesses=keys, quorum=1)
    bare = one.decode().replace(good.splitlines()[-1] + "\n", "")
    yield case("cosigned, and not signed by the log", bare, witnesses=keys, quorum=1)
    other = cosign(note(299).encode(), W1, 1_780_000_000).decode().splitlines()[-1]
    yield case("the cosignature of another checkpoint", good + other + "\n", witnesses=keys, quorum=1)


def proof_cases() -> Iterator[Case]:
    def case(what: str, data: bytes | str, *, ok: bool = False, entry: bytes = ENTRIES[70]) -> Case:
        text = data.decode() if isinstance(data, bytes) else data
        return {
            "kind": "proof",
            "what": what,
            "data": text,
            "entry": _b64(entry),
            "origin": ORIGIN,
            "log_keys": [str(LOG.verifier)],
            "ok": ok,
        }

    hashes = tuple(inclusion_proof(70, 300, LeafHashes(LEAVES)))
    signed = note().encode()
    good = LogProof(70, hashes, signed).to_bytes().decode()
    yield case("of entry 70 of 300", good, ok=True)
    yield case("with extra data", LogProof(70, hashes, signed, b"anything").to_bytes(), ok=True)
    only = sign_checkpoint(Checkpoint(ORIGIN, 1, LEAVES[0]), [LOG])
    yield case("of the only entry", LogProof(0, (), only).to_bytes(), ok=True, entry=ENTRIES[0])
    yield case("of another entry", good, entry=ENTRIES[71])
    yield case("of a node as an entry", good, entry=b"\x01" + LEAVES[70] + LEAVES[71])
    yield case("another index", good.replace("index 70", "index 71"))
    yield case("an index beyond the tree", good.replace("index 70", "index 300"))
    yield case("an index with a leading zero", good.replace("index 70", "index 070"))
    yield case("a hash less", LogProof(70, hashes[:-1], signed).to_bytes())
    yield case("a hash more", LogProof(70, (*hashes, hashes[0]), signed).to_bytes())
    yield case("no hashes", LogProof(70, (), signed).to_bytes())
    yield case("siblings swapped", LogProof(70, (hashes[1], hashes[0], *hashes[2:]), signed).to_bytes())
    yield case(
        "the proof for another size",
        LogProof(70, tuple(inclusion_proof(70, 299, LeafHashes(LEAVES))), signed).to_bytes(),
    )
    yield case("64 hashes", LogProof(70, (bytes(32),) * 64, signed).to_bytes())
    yield case("a hash of 31 bytes", good.replace(_b64(hashes[0]), _b64(hashes[0][:31])))
    yield case("a checkpoint of another log", good.replace(ORIGIN, "example.org/other"))
    yield case("a checkpoint by another key", LogProof(70, hashes, note(signer=OTHER).encode()).to_bytes())
    yield case("another version", good.replace("@v1", "@v2"))
    yield case("two extra lines", good.replace("index", "extra AA==\nextra AA==\nindex"))
    yield case("extra behind the index", good.replace("index 70\n", "index 70\nextra AA==\n"))
    yield case("no blank line before the checkpoint", good.replace("\n\n" + ORIGIN, "\n" + ORIGIN))
    yield case("cut in the checkpoint", good[:-20])
    yield case("bytes behind it", good + "x")
    yield case("carriage returns", good.replace("\n", "\r\n"))
    yield case("nothing", "")


def consistency_cases() -> Iterator[Case]:
    def case(what: str, data: bytes | str, old: Checkpoint, *, ok: bool = False) -> Case:
        text = data.decode() if isinstance(data, bytes) else data
        return {
            "kind": "consistency",
            "what": what,
            "data": text,
            "old": {"origin": old.origin, "size": old.size, "root": _b64(old.root)},
            "log_keys": [str(LOG.verifier)],
            "ok": ok,
        }

    def made(old: int, new: int = 300, hashes: tuple[bytes, ...] | None = None) -> bytes:
        proof = tuple(consistency_proof(old, new, LeafHashes(LEAVES))) if hashes is None else hashes
        return ConsistencyFile(old, proof, note(new).encode()).to_bytes()

    proof = tuple(consistency_proof(100, 300, LeafHashes(LEAVES)))
    for old in (1, 2, 100, 255, 256, 299, 300):
        yield case(f"from {old} to 300", made(old), head(old), ok=True)
    yield case("from nothing", made(0, hashes=()), Checkpoint(ORIGIN, 0, EMPTY_ROOT), ok=True)
    yield case("from nothing, with hashes", made(0, hashes=(bytes(32),)), Checkpoint(ORIGIN, 0, EMPTY_ROOT))
    yield case("from another root", made(100), Checkpoint(ORIGIN, 100, bytes(32)))
    yield case("from a power of two with another root", made(256), Checkpoint(ORIGIN, 256, bytes(32)))
    yield case("from another size", made(100), head(101))
    yield case("from another log", made(100), Checkpoint("example.org/other", 100, root(LEAVES[:100])))
    yield case("the same size, another root", made(300), Checkpoint(ORIGIN, 300, bytes(32)))
    yield case("the same size, with a hash", made(300, hashes=(bytes(32),)), head(300))
    yield case("back from 300 to 100", ConsistencyFile(300, proof, note(100).encode()).to_bytes(), head(300))
    yield case("a hash less", made(100, hashes=proof[:-1]), head(100))
    yield case("a hash more", made(100, hashes=(*proof, bytes(32))), head(100))
    yield case("no hashes", made(100, hashes=()), head(100))
    yield case("hashes in another order", made(100, hashes=proof[::-1]), head(100))
    yield case("64 hashes", made(100, hashes=(bytes(32),) * 64), head(100))
    yield case("a newer checkpoint by another key", made(100).decode().replace(note(), note(signer=OTHER)), head(100))
    yield case("without its first line", made(100).split(b"\n", 1)[1], head(100))
    yield case("cut", made(100)[:-10], head(100))


def bundle_cases() -> Iterator[Case]:
    def case(what: str, data: bytes, width: int, *, ok: bool = False) -> Case:
        return {"kind": "bundle", "what": what, "data": _b64(data), "width": width, "ok": ok}

    good = encode_bundle(ENTRIES[:256])
    yield case("a full bundle", good, 256, ok=True)
    yield case("a partial bundle", encode_bundle(ENTRIES[256:300]), 44, ok=True)
    yield case("entries without bytes", encode_bundle([b"", b""]), 2, ok=True)
    yield case("a partial bundle as the full one", encode_bundle(ENTRIES[256:300]), 256)
    yield case("an entry too many", encode_bundle([*ENTRIES[:256], b"more"]), 256)
    yield case("an entry more than its width", encode_bundle(ENTRIES[:45]), 44)
    yield case("cut in an entry", good[:-1], 256)
    yield case("cut in a length", encode_bundle(ENTRIES[:3]) + b"\0", 3)
    yield case("a byte behind it", good + b"\0", 256)
    yield case("nothing", b"", 1)


def path_cases() -> Iterator[Case]:
    def case(path: str, *, ok: bool = False) -> Case:
        return {"kind": "path", "what": path or "nothing", "data": path, "ok": ok}

    for path in ("tile/0/000", "tile/entries/x001/x234/067", "tile/3/255.p/255", "tile/0/999.p/1", "tile/63/000"):
        yield case(path, ok=True)
    for path in (
        "",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/001/002",
        "tile/0/x001/x002",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p/",
        "tile/0/000/p/1",
        "tile/entry/000",
        "tile/entries/000 ",
        "/tile/0/000",
        "tile/0/../000",
        "tile/0/٠٠٠",
    ):
        yield case(path)


def heads_cases() -> Iterator[Case]:
    origin = "example.org/log/heads"
    signer = NoteSigner(origin, Key("log"))

    def case(what: str, data: str, *, ok: bool = False) -> Case:
        keys = [str(signer.verifier)]
        return {"kind": "heads", "what": what, "data": data, "origin": origin, "log_keys": keys, "ok": ok}

    lanes = (LaneHead(300, head(300).root), LaneHead(0, EMPTY_ROOT))
    good = sign_heads(Heads(origin, 1_780_000_000_000, lanes), [signer]).decode()
    text = good.split("\n\n")[0] + "\n"
    yield case("of two lanes", good, ok=True)
    yield case("of another log", raw(text.replace("example.org", "example.com"), signer))
    yield case("a lane left out", raw(text.replace("lane 0 300", "lane 1 300"), signer))
    yield case("no lane", raw("\n".join(text.split("\n")[:3]) + "\n", signer))
    yield case("a line too many", raw(text + "more\n", signer))
    yield case("no time", raw(text.replace("time 1780000000000\n", ""), signer))
    yield case("an empty lane with a root", raw(text.replace(_b64(EMPTY_ROOT), _b64(bytes(32))), signer))
    yield case("another version", raw(text.replace("heads/v1", "heads/v2"), signer))
    yield case("a size changed", good.replace(" 300 ", " 301 "))
    yield case("a checkpoint in their place", note())


def cases() -> list[Case]:
    """All of it."""
    return [
        *note_cases(),
        *vkey_cases(),
        *checkpoint_cases(),
        *proof_cases(),
        *consistency_cases(),
        *bundle_cases(),
        *path_cases(),
        *heads_cases(),
    ]


def text() -> str:
    """The file."""
    return json.dumps(cases(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _flip(line: str, at: int = -1) -> str:
    """A signature line with one bit changed."""
    name, _, blob = line.rpartition(" ")
    data = bytearray(base64.b64decode(blob))
    data[at] ^= 1
    return f"{name} {_b64(bytes(data))}"


def _spare_bit(line: str) -> str:
    """The same bytes in a base64 that sets a bit which decoders drop."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body = line.rstrip("=")
    return body[:-1] + alphabet[alphabet.index(body[-1]) ^ 1] + line[len(body) :]


def _relabel(line: str, signer: NoteSigner) -> str:
    """A signature line under another key's id, with a time before the signature."""
    blob = base64.b64decode(line.rpartition(" ")[2])
    return f"{DASH}{signer.name} {_b64(signer.verifier.key_id + bytes(8) + blob[4:])}"


if __name__ == "__main__":
    PATH.write_text(text())
