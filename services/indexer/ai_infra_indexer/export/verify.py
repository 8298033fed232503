#!/usr/bin/env python3
"""Checks a copy of an ai-infra log without trusting whoever made it, and without any of its makers' code.

    python verify.py [FOLDER] --roots roots.json [--origin ORIGIN] [--lanes N] [--json]

One file; Python 3.9 or newer and PyNaCl (`pip install pynacl`), which is libsodium: Ed25519 and nothing else is taken
from it. FOLDER is an export (`statement.json` is in it) or a plain copy of the archive (`lanes/`, `schemas/`); the root
keys are yours, got by another way than the folder. Exit status: 0 everything verifies, 1 something does not, 2 it could
not be run. The formats are in docs/log-format.md and docs/event-format.md; the sections stand in the order in which
trust grows, each leaning only on those above it:

    1 root keys -> 2 keyrings -> 3 checkpoints -> 4 tree -> 5 events -> 6 Kernel chain -> 7 completeness -> 8 export

Nothing in the folder is believed before it is verified, nothing in it is executed, and no path in it is followed out.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import fnmatch
import hashlib
import json
import multiprocessing
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any, BinaryIO, NamedTuple

try:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import CryptoError
except ImportError:
    sys.exit("verify.py needs PyNaCl for Ed25519: pip install pynacl")

MAX_NOTE = 1 << 20
MAX_ENTRY = 65_535
MAX_BUNDLE = 256 * (2 + MAX_ENTRY)
MAX_BODY = 49_152
MAX_MESSAGE = 4_095
MAX_SCHEMA = 1 << 20
MAX_SMALL = 1 << 22  # signers, certificates
MAX_STATEMENT = 1 << 16
MAX_INDEX = 1 << 28  # index.json names every file
MAX_PROBLEMS = 1_000  # of one lane
MAX_STEPS = 1_000_000  # of reading one Avro body
SAFE_INT = 2**53 - 1
SETTLED_MS = 600_000  # see section 7


class Bad(Exception):
    """Something is not as it must be: a code for programs, and what was expected, for people."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(code, why)
        self.code, self.why = code, why


class Problem(NamedTuple):
    lane: int | None
    position: int | None
    code: str
    detail: str


def need(condition: bool, code: str, why: str) -> None:
    if not condition:
        raise Bad(code, why)


# --- 0. Bytes: files, JSON, base64, Ed25519 ---------------------------------------------------------------------------


class Folder:
    """Reads regular files below one folder. A link, or a name that leads elsewhere, is no file of it."""

    NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)

    def open(self, path: str, limit: int = sys.maxsize) -> BinaryIO:
        need(self.NAME.fullmatch(path) is not None, "bad_path", f"{path[:200]!r} is no name of a file in a log")
        full = os.path.join(self.root, *path.split("/"))
        try:
            found = os.lstat(full)
            need(os.path.realpath(full) == full and stat.S_ISREG(found.st_mode), "bad_path", f"{path} is no plain file")
            need(found.st_size <= limit, "too_large", f"{path} has {found.st_size} bytes, {limit} at most")
            return open(full, "rb")
        except (FileNotFoundError, NotADirectoryError):
            raise Bad("missing_file", f"{path} is not there") from None
        except OSError as error:
            raise Bad("unreadable", f"{path}: {error.strerror}") from None

    def read(self, path: str, limit: int) -> bytes:
        with self.open(path, limit) as file:
            return file.read(limit)

    def lines(self, path: str) -> Iterator[bytes]:
        with self.open(path) as file:
            while line := file.readline(1 << 20):
                yield line

    def sha256(self, path: str, limit: int) -> str:
        digest = hashlib.sha256()
        with self.open(path, limit) as file:
            while data := file.read(1 << 20):
                digest.update(data)
        return digest.hexdigest()

    def has(self, path: str) -> bool:
        return os.path.lexists(os.path.join(self.root, *path.split("/")))

    def files(self, below: str = "") -> Iterable[str]:
        """Paths of all that is no folder below here, links included (which are not followed)."""
        for at, folders, names in os.walk(os.path.join(self.root, *below.split("/"))):
            links = [name for name in folders if os.path.islink(os.path.join(at, name))]
            for name in names + links:
                yield os.path.relpath(os.path.join(at, name), self.root).replace(os.sep, "/")


def parse_json(data: bytes | str, code: str, what: str) -> Any:
    """JSON of texts, integers, booleans, null, lists and objects. A fraction is an error: nothing here has one."""

    def refuse(text: str) -> Any:
        raise ValueError(f"{text[:20]} is not an integer")

    def integer(text: str) -> int:
        return int(text) if len(text) <= 19 else refuse(text)

    try:
        return json.loads(data, parse_float=refuse, parse_constant=refuse, parse_int=integer)
    except (ValueError, RecursionError) as error:
        raise Bad(code, f"{what} is not JSON as it must be: {type(error).__name__} {str(error)[:80]}") from None


def canonical(value: Any) -> bytes:
    """RFC 8785 for what `parse_json` returns, where object keys are ASCII."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def unbase64(text: Any, code: str, what: str) -> bytes:
    """Standard base64 in its one spelling."""
    try:
        data = base64.b64decode(text, validate=True)
        need(base64.b64encode(data).decode() == text, code, f"{what} is not canonical base64")
    except (binascii.Error, ValueError, TypeError):
        raise Bad(code, f"{what} is not base64") from None
    return data


def signed_by(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        return len(key) == 32 and len(signature) == 64 and crypto_sign_open(signature + message, key) == message
    except (CryptoError, ValueError):
        return False


def pae(kind: str, body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed in place of `body`."""
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(body), body)


def envelope(text: bytes | str, kind: str, code: str) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Payload and signatures of a DSSE envelope; nothing is verified yet."""
    outer = parse_json(text, code, "the DSSE envelope")
    try:
        need(outer["payloadType"] == kind, code, f"expected a document of type {kind}")
        pairs = [(str(item["keyid"]), unbase64(item["sig"], code, "a signature")) for item in outer["signatures"]]
        return unbase64(outer["payload"], code, "the payload"), pairs
    except (KeyError, TypeError):
        raise Bad(code, "not a DSSE envelope") from None


def is_int(value: Any) -> bool:
    return type(value) is int and 0 <= value <= SAFE_INT


# --- 1. Root keys: what the auditor brings ----------------------------------------------------------------------------


class Roots(NamedTuple):
    keys: dict[str, bytes]
    threshold: int


def read_roots(document: Any, code: str = "bad_roots") -> Roots:
    """`{"keys": {id: base64 of 32 bytes}, "threshold": n}`."""
    try:
        need(set(document) == {"keys", "threshold"}, code, "expected the fields keys and threshold")
        keys = {str(name): unbase64(key, code, f"root key {name}") for name, key in document["keys"].items()}
        threshold = document["threshold"]
    except (TypeError, AttributeError, KeyError):
        raise Bad(code, "expected an object of root keys") from None
    need(all(len(key) == 32 for key in keys.values()), code, "a root key is an Ed25519 key of 32 bytes")
    good = type(threshold) is int and 1 <= threshold <= len(set(keys.values()))
    need(good, code, f"a threshold of {threshold} among {len(set(keys.values()))} keys makes no sense")
    return Roots(keys, threshold)


# --- 2. Keyrings: root keys say which keys there are, whose, and what they may say ------------------------------------

KEYRING_TYPE = "application/vnd.ai-infra.keyring.v1+json"
KEYRING: dict[str, type] = {
    "version": int,
    "created_at": int,
    "roots": dict,
    "keys": list,
    "principals": list,
    "roles": dict,
}
KEYRING |= {"revocations": list}
KEY: dict[str, type] = {"id": str, "public_key": str, "principal": str, "use": str, "deployed_at": int}
OPTIONAL: dict[str, type] = {"description": str, "not_before": int, "not_after": int}
PRINCIPAL: dict[str, type] = {"id": str, "kind": str, "counted": int, "grants": list}
GRANT: dict[str, type] = {"role": str, "models": list, "environments": list}
REVOCATION: dict[str, type] = {"key": str, "revoked_at": int, "reason": str, "positions": dict}
USES = ("events", "audit", "manifest", "promotion", "chain")


class Keyring(NamedTuple):
    version: int
    roots: Roots
    keys: dict[str, dict[str, Any]]
    principals: dict[str, dict[str, Any]]
    roles: dict[str, list[str]]
    revocations: dict[str, dict[str, Any]]
    body: bytes  # canonical JSON of its content: what the roots have signed, by its SHA-256

    def key(self, name: str, use: str) -> dict[str, Any] | None:
        found = self.keys.get(name)
        return found if found is not None and found["use"] == use else None

    def public(self, name: str) -> bytes:
        return base64.b64decode(self.keys[name]["public_key"])


def plain(value: Any) -> bool:
    """Whether there are only texts, integers of up to 53 bits, null, lists and objects with ASCII keys in it."""
    if isinstance(value, dict):
        return all(key.isascii() and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(plain(item) for item in value)
    return value is None or type(value) is str or (type(value) is int and abs(value) <= SAFE_INT)


def is_texts(value: Any) -> bool:
    return type(value) is list and all(type(item) is str for item in value)


def shaped(value: Any, fields: dict[str, type], optional: dict[str, type] | None = None) -> dict[str, Any]:
    """An object with just these fields, of these kinds."""
    known = {**fields, **(optional or {})}
    good = type(value) is dict and set(fields) <= set(value) <= set(known)
    need(
        good and all(type(value[n]) is known[n] for n in value), "bad_keyring", f"expected an object of {list(fields)}"
    )
    return dict(value)


def by_id(
    items: list[Any], name: str, fields: dict[str, type], optional: dict[str, type] | None = None
) -> dict[str, Any]:
    """Objects by their ids, which must be in order and each there once."""
    found = {item[name]: item for item in [shaped(item, fields, optional) for item in items]}
    need([item[name] for item in items] == sorted(found), "bad_keyring", f"objects by {name} are not in order")
    return found


def read_keyring(text: str) -> tuple[Keyring, bytes, list[tuple[str, bytes]]]:
    """A keyring's content, and what is signed of it by whom. Its form is checked; no signature is yet."""
    code = "bad_keyring"
    need(len(text.encode()) <= MAX_BODY, code, "the keyring is too long")
    payload, signatures = envelope(text, KEYRING_TYPE, code)
    said, content = parse_json(payload, code, "its statement"), parse_json(text, code, "the keyring").get("keyring")
    try:
        body = canonical(content)
        need(set(said) == {"keyring_sha256", "version"}, code, "its statement has other fields")
        need(hashlib.sha256(body).hexdigest() == said["keyring_sha256"], code, "it is not the one that was signed")
        need(said["version"] == content["version"], code, "its version is not the one that was signed")
        need(plain(shaped(content, KEYRING)), code, "it holds something else than texts and integers")
        keys = by_id(content["keys"], "id", KEY, OPTIONAL)
        people = by_id(content["principals"], "id", PRINCIPAL)
        gone = by_id(content["revocations"], "key", REVOCATION)
        roots, roles = read_roots(content["roots"], code), content["roles"]
        for events in roles.values():
            need(is_texts(events) and events == sorted(set(events)), code, "a role is a list of event types in order")
        for end in gone.values():
            lanes = all(re.fullmatch("0|[1-9][0-9]*", lane) for lane in end["positions"])
            need(lanes and all(type(n) is int for n in end["positions"].values()), code, "a revocation's positions")
        owners = dict.fromkeys(roots.keys.values(), "a root")
        for name, key in keys.items():
            public = unbase64(key["public_key"], code, f"the key {name}")
            need(len(public) == 32 and key["use"] in USES, code, f"{name} is no Ed25519 key for one of {USES}")
            need(key.get("description") != "", code, f"{name} has an empty description")
            need(key["use"] != "events" or key["principal"] in people, code, f"{name} belongs to nobody")
            need(owners.setdefault(public, name) == name, code, f"{name} has the public key of {owners[public]}")
        for person in people.values():
            need(person["kind"] in ("service", "person", "orchestrator"), code, f"{person['id']} is of no known kind")
            need(person["counted"] in (0, 1), code, f"{person['id']} is counted (1) or not (0)")
            for grant in person["grants"]:
                good = is_texts(shaped(grant, GRANT)["models"]) and is_texts(grant["environments"])
                need(good and grant["models"] and grant["role"] in roles, code, f"a grant of {person['id']}")
        need(content["version"] >= 1 and set(gone) <= set(keys), code, "its version, or a revocation of no key of it")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Bad(code, f"not a keyring: {type(error).__name__} {str(error)[:80]}") from None
    return Keyring(content["version"], roots, keys, people, roles, gone, body), payload, signatures


def next_keyring(text: str, known: dict[int, Keyring], pinned: Roots) -> Keyring:
    """The keyring in `text`: signed by thresholds of the roots before it and of its own, and taking nothing back.

    `known`: those before, by version. One of them may come again, and changes nothing.
    """
    code = "bad_keyring"
    ring, payload, signatures = read_keyring(text)
    same, before = known.get(ring.version), known[max(known)] if known else None
    if same is not None:
        need(ring.body == same.body, "keyring_conflict", f"two different keyrings are version {ring.version}")
        return same
    message = pae(KEYRING_TYPE, payload)
    for roots, whose in ((before.roots if before else pinned, "the roots before it"), (ring.roots, "its own roots")):
        signers = [(roots.keys[name], sig) for name, sig in signatures if name in roots.keys]
        good = {key for key, sig in signers if signed_by(key, message, sig)}
        need(len(good) >= roots.threshold, code, f"{roots.threshold} of {whose} must sign it, {len(good)} have")
    if before is not None:
        follows = f"version {ring.version} comes after version {before.version}"
        need(ring.version == before.version + 1, "keyring_conflict", follows)
        for name, key in before.keys.items():
            kept = all(ring.keys.get(name, {}).get(f) == key[f] for f in ("public_key", "use", "principal"))
            need(kept, code, f"it removes or replaces the key {name}")
        for name, end in before.revocations.items():
            need(name in ring.revocations, code, f"it takes back the revocation of {name}")
            later = ring.revocations[name]["positions"]
            kept = all(later.get(lane, first + 1) <= first for lane, first in end["positions"].items())
            need(kept, code, f"it weakens the revocation of {name}")
    return ring


# --- 3. Checkpoints: audit keys of the keyring say how long the log is, and what its root is (C2SP signed note) -------


class Checkpoint(NamedTuple):
    origin: str
    size: int
    root: bytes


def open_note(data: bytes, name: str, keys: Iterable[bytes]) -> list[str]:
    """The lines of a note's text, once one of `keys` is known to have signed it under `name`."""
    code = "bad_checkpoint"
    text, lines = split_note(data)
    known = {hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]: key for key in keys}
    signed = 0
    for line in lines:
        dash, _, rest = line.partition(" ")
        who, _, encoded = rest.partition(" ")
        blob = unbase64(encoded, code, "a signature line")
        need(dash == "\u2014" and who != "" and len(blob) > 4, code, f"not a signature line: {line[:60]!r}")
        if who == name and blob[:4] in known:  # others are witnesses, or keys that we do not know
            need(signed_by(known[blob[:4]], text, blob[4:]), code, "the signature by an audit key does not verify")
            signed += 1
    need(signed > 0, code, f"no audit key of the keyring has signed it as {name}")
    return text.decode().split("\n")[:-1]


def note_lines(data: bytes) -> list[str]:
    """The lines of a note's text, unverified."""
    return split_note(data)[0].decode().split("\n")[:-1]


def split_note(data: bytes) -> tuple[bytes, list[str]]:
    try:
        decoded = data.decode("utf-8")
    except UnicodeDecodeError:
        raise Bad("bad_checkpoint", "it is not UTF-8") from None
    text, blank, lines = decoded.rpartition("\n\n")
    good = (
        blank and lines.endswith("\n") and not re.search("[\x00-\x09\x0b-\x1f]", decoded) and lines.count("\n") <= 128
    )
    need(bool(good), "bad_checkpoint", "it is no signed note: text, an empty line, signature lines")
    return f"{text}\n".encode(), lines[:-1].split("\n")


def read_head(size: str, root: str) -> tuple[int, bytes]:
    need(re.fullmatch("0|[1-9][0-9]{0,17}", size) is not None, "bad_checkpoint", f"{size[:30]!r} is no size")
    found = unbase64(root, "bad_checkpoint", "the root")
    need(len(found) == 32, "bad_checkpoint", "a root has 32 bytes")
    return int(size), found


def read_checkpoint(lines: list[str]) -> Checkpoint:
    need(len(lines) == 3, "bad_checkpoint", "a checkpoint is three lines: origin, size, root")
    return Checkpoint(lines[0], *read_head(lines[1], lines[2]))


def audit_keys(ring: Keyring, standing: bool) -> list[bytes]:
    """`standing`: what is signed came after the keyring, so a key that it revokes can't have signed it."""
    found = [name for name, key in ring.keys.items() if key["use"] == "audit"]
    return [ring.public(name) for name in found if not standing or name not in ring.revocations]


def open_checkpoint(data: bytes, origin: str, ring: Keyring, standing: bool) -> Checkpoint:
    # The origin first: a checkpoint of another log fails by its name, not by a signature that nobody could check.
    claimed = read_checkpoint(note_lines(data))
    need(claimed.origin == origin, "bad_checkpoint", f"expected one of {origin}, this is one of {claimed.origin}")
    return read_checkpoint(open_note(data, origin, audit_keys(ring, standing)))


# --- 4. Tree: every leaf is under the checkpoint's root (RFC 6962, C2SP tlog-tiles) -----------------------------------


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\0" + entry).digest()


def perfect_root(hashes: bytes) -> bytes:
    """Root over a full tile (256 hashes)."""
    while len(hashes) > 32:
        pairs = range(0, len(hashes), 64)
        hashes = b"".join([hashlib.sha256(b"\1" + hashes[at : at + 64]).digest() for at in pairs])
    return hashes


def roots_at(leaves: bytes, sizes: Iterable[int]) -> dict[int, bytes]:
    """The roots that the tree had at these sizes."""
    wanted, found = set(sizes), {0: hashlib.sha256(b"").digest()}
    stack: list[tuple[bytes, int]] = []  # roots of perfect subtrees, and their heights
    for size in range(1, len(leaves) // 32 + 1):
        node, height = leaves[32 * (size - 1) : 32 * size], 0
        while stack and stack[-1][1] == height:
            node, height = hashlib.sha256(b"\1" + stack.pop()[0] + node).digest(), height + 1
        stack.append((node, height))
        if size in wanted:
            root = stack[-1][0]
            for left, _ in reversed(stack[:-1]):
                root = hashlib.sha256(b"\1" + left + root).digest()
            found[size] = root
    return found


class Tiles:
    """One lane's tiles and bundles. A partial one may have been superseded by a fuller one, which is then cut."""

    def __init__(self, folder: Folder, lane: int) -> None:
        self.folder, self.prefix = folder, f"lanes/{lane}"

    def _read(self, level: str, index: int, width: int, limit: int) -> bytes:
        groups = [f"{index % 1000:03d}"]
        while index >= 1000:
            index //= 1000
            groups.insert(0, f"x{index % 1000:03d}")
        path = f"{self.prefix}/tile/{level}/{'/'.join(groups)}"
        if width < 256 and self.folder.has(f"{path}.p/{width}"):
            return self.folder.read(f"{path}.p/{width}", limit)
        return self.folder.read(path, limit)

    def hashes(self, level: int, index: int, width: int) -> bytes:
        data = self._read(str(level), index, width, 8192)[: 32 * width]
        need(len(data) == 32 * width, "bad_tile", f"tile {index} of level {level} must have {width} hashes")
        return data

    def bundle(self, index: int, width: int) -> list[bytes]:
        data, found, at = self._read("entries", index, width, MAX_BUNDLE), [], 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 2], "big")
            need(at + 2 + length <= len(data), "bad_bundle", f"bundle {index} does not end where an entry does")
            found.append(data[at + 2 : at + 2 + length])
            at += 2 + length
        need(width <= len(found) <= 256, "short_bundle", f"bundle {index}: expected {width} entries, not {len(found)}")
        return found[:width]

    def selected(self, position: int) -> bytes:
        return self.folder.read(f"{self.prefix}/entries/{position}", MAX_ENTRY)

    def positions(self) -> list[int]:
        """Of the entries of a selection."""
        names = [path.rsplit("/", 1)[1] for path in self.folder.files(f"{self.prefix}/entries")]
        return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,15}", name))

    def there(self, level: str, most: int) -> list[int]:
        """Which tiles of a level are here, of the first `most`. So work is by the files that there are: names and sizes
        may claim more than anybody could look for."""
        found, prefix = set(), f"{self.prefix}/tile/{level}/"
        for path in self.folder.files(prefix[:-1]):
            name = re.sub(r"\.p/[0-9]+$", "", path[len(prefix) :])
            if re.fullmatch(r"(x[0-9]{3}/){0,4}[0-9]{3}", name):
                found.add(int(re.sub("[x/]", "", name)))
        return sorted(index for index in found if index < most)


def gaps(there: list[int], count: int) -> Iterator[tuple[int, int]]:
    """What lacks of the first `count`: from the first number of each gap to the one that is there again."""
    expected = 0
    for index in [*there, count]:
        if expected < index:
            yield expected, index
        expected = index + 1


def check_tree(tiles: Tiles, size: int, report: Report) -> bytes | None:
    """All leaf hashes, where every tile above them is what they lead to; None where some are not there."""
    parts, count = [], -(-size // 256)
    there = tiles.there("0", count)
    for first, end in gaps(there, count):
        what = f"the leaf hashes from here to {min(256 * end, size) - 1} are not in the folder"
        report.add(256 * first, "missing_tile", what)
    whole = len(there) == count
    for index in there:
        try:
            parts.append(tiles.hashes(0, index, min(256, size - 256 * index)))
        except Bad as bad:
            report.add(256 * index, bad.code.replace("missing_file", "missing_tile"), bad.why)
            whole = False
    if not whole:
        return None
    leaves = nodes = b"".join(parts)
    level = 0
    while len(nodes) >= 8192:
        nodes = b"".join([perfect_root(nodes[at : at + 8192]) for at in range(0, len(nodes) - 8191, 8192)])
        level += 1
        for index in range(-(-len(nodes) // 8192)):
            expected = nodes[8192 * index : 8192 * index + 8192]
            position = (index * 256) << (8 * level)
            try:
                if tiles.hashes(level, index, len(expected) // 32) != expected:
                    report.add(position, "bad_tile", f"tile {index} of level {level} is not what the leaves lead to")
            except Bad as bad:
                # A partial tile above the leaves may be gone: it follows from the full tiles below it.
                if bad.code != "missing_file" or len(expected) == 8192:
                    report.add(position, bad.code.replace("missing_file", "missing_tile"), bad.why)
    return leaves


# --- 5. Events: form, delegation, signature, life, role (docs/event-format.md) ----------------------------------------

EVENT_TYPE = "application/vnd.ai-infra.event.v1+json"
DELEGATION_TYPE = "application/vnd.ai-infra.delegation.v1+json"
CLOCK_SKEW_MS = 120_000
BROADCAST = {"signer.changed", "policy.changed"}
OF_A_LANE = {"producer.heartbeat", "audit.finding", "audit.checkpoint", "operator.action"}
WIDE = {"operator.action", "audit.finding", "audit.checkpoint", "signer.changed", "policy.changed"}
UNCOUNTED = {"serving.window", "serving.profile", "audit.checkpoint"}
SPEAKER = {
    "job.queued": "requested_by",
    "job.cancel_requested": "requested_by",
    "promotion.requested": "requested_by",
    "rollback.requested": "requested_by",
    "promotion.approval": "approver",
    "operator.action": "operator",
    "artifact.revoked": "revoked_by",
    "event.refused": "service",
}
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LANE_KEY = re.compile(r"_lane/(0|[1-9][0-9]{0,5})")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z")
STATEMENT = set(
    "body_sha256 causes ce_dataschema ce_id ce_source ce_specversion ce_subject ce_time ce_type content_type "
    "delegation_sha256 epoch key keyring lane prev producer schema_sha256 seq signer topic".split()
)
ENTRY = set("append_time_ms chain delegation kafka lane position signature statement traceparent v".split())
CHAIN = {"hash", "id", "prev_hash", "signature", "signer_id", "ts"}


class Entry(NamedTuple):
    lane: int
    position: int
    append_ms: int
    partition: int
    statement: dict[str, Any]
    signature: bytes
    delegation: bytes
    chain: dict[str, Any]
    body: bytes


def read_entry(raw: bytes) -> Entry:
    """One line of canonical JSON, a newline, the bare Avro body."""
    code = "malformed_entry"
    line, newline, body = raw.partition(b"\n")
    need(newline == b"\n", code, "an entry is a line of JSON, a newline and a body")
    header = parse_json(line, code, "the entry's header")
    try:
        chain, kafka = header["chain"], header["kafka"]
        need(canonical(header) == line, code, "its header is not canonical JSON")
        need(header.keys() == ENTRY and is_int(header["v"]) and header["v"] == 1, code, "expected version 1")
        need(chain.keys() == CHAIN and kafka.keys() == {"offset", "partition"}, code, "chain or kafka has other fields")
        numbers = (header["lane"], header["position"], header["append_time_ms"], chain["ts"], *kafka.values())
        need(all(is_int(n) for n in numbers), code, "a number is not an integer from 0 to 2^53-1")
        need(all(type(chain[n]) is str for n in ("hash", "id", "signer_id")), code, "a text of the chain is none")
        hashes = [chain["hash"], *([] if chain["prev_hash"] is None else [chain["prev_hash"]])]
        need(all(is_form(h, SHA256) for h in hashes), code, "a hash of the chain is none")
        need(header["traceparent"] is None or type(header["traceparent"]) is str, code, "traceparent is no text")
        need(header["statement"].keys() == STATEMENT, code, "the statement has other fields")
        unbase64(chain["signature"], code, "the chain's signature")
        signature, delegation = (unbase64(header[name], code, name) for name in ("signature", "delegation"))
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise Bad(code, f"not an entry: {type(error).__name__}") from None
    place = (header["lane"], header["position"], header["append_time_ms"], kafka["partition"])
    return Entry(*place, header["statement"], signature, delegation, chain, body)


def is_form(value: Any, form: re.Pattern[str]) -> bool:
    return type(value) is str and form.fullmatch(value) is not None


def is_text(value: Any, most: int) -> bool:
    return type(value) is str and 1 <= len(value.encode()) <= most and not re.search("[\x00-\x1f\x7f]", value)


def check_statement(e: Entry, lanes: int) -> bytes:
    """The message that must have been signed. Everything that an event claims is in its statement."""
    code, s = "malformed_event", e.statement
    for name, most in (("ce_source", 256), ("signer", 128), ("ce_type", 128)):
        need(is_text(s[name], most), code, f"{name} is no text of 1 to {most} bytes")
    need(s["ce_subject"] is None or is_text(s["ce_subject"], 256), code, "ce_subject is no text of 1 to 256 bytes")
    need(s["ce_specversion"] == "1.0" and s["content_type"] == "application/avro", code, "specversion or content type")
    need(is_form(s["ce_id"], UUID) and is_form(s["ce_time"], TIME), code, "ce_id is no UUID, or ce_time no time")
    try:
        datetime.strptime(s["ce_time"], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007 - only whether it exists
    except ValueError:
        raise Bad(code, "ce_time is no time") from None
    need(s["topic"] == s["ce_type"], code, "the topic is not the event's type")
    need(is_form(s["schema_sha256"], SHA256), code, "schema_sha256")
    need(s["ce_dataschema"] == f"urn:ai-infra:schema:{s['schema_sha256']}", code, "ce_dataschema names another schema")
    need(is_int(s["keyring"]), code, "keyring is no integer")
    counted = [s[name] is not None for name in ("producer", "epoch", "seq")]
    good = all(counted) and is_text(s["producer"], 128) and is_int(s["epoch"]) and is_int(s["seq"])
    need(good or (not any(counted) and s["prev"] is None), code, "producer, epoch, seq come together or not at all")
    hashed = s["prev"] is None or is_form(s["prev"], SHA256)
    need(hashed and (s["prev"] is not None or (s["seq"] or 0) <= 1), code, "prev")
    need(type(s["causes"]) is list and len(s["causes"]) <= 32, code, "causes is no list of at most 32")
    for cause in s["causes"]:
        form = type(cause) is dict and cause.keys() == {"id", "lane"} and is_int(cause["lane"])
        need(form and is_form(cause["id"], UUID), code, "a cause is {id, lane}")
    need(len(e.signature) == 64 and 65 <= len(e.delegation) <= 400, code, "the length of signature or delegation")
    check_place(s["topic"], s["key"], e.partition, lanes)
    # The log alone writes which lane an entry is in; its signer has said the partition. Broadcasts are in every lane.
    at_home = s["topic"] in BROADCAST or e.lane == e.partition
    need(at_home, "wrong_lane", f"an event of lane {e.partition} is entered into lane {e.lane}")
    need(len(e.body) <= MAX_BODY, "body_too_large", f"the body has {len(e.body)} bytes")
    message = pae(EVENT_TYPE, canonical(s))
    need(len(message) <= MAX_MESSAGE, code, "the message is too long")
    return message


def murmur2(data: bytes) -> int:
    """Kafka's partitioner."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h, whole = 0x9747B28C ^ len(data), len(data) // 4 * 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ (k >> 24)) * m & mask)
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def check_place(topic: str, key: Any, partition: int, lanes: int) -> None:
    """The key's form for this topic, and the lane that it leads to."""
    need(type(key) is str and 1 <= len(key.encode()) <= 128, "wrong_key", "a key has 1 to 128 bytes")
    lane = LANE_KEY.fullmatch(key)
    if topic in BROADCAST:
        need(key == "_broadcast", "wrong_key", f"{topic} travels under _broadcast, not {key!r}")
        expected = 0
    elif topic in OF_A_LANE and lane is not None:
        expected = int(lane[1])
        need(expected < lanes, "wrong_key", f"{key!r} in a log of {lanes} lanes")
    else:
        good = MODEL.fullmatch(key) is not None and (topic not in OF_A_LANE or topic == "operator.action")
        need(good, "wrong_key", f"{key!r} is no key for {topic}")
        expected = (murmur2(key.encode()) & 0x7FFFFFFF) % lanes
    need(partition == expected, "wrong_lane", f"{key!r} belongs in lane {expected} of {lanes}, it is in {partition}")


def read_delegation(raw: bytes, signer: str, ring: Keyring) -> dict[str, Any]:
    """What a long-lived key has allowed a session key, once its signature verifies."""
    code, key = "bad_delegation", ring.key(signer, "events")
    if key is None:
        raise Bad("unknown_signer", f"keyring {ring.version} has no key {signer!r} that signs events")
    d = parse_json(raw[64:], code, "the delegation")
    try:
        need(set(d) == {"events", "key", "keyring", "naf", "nbf", "service", "signer"}, code, "other fields")
        need(canonical(d) == raw[64:], code, "it is not canonical JSON")
        d["session"] = base64.urlsafe_b64decode(d["key"] + "=")
        need(base64.urlsafe_b64encode(d["session"]).decode().rstrip("=") == d["key"], code, "its key")
        need(len(d["session"]) == 32 and type(d["service"]) is str, code, "its key or service")
        need(type(d["events"]) is list and all(type(e) is str for e in d["events"]), code, "its events")
        need(all(type(d[n]) is int for n in ("keyring", "nbf", "naf")), code, "its numbers")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Bad(code, "it cannot be read") from None
    need(0 <= d["naf"] - d["nbf"] <= 7 * 86_400, code, "it lives between 0 and 7 days")
    need(d["signer"] == signer, code, f"it is by {d['signer']!r}, the event says {signer!r}")
    good = signed_by(ring.public(signer), pae(DELEGATION_TYPE, raw[64:]), raw[:64])
    need(good, code, f"it is not signed by {signer}")
    service = ring.principals[key["principal"]]["kind"] == "service"
    need(not service or d["service"] == key["principal"], code, f"a key of {key['principal']} delegates for another")
    return dict(d)


class Event(NamedTuple):
    body: dict[str, Any]
    hash: str


def check_event(e: Entry, ring: Keyring, lanes: int, schemas: Schemas, known: dict[Any, dict[str, Any]]) -> Event:
    """The event in an entry, by the keyring that its lane had there. `known`: delegations that verified."""
    s, message = e.statement, check_statement(e, lanes)
    schema = schemas.of_topic(s["topic"], s["schema_sha256"])
    need(s["keyring"] <= ring.version, "unknown_keyring", f"it names {s['keyring']}, the lane has {ring.version}")
    d = known.get((e.delegation, s["signer"], ring.version))
    if d is None:
        d = known[e.delegation, s["signer"], ring.version] = read_delegation(e.delegation, s["signer"], ring)
    # What is signed must be what the record shows: its body, its delegation, its partition.
    for name, value in (("body", e.body), ("delegation", e.delegation)):
        same = s[f"{name}_sha256"] == hashlib.sha256(value).hexdigest()
        need(same, "bad_signature", f"the {name} is not the one that was signed")
    need(s["lane"] == e.partition and is_int(s["lane"]), "bad_signature", "it was not signed for this lane")
    need(signed_by(d["session"], message, e.signature), "bad_signature", "it does not verify over what is here")
    key, now = ring.keys[s["signer"]], e.append_ms
    alive = key.get("not_before", now) <= now <= key.get("not_after", now)
    need(alive, "expired_delegation", f"the key {s['signer']} does not count at {now} ms")
    alive = d["nbf"] * 1000 - CLOCK_SKEW_MS <= now <= d["naf"] * 1000 + 999
    need(alive, "expired_delegation", f"appended at {now} ms; delegated from {d['nbf']} to {d['naf']} s")
    need(s["signer"] not in ring.revocations, "revoked_key", f"the key {s['signer']} is revoked")
    need(d["keyring"] <= s["keyring"], "bad_delegation", "it names a newer keyring than the event")
    need(s["topic"] in d["events"], "not_allowed", f"the delegation is not for {s['topic']}")
    body = Datum(e.body).whole(schema)
    need("model" not in body or body["model"] == s["key"], "wrong_key", "the body is about another model than the key")
    check_role(s, body, ring, ring.principals[key["principal"]])
    return Event(body, hashlib.sha256(message).hexdigest())


def check_role(s: dict[str, Any], body: dict[str, Any], ring: Keyring, who: dict[str, Any]) -> None:
    """Whether the signer's roles let it say this, of this model, in this environment, as whom it names."""
    topic, name = s["topic"], who["id"]
    grants = [grant for grant in who["grants"] if topic in ring.roles[grant["role"]]]
    model = None if s["key"].startswith("_") else s["key"]
    environment = body.get("target_env") or body.get("env")
    if model is None and topic in WIDE:
        may = any("*" in grant["models"] and not grant["environments"] for grant in grants)
    else:
        may = any(
            (model is None or any(fnmatch.fnmatchcase(model, pattern) for pattern in grant["models"]))
            and (environment is None or not grant["environments"] or environment in grant["environments"])
            for grant in grants
        )
    need(may, "not_allowed", f"{name} may not say {topic} of {model or 'everything'} in {environment or 'general'}")
    speaker = SPEAKER.get(topic)
    need(speaker is None or body.get(speaker) == name, "not_allowed", f"signed by {name}, names another as {speaker}")
    if not who["counted"] or topic in UNCOUNTED:
        need(s["producer"] is None, "not_allowed", f"{name} does not number its {topic}; this one carries a number")
        return
    expected = f"{name}/{s['lane']}"
    need(s["producer"] == expected, "not_allowed", f"{name} numbers its events as {expected}")
    need(topic != "producer.heartbeat" or body.get("producer") == expected, "not_allowed", "a heartbeat of another")


# --- 6. The Kernel's chain: payload, hash and signature of every row --------------------------------------------------

ACTOR = {topic: field for topic, field in SPEAKER.items() if topic != "event.refused"}
CERTIFICATE_TYPE = "application/vnd.ai-infra.chain-key.v1+json"
ESCAPED = re.compile("[%<>&\u2028\u2029\b\f]")
ESCAPED_IN_KEY = re.compile("[%<>&\b\f]|[^\x00-\x7f]")
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Schemas:
    """The archived schemas: each is what its name, the SHA-256 of its canonical form, says."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.known: dict[str, Any] = {}

    def of_topic(self, topic: str, sha256: str) -> Any:
        if sha256 not in self.known:
            try:
                text = self.folder.read(f"schemas/{sha256}.avsc", MAX_SCHEMA)
            except Bad as bad:
                raise Bad("unknown_schema", bad.why) from None
            schema = parse_json(text, "bad_schema", f"schemas/{sha256}.avsc")
            same = hashlib.sha256(canonical(schema)).hexdigest() == sha256
            need(same, "bad_schema", f"schemas/{sha256}.avsc is not the schema of that name")
            self.known[sha256] = schema
        schema = self.known[sha256]
        name = "".join(word.capitalize() for word in re.split("[._]", topic))
        good = isinstance(schema, dict) and (schema.get("namespace"), schema.get("name")) == ("ai_infra.events", name)
        need(good and schema.get("type") == "record", "unknown_schema", f"{sha256} is no schema of {topic}")
        return schema


class Datum:
    """Strict reading of one Avro datum, into the form that a Kernel payload shows."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.steps = data, 0, 0
        self.named: dict[str, Any] = {}

    def whole(self, schema: Any) -> dict[str, Any]:
        try:
            value = self.read(schema, 0)
        except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise Bad("undecodable_body", f"schema and body do not fit: {type(error).__name__}") from None
        need(self.at == len(self.data), "undecodable_body", f"{len(self.data) - self.at} bytes are left over")
        return dict(value)

    def take(self, count: int) -> bytes:
        need(0 <= count <= len(self.data) - self.at, "undecodable_body", f"it is cut short at byte {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def integer(self, bits: int = 64) -> int:
        z = shift = 0
        while True:
            byte = self.take(1)[0]
            z |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            need(shift < 70, "undecodable_body", "an integer of more than 10 bytes")
        number = (z >> 1) ^ -(z & 1)
        need(-(1 << (bits - 1)) <= number < 1 << (bits - 1), "undecodable_body", f"{number} has more than {bits} bits")
        return number

    def text(self) -> str:
        raw = self.take(self.integer())
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Bad("bad_text", f"no UTF-8 before byte {self.at}") from None
        need("\0" not in text, "bad_text", "U+0000 in a text")
        return text

    def index(self, count: int) -> int:
        number = self.integer()
        need(0 <= number < count, "undecodable_body", f"index {number} of {count}")
        return number

    def block(self) -> int:
        count = self.integer()
        if count < 0:
            count = -count
            need(0 <= self.integer() <= len(self.data) - self.at, "undecodable_body", "the size of a block")
        need(count <= len(self.data) - self.at, "undecodable_body", "the count of a block")
        return count

    def read(self, schema: Any, depth: int) -> Any:
        self.steps += 1
        need(depth <= 40 and self.steps <= MAX_STEPS, "undecodable_body", "it is nested too deeply, or has no end")
        if isinstance(schema, list):
            return self.read(schema[self.index(len(schema))], depth + 1)
        if isinstance(schema, str):
            if schema in self.named:
                return self.read(self.named[schema], depth + 1)
            schema = {"type": schema}
        kind = schema["type"]
        if kind == "string":
            return self.text()
        if kind == "long" and schema.get("logicalType") == "timestamp-millis":
            number = self.integer()
            need(-62_135_596_800_000 <= number <= 253_402_300_799_999, "undecodable_body", "a time out of all years")
            return (EPOCH + timedelta(milliseconds=number)).isoformat(timespec="milliseconds")[:23] + "Z"
        if kind in ("int", "long"):
            return self.integer(32 if kind == "int" else 64)
        if kind == "boolean":
            byte = self.take(1)[0]
            need(byte <= 1, "undecodable_body", "a boolean is 0 or 1")
            return byte == 1
        if kind == "null":
            return None
        if kind == "record":
            self.named[schema["name"]] = schema
            return {field["name"]: self.read(field["type"], depth + 1) for field in schema["fields"]}
        if kind == "enum":
            self.named[schema["name"]] = schema
            return schema["symbols"][self.index(len(schema["symbols"]))]
        if kind == "array":
            items: list[Any] = []
            while count := self.block():
                items += [self.read(schema["items"], depth + 1) for _ in range(count)]
            return items
        if kind == "map":
            return self.mapping(schema["values"], depth + 1)
        return self.read(kind, depth + 1) if not isinstance(kind, str) or kind in self.named else self.unknown(kind)

    def mapping(self, values: Any, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while count := self.block():
            for _ in range(count):
                key = self.text()
                need(key not in entries, "undecodable_body", "a key of a map comes twice")
                entries[key] = self.read(values, depth)
        return entries

    def unknown(self, kind: str) -> Any:
        raise Bad("undecodable_body", f"a schema here has no type {kind!r}")


def percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def portable(value: Any) -> Any:
    """Texts as the Kernel's two verifiers write them alike: some characters as %XX, large integers as text."""
    if isinstance(value, str):
        return ESCAPED.sub(percent, value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -SAFE_INT <= value <= SAFE_INT else str(value)
    if isinstance(value, list):
        return [portable(item) for item in value]
    return {portable_key(k): portable(item) for k, item in value.items()} if isinstance(value, dict) else value


def portable_key(key: str) -> str:
    key = ESCAPED_IN_KEY.sub(percent, key)
    return f"%{ord(key[0]):02X}{key[1:]}" if re.fullmatch("[0-9]+|__proto__", key) else key


def kernel_payload(e: Entry, event: Event) -> bytes:
    s, field = e.statement, ACTOR.get(e.statement["ce_type"])
    payload = {
        "action": s["ce_type"],
        "actor": portable(event.body[field] if field else s["signer"]),
        "body": portable(event.body),
        "event_hash": event.hash,
        "event_id": s["ce_id"],
        "lane": e.lane,
        "model": portable(s["key"]),
        "parents": [cause["id"] for cause in s["causes"]],
        "position": e.position,
        "resource": portable(s["ce_subject"] or s["key"]),
        "signer": portable(s["signer"]),
        "source": portable(s["ce_source"]),
        "time": s["ce_time"],
    }
    return canonical(payload)


def check_chain(e: Entry, event: Event, ring: Keyring) -> bytes:
    """The row's hash follows from what the event says, and a chain key has signed it. Returns the payload."""
    chain, payload = e.chain, kernel_payload(e, event)
    digest = hashlib.sha256(payload + bytes.fromhex(chain["prev_hash"] or "")).digest()
    need(digest.hex() == chain["hash"], "bad_chain_hash", f"it is {chain['hash']}, its payload gives {digest.hex()}")
    need(chain["id"] == e.statement["ce_id"], "broken_chain", f"the row is about {chain['id']}, the event is another")
    known = ring.key(chain["signer_id"], "chain") is not None
    need(known, "unknown_chain_key", f"{chain['signer_id']!r} is no chain key")
    need(chain["signer_id"] not in ring.revocations, "revoked_key", f"{chain['signer_id']} was revoked before")
    good = signed_by(ring.public(chain["signer_id"]), digest, base64.b64decode(chain["signature"]))
    need(good, "bad_chain_signature", f"the row is not signed by {chain['signer_id']}")
    return payload


def kernel_event(e: Entry, payload: bytes, origin: str) -> bytes:
    """The row as the topic audit-events and the file audit-events.jsonl have it."""
    kind, chain = e.statement["ce_type"], e.chain
    seconds, micros = divmod(chain["ts"], 1_000_000)
    when = (EPOCH + timedelta(seconds=seconds)).replace(microsecond=micros)
    row = {
        "eventType": kind,
        "hash": chain["hash"],
        "id": chain["id"],
        "metadata": {"eventType": kind, "lane": e.lane, "origin": f"{origin}/lanes/{e.lane}", "position": e.position},
        "payload": parse_json(payload, "unreadable", "the payload"),
        "prevHash": chain["prev_hash"],
        "signature": chain["signature"],
        "signerId": chain["signer_id"],
        "ts": when.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "version": 1,
    }
    return canonical(row) + b"\n"


def check_place_in_lane(e: Entry, lane: int, position: int, before: Entry | None) -> None:
    """Lane and position; and, where the entry before it is known, that this one follows it."""
    expected = f"expected entry {position} of lane {lane}, this is entry {e.position} of lane {e.lane}"
    need((e.lane, e.position) == (lane, position), "wrong_position", expected)
    floor = e.append_ms * 1000
    if before is not None or position == 0:
        last = (None, 0) if before is None else (before.chain["hash"], before.chain["ts"])
        need(e.chain["prev_hash"] == last[0], "broken_chain", f"its previous hash is not that before, {last[0]}")
        floor = max(floor, last[1] + 1)
        need(e.chain["ts"] == floor, "bad_time", f"its time is {e.chain['ts']} us, expected {floor}")
    need(e.chain["ts"] >= floor, "bad_time", f"its time is {e.chain['ts']} us, expected at least {floor}")


def check_certificate(text: bytes, name: str, ring: Keyring) -> None:
    """The audit key's word that a chain key signs rows."""
    code = "bad_certificate"
    payload, signatures = envelope(text, CERTIFICATE_TYPE, code)
    said = parse_json(payload, code, "the certificate")
    try:
        issuer, chain, at = ring.key(said["issuer"], "audit"), ring.key(name, "chain"), said["issued_at"]
        need(issuer is not None, code, f"it is by {said['issuer']!r}, which is no audit key of the keyring")
        keyed = dict(signatures)
        good = signed_by(ring.public(said["issuer"]), pae(CERTIFICATE_TYPE, payload), keyed.get(said["issuer"], b""))
        need(good, code, f"it is not signed by {said['issuer']}")
        need(chain is not None and said["chain_key"] == name, code, f"it is about {said['chain_key']!r}, not {name}")
        assert issuer is not None and chain is not None
        need(said["public_key"] == chain["public_key"], code, f"it certifies another key as {name}")
        need(issuer.get("not_before", at) <= at <= issuer.get("not_after", at), code, "its issuer did not count then")
        end = ring.revocations.get(said["issuer"])
        need(end is None or at < end["revoked_at"], code, "its issuer was revoked before")
    except (KeyError, TypeError, AttributeError) as error:
        raise Bad(code, f"not a certificate: {type(error).__name__}") from None


# --- 7. Completeness: services number what they say, and nothing is entered twice -------------------------------------


class Said(NamedTuple):
    """A number, as a producer used it."""

    digest: bytes  # halves of event_hash, and of the hash that it names as the event before: 128 bits
    prev: bytes
    position: int
    append_ms: int


class Completeness:
    """Of one lane: numbers run from 1 without a hole, each is used once, each event names the one before.

    Topics are read side by side, so an event may come a little after its successors. What is missing below a number
    counts as withheld when the lane's log has gone on for SETTLED_MS after that number; before, it is told as open.
    """

    def __init__(self) -> None:
        self.numbers: dict[tuple[str, int], dict[int, Said]] = {}
        self.refused: dict[bytes, str] = {}  # half of a refused event's hash, and where the log says so, and why
        self.ids: dict[str, int] = {}
        self.newest_ms = 0

    def take(self, e: Entry, event: Event) -> None:
        s, digest = e.statement, bytes.fromhex(event.hash)[:16]
        self.newest_ms = max(self.newest_ms, e.append_ms)
        # A service that lost its state may say the same event again under a new number; nobody else may.
        before = self.ids.setdefault(s["ce_id"], e.position)
        if s["producer"] is None:
            need(before == e.position, "sequenced_twice", f"its event is at position {before} already")
            return
        numbers = self.numbers.setdefault((s["producer"], s["epoch"]), {})
        known = numbers.setdefault(s["seq"], Said(digest, bytes.fromhex(s["prev"] or "")[:16], e.position, e.append_ms))
        code = "sequenced_twice" if known.digest == digest else "equivocation"
        need(
            known.position == e.position, code, f"number {s['seq']} of {s['producer']} is at position {known.position}"
        )
        if s["topic"] == "event.refused" and event.body.get("service") == "indexer":
            # The log itself says why it has a hole. That is its word: the event is not here, so nobody can judge it.
            why = ", ".join(str(reason["code"]) for reason in event.body["reasons"][:4])
            where = f"at position {e.position} the log says that it refused it ({why})"
            self.refused.setdefault(bytes.fromhex(str(event.body["event_hash"]))[:16], where)

    def end(self, report: Report) -> None:
        for (producer, epoch), numbers in sorted(self.numbers.items()):
            expected = 1
            for seq, said in sorted(numbers.items()):
                excused = expected < seq and said.prev in self.refused
                last = seq - 2 if excused else seq - 1
                if excused:
                    what = f"lane {report.lane}: number {seq - 1} of {producer} epoch {epoch} is not in the log"
                    report.refused.append(f"{what}: {self.refused[said.prev]}")
                if expected <= last:
                    what = f"{producer} epoch {epoch}: {expected} to {last} are not in the log, {seq} is"
                    if self.newest_ms - said.append_ms >= SETTLED_MS:
                        report.add(said.position, "withheld_event", what)
                    else:
                        report.open.append(f"lane {report.lane} position {said.position}: {what}")
                elif seq - 1 in numbers and numbers[seq - 1].digest != said.prev:
                    what = f"{producer} epoch {epoch}: {seq} names another event before it than {seq - 1} in the log"
                    report.add(said.position, "equivocation", what)
                expected = seq + 1


# --- One lane, in a process of its own --------------------------------------------------------------------------------


class Report:
    """What was found in one lane, or (lane None) in the folder as a whole."""

    def __init__(self, lane: int | None) -> None:
        self.lane = lane
        self.problems: list[Problem] = []
        self.open: list[str] = []
        self.refused: list[str] = []
        self.beside: list[str] = []

    def add(self, position: int | None, code: str, detail: str) -> None:
        if code == "no_keyring" and any(problem.code == code for problem in self.problems):
            return  # said once: it concerns every entry
        if len(self.problems) <= MAX_PROBLEMS:
            more = len(self.problems) == MAX_PROBLEMS
            self.problems.append(Problem(self.lane, position, "more" if more else code, detail))


class Broadcast(NamedTuple):
    """A version of what every lane has, as one lane has it."""

    content: str  # its SHA-256
    append_ms: int
    position: int


class Job(NamedTuple):
    """What every process knows."""

    root: str
    roots: Roots
    origin: str
    lanes: int
    selection: dict[str, Any]  # of the export's statement; empty where the folder shows everything
    heads: dict[int, int]  # sizes that `heads` claims


class Lane:
    """Sections 2 to 7 for one lane, and what came of it."""

    def __init__(self, job: Job, number: int) -> None:
        self.job, self.number, self.report = job, number, Report(number)
        self.folder, self.prefix = Folder(job.root), f"lanes/{number}"
        self.tiles, self.schemas = Tiles(self.folder, number), Schemas(self.folder)
        self.rings: dict[int, Keyring] = {}  # by the position at which each was entered
        self.broadcasts: dict[str, dict[int, Broadcast]] = {"keyring": {}, "policy": {}}  # by version
        self.newest_ms = 0  # the newest append time of an entry
        self.note = b""  # the checkpoint's file
        self.head: Checkpoint | None = None
        self.leaves: bytes | None = None
        self.head_root: bytes | None = None  # the tree's root at the size that `heads` claims
        self.parts: list[tuple[int, int]] = []  # first position and count of what is in one file
        self.vouched: dict[Any, dict[str, Any]] = {}
        self.before: Entry | None = None
        self.ring: Keyring | None = None  # in force at the entry that is looked at
        self.completeness = Completeness()
        rows = f"{self.prefix}/audit-events.jsonl"
        self.rows = self.folder.lines(rows) if self.folder.has(rows) else None
        self.rows_read = 0
        self.chain_keys: set[str] = set()
        self.count = self.void = self.checkpoints = 0
        self.shown: dict[str, Any] = {"lane": number}  # what an export may claim of it

    def check(self) -> Lane:
        try:
            self.open()
        except Bad as bad:
            self.report.add(None, bad.code, bad.why)
        except Exception as error:  # noqa: BLE001 - whatever bytes provoke here is named, and other lanes are checked
            self.report.add(None, "unreadable", f"{type(error).__name__} {str(error)[:80]}")
        # Too large to be handed over.
        self.leaves, self.rows, self.parts, self.completeness = None, None, [], Completeness()
        self.schemas, self.vouched = Schemas(self.folder), {}
        return self

    @property
    def newest(self) -> Keyring:
        return self.rings[max(self.rings)]

    def open(self) -> None:
        for _ in self.keyrings():
            pass
        need(
            bool(self.rings),
            "bad_checkpoint",
            "no keyring in this lane is signed by the root keys: who could judge it?",
        )
        self.head = open_checkpoint(self.note, f"{self.job.origin}/lanes/{self.number}", self.newest, True)
        self.leaves = check_tree(self.tiles, self.head.size, self.report)
        if self.leaves is not None:
            self.check_history(self.head, self.leaves)
        for position, raw in self.entries(None):
            self.take(position, raw)
        self.end(self.head)

    def keyrings(self) -> Iterator[Keyring]:
        """Section 2: what was entered, each verified from the root keys on, and taken in."""
        need(self.folder.has(f"{self.prefix}/checkpoint"), "no_checkpoint", f"{self.prefix}/checkpoint is not there")
        self.note = self.folder.read(f"{self.prefix}/checkpoint", MAX_NOTE)
        # Unverified, and good for one thing only: how far to look for the keyrings that the checkpoint is judged by.
        self.find(read_checkpoint(note_lines(self.note)).size)
        for position, raw in self.entries(self.report):
            # Only what may be one is decoded; a text that says so is no keyring for that.
            if raw is not None and b'"topic":"signer.changed"' in raw.partition(b"\n")[0]:
                self.find_keyring(position, raw)
                if position in self.rings:
                    yield self.rings[position]

    def find(self, size: int) -> None:
        """Where entries are: of a lane that claims this size, or of a selection."""
        if self.job.selection:
            self.parts = [(position, 1) for position in self.tiles.positions()]
            return
        count = -(-size // 256)
        there = self.tiles.there("entries", count)
        self.parts = [(256 * index, min(256, size - 256 * index)) for index in there]
        for first, end in gaps(there, count):
            what = f"entries {256 * first} to {min(256 * end, size) - 1} are not there"
            self.report.add(256 * first, "missing_bundle", what)

    def entries(self, report: Report | None) -> Iterator[tuple[int, bytes | None]]:
        """Positions and entries; None for those that can't be read, which `report` is told (the first time)."""
        for at, width in self.parts:
            raws: Sequence[bytes | None]
            try:
                raws = [self.tiles.selected(at)] if self.job.selection else self.tiles.bundle(at // 256, width)
            except Bad as bad:
                if report is not None:
                    report.add(at, bad.code.replace("missing_file", "missing_bundle"), bad.why)
                raws = [None] * width
            yield from enumerate(raws, at)

    def find_keyring(self, position: int, raw: bytes) -> None:
        try:
            e = read_entry(raw)
            if e.statement["topic"] != "signer.changed":
                return
            schema = self.schemas.of_topic("signer.changed", str(e.statement["schema_sha256"]))
            known = {ring.version: ring for ring in self.rings.values()}
            ring = next_keyring(str(Datum(e.body).whole(schema)["keyring"]), known, self.job.roots)
            if ring.version not in known:
                self.rings[position] = ring
                content = hashlib.sha256(ring.body).hexdigest()
                self.broadcasts["keyring"][ring.version] = Broadcast(content, e.append_ms, position)
        except Bad as bad:
            self.report.add(position, bad.code, bad.why)

    def check_history(self, head: Checkpoint, leaves: bytes) -> None:
        """The newest checkpoint, and every one that was kept, is of this tree or of a prefix of it: one history."""
        found = [("checkpoint", head)]
        for path in sorted(self.folder.files(f"{self.prefix}/checkpoints")):
            try:
                old = open_checkpoint(self.folder.read(path, MAX_NOTE), head.origin, self.newest, False)
                need(path.endswith(f"/{old.size:020d}"), "bad_checkpoint", "its size is not that of its name")
                found.append((path, old))
            except Bad as bad:
                self.report.add(None, bad.code, f"{path}: {bad.why}")
        claimed = self.job.heads.get(self.number, 0)
        roots = roots_at(leaves, [claimed, *(old.size for _, old in found)])
        self.head_root, self.checkpoints = roots.get(claimed), len(found)
        for path, old in found:
            if old.size > head.size:
                self.report.add(None, "rolled_back", f"{path} is newer than the lane's checkpoint of size {head.size}")
            elif roots[old.size] != old.root:
                what = f"{path}: the tree has root {roots[old.size].hex()}, not {old.root.hex()}"
                self.report.add(None, "wrong_root" if old is head else "forked", what)

    def take(self, position: int, raw: bytes | None) -> None:
        """Sections 5 and 6 for one entry, and the material for section 7."""
        before, self.before = self.before, None
        row = self.row(position)
        if raw is None:
            return
        self.count += 1
        try:
            if self.leaves is not None and self.leaves[32 * position : 32 * position + 32] != leaf_hash(raw):
                what = "its bytes do not have the leaf hash that the tree holds"
                self.report.add(position, "changed_entry", what)
            e = self.before = read_entry(raw)
            self.newest_ms = max(self.newest_ms, e.append_ms)
            check_place_in_lane(
                e, self.number, position, before if before and before.position == position - 1 else None
            )
            event, ring = self.judge(e, self.rings.get(position))
            payload = check_chain(e, event, ring)
            if e.statement["topic"] == "policy.changed":
                content = hashlib.sha256(event.body["policy_json"].encode()).hexdigest()
                need(is_int(event.body["version"]), "undecodable_body", "a policy's version is no integer")
                self.broadcasts["policy"].setdefault(event.body["version"], Broadcast(content, e.append_ms, position))
            check_selected(e, self.job.selection)
            same = row is None or row == kernel_event(e, payload, self.job.origin)
            need(same, "changed_row", "its line in audit-events.jsonl is not what it gives")
            if not self.job.selection:
                self.completeness.take(e, event)
        except Bad as bad:
            self.report.add(position, bad.code, bad.why)
            return
        except Exception as error:  # noqa: BLE001 - whatever bytes provoke here is named, and the rest is checked
            self.report.add(position, "unreadable", f"{type(error).__name__} {str(error)[:80]}")
            return
        end = self.newest.revocations.get(e.statement["signer"])
        self.void += end is not None and end["positions"].get(str(self.number), position + 1) <= position
        self.chain_keys.add(e.chain["signer_id"])
        self.shown["last"] = {"position": position, "event_id": e.statement["ce_id"]}
        self.shown.setdefault("first", self.shown["last"])

    def row(self, position: int) -> bytes | None:
        """The Kernel's row of an entry, where there is a file of them: of a whole lane the line of its position."""
        if self.rows is None:
            return None
        while not self.job.selection and self.rows_read < position and next(self.rows, None) is not None:
            self.rows_read += 1
        self.rows_read += 1
        return next(self.rows, b"")

    def judge(self, e: Entry, own: Keyring | None) -> tuple[Event, Keyring]:
        """By the keyring that the lane had before; a keyring's own messenger also by the one that it brings."""
        before, self.ring = self.ring, own or self.ring
        if self.ring is None:
            raise Bad("no_keyring", "no keyring is in the lane yet, so no signature can be judged")
        try:
            return check_event(e, before or self.ring, self.job.lanes, self.schemas, self.vouched), self.ring
        except Bad:
            if own is None or before is None:
                raise
        return check_event(e, own, self.job.lanes, self.schemas, self.vouched), self.ring

    def end(self, head: Checkpoint) -> None:
        self.completeness.end(self.report)
        if self.rows is not None and next(self.rows, None) is not None:
            self.report.add(None, "changed_row", "audit-events.jsonl has more rows than there are entries")
        self.shown |= {"size": head.size, "root": base64.b64encode(head.root).decode()}
        self.shown |= {"count": self.count, "shows": "a selection" if self.job.selection else "all"}
        if self.before is not None and self.before.position == head.size - 1:
            self.shown["head_hash"] = self.before.chain["hash"]


def check_lane(job: Job, number: int) -> Lane:
    return Lane(job, number).check()


def check_selected(e: Entry, selection: dict[str, Any]) -> None:
    """Whether an entry belongs to the selection that was signed for. Broadcasts always do."""
    model, since, until = (selection.get(name) for name in ("model", "from_ms", "to_ms"))
    good = (model is None or e.statement["key"] == model) and (since is None or e.append_ms >= since)
    good = (good and (until is None or e.append_ms < until)) or e.statement["topic"] in BROADCAST
    need(good, "not_selected", "the entry is not of the selection that the export says it is")


# --- 8. The export's own statement ------------------------------------------------------------------------------------

EXPORT_TYPE = "application/vnd.ai-infra.export.v1+json"


class Statement(NamedTuple):
    """What is signed of an export; a hint of where to look, until its signature is verified."""

    said: dict[str, Any]
    payload: bytes
    signatures: list[tuple[str, bytes]]

    def signed_by(self, ring: Keyring, standing: bool) -> bool:
        message = pae(EXPORT_TYPE, self.payload)
        return any(
            signed_by(key, message, sig) for key in audit_keys(ring, standing) for _, sig in self.signatures[:16]
        )


def read_statement(folder: Folder) -> Statement:
    code = "bad_statement"
    payload, signatures = envelope(folder.read("statement.json", MAX_STATEMENT), EXPORT_TYPE, code)
    said = parse_json(payload, code, "the statement")
    good = type(said) is dict and said.keys() == {"format", "index_sha256", "made_at", "origin", "selection"}
    good = good and all(type(value) is (dict if name == "selection" else str) for name, value in said.items())
    need(good and said["format"] == "ai-infra-export/v1", code, "it has other fields, or is of another format")
    return Statement(said, payload, signatures)


def read_index(folder: Folder, statement: Statement) -> dict[str, Any]:
    """index.json. To be parsed only where the log has signed what it must be: a list of a few megabytes costs a hundred
    times as much memory. And it names files, so it is not much longer than there are files."""
    code, said = "bad_statement", statement.said
    there = sum(1 for _ in folder.files())
    data = folder.read("index.json", min(MAX_INDEX, (1 << 20) + 1024 * there))
    need(hashlib.sha256(data).hexdigest() == said["index_sha256"], code, "index.json is not the one that was signed")
    index = parse_json(data, code, "index.json")
    try:
        same = all(said[name] == index[name] for name in ("origin", "made_at", "selection", "format"))
        need(same, code, "statement and index differ")
        good = is_int(index["lanes_of_log"]) and all(is_int(claim["lane"]) for claim in index["lanes"])
        good = good and all(is_int(file["bytes"]) for file in index["files"].values())
        need(good and index["lanes_of_log"] >= 1, code, "index.json has a field of another kind")
    except (KeyError, TypeError, AttributeError) as error:
        raise Bad(code, f"index.json cannot be read: {type(error).__name__}") from None
    return dict(index)


def signed_by_the_log(job: Job, statement: Statement, lanes: list[int]) -> bool:
    """Whether any keyring in these lanes, verified from the root keys on, has an audit key that signed the statement.
    Usually the first entry of the first lane says so. If the key counts today is for `check_export` to say."""
    for number in lanes:
        lane = Lane(job, number)
        try:
            if any(statement.signed_by(ring, False) for ring in lane.keyrings()):
                return True
        except Exception:  # noqa: BLE001, S112 - whatever is wrong with a lane, the check of it will name
            continue
    return False


# What a reader of a log may look for. Anything else in the folder was read by nobody here, and vouched for by nobody.
LOG_FOLDERS = {"lanes", "schemas", "trust"}
LOG_FILES = {"heads", "readme.txt", "roots.json", "signers.json", "verify.py"}


def check_export(folder: Folder, index: dict[str, Any], lanes: list[Lane], report: Report) -> None:
    """Every file's hash, and what is claimed of each lane."""
    files = index["files"]
    for path in sorted(set(folder.files()) - set(files) - {"statement.json", "index.json"}):
        if path.lower().split("/")[0] in LOG_FOLDERS or path.lower() in LOG_FILES:
            report.add(None, "unlisted_file", f"{path[:200]!r} is in the folder, and the export does not name it")
        else:
            report.beside.append(f"{path[:200]!r}")
    for path, said in sorted(files.items()):
        try:
            same = folder.sha256(path, said["bytes"]) == said.get("sha256")
            need(same, "changed_file", f"{path} is not the file that the export names")
        except Bad as bad:
            report.add(None, bad.code, bad.why)
    shown = {lane.number: lane.shown for lane in lanes}
    for claim in index["lanes"]:
        found = shown.get(claim["lane"], {})
        for name, value in sorted(claim.items()):
            if found.get(name) != value and (
                name != "head_hash" or name in found
            ):  # a selection may end before the lane
                what = f"the export says of lane {claim['lane']} that {name} is {value}; found {found.get(name)}"
                report.add(None, "wrong_claim", what)


# --- The whole folder -------------------------------------------------------------------------------------------------


def check_together(job: Job, lanes: list[Lane]) -> None:
    """The lanes against each other: what is broadcast is in all of them and the same, and no checkpoint counts by a key
    that another lane knows to be revoked. Else whoever withholds a revocation from one lane goes on speaking there."""
    for what in ("keyring", "policy"):
        for version in sorted({version for lane in lanes for version in lane.broadcasts[what]}):
            having = [(lane, lane.broadcasts[what][version]) for lane in lanes if version in lane.broadcasts[what]]
            first, said = having[0]
            for lane, here in having[1:]:
                if here.content != said.content:
                    why = f"version {version} of the {what} is {here.content}, in lane {first.number} {said.content}"
                    lane.report.add(here.position, f"{what}_conflict", why)
            since = min(here.append_ms for _, here in having)
            for lane in lanes:
                newest = max(lane.broadcasts[what], default=0)
                if newest < version and lane.newest_ms - since > SETTLED_MS:
                    why = f"version {version} of the {what} was said at {since} ms and is in lane {first.number}"
                    why += f"; this lane went on to {lane.newest_ms} ms without it"
                    lane.report.add(None, f"withheld_{what}", why)
    latest = max((lane for lane in lanes if lane.rings), key=lambda lane: lane.newest.version, default=None)
    for lane in lanes:
        if latest is None or lane.head is None or lane.newest.version == latest.newest.version:
            continue  # no verified checkpoint, or one that was judged by that version
        try:
            open_checkpoint(lane.note, f"{job.origin}/lanes/{lane.number}", latest.newest, True)
        except Bad as bad:
            lane.report.add(None, bad.code, f"by keyring {latest.newest.version} of lane {latest.number}: {bad.why}")


def check_heads(folder: Folder, job: Job, lanes: list[Lane], ring: Keyring) -> None:
    """`heads` names all lanes at one moment: none may be shown older than there, or of another history."""
    name, code = f"{job.origin}/heads", "bad_heads"
    lines = open_note(folder.read("heads", MAX_NOTE), name, audit_keys(ring, True))
    need(
        lines[:2] == [name, "heads/v1"] and len(lines) == 3 + job.lanes,
        code,
        f"expected the heads of {job.lanes} lanes",
    )
    for lane in lanes:
        if lane.number >= job.lanes:
            continue  # no lane of this log, which is named already
        words = lines[3 + lane.number].split(" ")
        need(words[:2] == ["lane", str(lane.number)] and len(words) == 4, code, "its lanes are not in order")
        size, root = read_head(words[2], words[3])
        older = lane.head is not None and lane.head.size < size
        need(not older, "older_than_heads", f"lane {lane.number} has size {size} there, and is shown older")
        forked = lane.head_root is not None and lane.head_root != root
        need(not forked, "fork_from_heads", f"lane {lane.number} has another root at size {size} there")


def check_companions(folder: Folder, ring: Keyring, chain_keys: set[str], report: Report) -> list[str]:
    """Certificates of the chain keys that signed rows, and the signers file; returns chain keys without certificate."""
    certificates = {name: f"trust/{name}.certificate.json" for name in sorted(chain_keys)}
    for name, path in certificates.items():
        try:
            if folder.has(path):
                check_certificate(folder.read(path, MAX_SMALL), name, ring)
        except Bad as bad:
            report.add(None, bad.code, f"{path}: {bad.why}")
    try:
        if folder.has("signers.json"):
            for item in parse_json(folder.read("signers.json", MAX_SMALL), "bad_signers", "signers.json")["signers"]:
                known = ring.keys.get(item["signerId"], {}).get("public_key") == item["publicKey"]
                need(
                    known, "bad_signers", f"{item['signerId']!r} has another public key in the keyring, or is not in it"
                )
    except (KeyError, TypeError, AttributeError, Bad) as error:
        report.add(None, "bad_signers", f"signers.json: {error}")
    return [name for name, path in certificates.items() if not folder.has(path)]


def guesses(folder: Folder, lanes: list[int]) -> tuple[str, dict[int, int]]:
    """The log's name by its first checkpoint, and the sizes in `heads`: unverified, to know what to look for."""
    try:
        origin = re.sub("/lanes/[0-9]+$", "", note_lines(folder.read(f"lanes/{lanes[0]}/checkpoint", MAX_NOTE))[0])
    except (Bad, IndexError):
        origin = ""
    try:
        lines = note_lines(folder.read("heads", MAX_NOTE))[3:]
        return origin, {lane: int(line.split(" ")[2][:18]) for lane, line in enumerate(lines)}
    except (Bad, ValueError, IndexError):
        return origin, {}


def verify(path: str, roots: Roots, origin: str | None, lanes: int | None, processes: int) -> dict[str, Any]:
    """Everything about one folder: problems, what was checked, what was not."""
    folder, report, unsure = Folder(path), Report(None), list[str]()
    statement = index = None
    found = {p.split("/")[1] for p in folder.files("lanes")}
    numbers = sorted(int(name) for name in found if re.fullmatch("0|[1-9][0-9]{0,5}", name))
    guessed, heads = guesses(folder, numbers)
    try:
        if folder.has("statement.json"):
            statement = read_statement(folder)
            unread = Job(folder.root, roots, "", 1, statement.said["selection"], {})
            known = signed_by_the_log(unread, statement, numbers)
            need(known, "bad_statement", "it is signed by no audit key of the keyrings here")
            index = read_index(folder, statement)
    except Bad as bad:
        report.add(None, bad.code, bad.why)
    if index is not None:
        guessed = index["origin"]
        need_lanes = sorted(claim["lane"] for claim in index["lanes"])
    elif statement is not None:
        need_lanes = numbers  # which should be here, nobody says who could be believed
    else:
        need_lanes = list(range(lanes or max(numbers, default=0) + 1))
    for lane in sorted(set(numbers) ^ set(need_lanes)):
        report.add(
            None, "missing_lane" if lane in need_lanes else "unlisted_lane", f"expected lanes {need_lanes}: {lane}"
        )
    if lanes is None:
        lanes = index["lanes_of_log"] if index is not None else max(need_lanes, default=0) + 1
        unsure += (
            [] if index is not None else [f"how many lanes the log has: {lanes} are in the folder (say --lanes N)"]
        )
    if origin is None:
        origin = guessed
        unsure.append(f"the log's name: the folder says {origin!r} (say --origin NAME)")
    elif index is not None and origin != guessed:
        report.add(None, "wrong_origin", f"expected a log named {origin}, the export is of {guessed!r}")
    job = Job(folder.root, roots, origin, lanes, statement.said["selection"] if statement is not None else {}, heads)
    work = [(job, number) for number in numbers]
    if min(processes, len(numbers)) > 1:
        with multiprocessing.Pool(min(processes, len(numbers))) as pool:
            done = pool.starmap(check_lane, work, 1)
    else:
        done = [check_lane(*one) for one in work]
    check_together(job, done)
    for lane_ in done:
        report.problems += lane_.report.problems
        report.open += lane_.report.open
        report.refused += lane_.report.refused
    ring = max((lane_.newest for lane_ in done if lane_.rings), key=lambda ring: ring.version, default=None)
    if ring is not None:
        bare = check_companions(folder, ring, {name for lane_ in done for name in lane_.chain_keys}, report)
        unsure += [f"a certificate of the chain key {name}: none is here; the keyring names the key" for name in bare]
        try:
            if statement is not None and index is not None:
                if not statement.signed_by(ring, True):
                    report.add(None, "bad_statement", "the audit key that signed it is revoked")
                check_export(folder, index, done, report)
            if folder.has("heads"):
                check_heads(folder, job, done, ring)
        except Bad as bad:
            report.add(None, bad.code.replace("bad_checkpoint", "bad_heads"), f"heads: {bad.why}")
    if not folder.has("heads"):
        unsure.append("whether all lanes are shown as of one moment: there is no file heads")
    beside = [*report.beside[:20], *(["and more"] if len(report.beside) > 20 else [])]
    unsure += [f"a file that is none of the export's: {text}" for text in beside]
    return {
        "ok": not report.problems,
        "origin": origin,
        "export": index is not None,
        "selection": job.selection,
        "entries": sum(lane_.shown.get("count", 0) for lane_ in done),
        "void": sum(lane_.void for lane_ in done),
        "keyring": ring.version if ring is not None else 0,
        "files": len(index["files"]) if index is not None else 0,
        "checkpoints": sum(lane_.checkpoints for lane_ in done),
        "heads": folder.has("heads"),
        "lanes": [lane_.shown for lane_ in done],
        "problems": [problem._asdict() for problem in report.problems],
        "open": report.open,
        "refused": report.refused,
        "unsure": unsure,
    }


def summary(r: dict[str, Any], roots: Roots, inside: bool) -> str:
    """In plain words: what was checked, what was found, what no check of this kind can say."""
    some = "selected " if r["selection"] else ""
    lines = [f"{'Export' if r['export'] else 'Copy'} of {r['origin']!r}: {r['entries']} {some}entries"]
    for lane in r["lanes"]:
        if "root" in lane:
            lines.append(f"  lane {lane['lane']}: {lane['count']} of {lane['size']} entries, root {lane['root']}")
    lines += [
        "Checked:",
        f"  keyrings up to version {r['keyring']}, from {roots.threshold} of {len(roots.keys)} root keys on",
        f"  {r['checkpoints']} checkpoint(s) and the trees under them{', heads over all lanes' if r['heads'] else ''}",
        "  of each entry: its place, delegation, signature, life, role and schema; its row's hash and signature",
    ]
    lines += [] if r["selection"] else ["  that services' numbers have no hole, and nothing was entered twice"]
    lines += [f"  the export's statement and its {r['files']} files"] if r["export"] else []
    lines += [f"  ({r['void']} entries are void by a later, retroactive revocation)"] if r["void"] else []
    lines += ["NOT checked:", *(f"  {text}" for text in r["unsure"])]
    lines += ["  the root keys: they lie in the folder itself, which so only agrees with itself"] if inside else []
    lines += [f"  too near the end of the log to be judged: {text}" for text in r["open"]]
    lines += [f"  whether the log had to refuse an event that it does not show: {text}" for text in r["refused"]]
    if r["selection"]:
        lines.append("  what the selection leaves out: other entries, withheld numbers, keyrings that were not shown")
    lines += [
        "  whether this is the newest state, and what others are shown: compare the roots with those that others saw",
        "  whether what was signed is true; the append times; files that the log only names (models, datasets)",
    ]
    for p in r["problems"]:
        where = " ".join(f"{what} {p[what]}" for what in ("lane", "position") if p[what] is not None) or "folder"
        lines.append(f"PROBLEM {where}: {p['code']}: {p['detail']}")
    lines.append("Everything verifies." if r["ok"] else f"{len(r['problems'])} problem(s): this does NOT verify.")
    # Nothing that the folder says may speak to the terminal.
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a copy of an ai-infra log, or an export of it.")
    parser.add_argument("folder", nargs="?", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--roots", required=True, help="the root keys that you trust (roots.json)")
    parser.add_argument("--origin", help="the log's name; else the folder's word is taken for it, and said")
    parser.add_argument("--lanes", type=int, help="how many lanes the log has; else the folder's word is taken for it")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="lanes checked at a time")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    given = parser.parse_args()
    try:
        with open(given.roots, "rb") as file:
            roots = read_roots(parse_json(file.read(MAX_SMALL), "bad_roots", "the file of root keys"))
    except (OSError, Bad) as error:
        parser.error(f"{given.roots} holds no root keys: {error}")
    if not os.path.isdir(os.path.join(given.folder, "lanes")):
        parser.error(f"{given.folder} is no copy of a log: it has no folder lanes/")
    result = verify(given.folder, roots, given.origin, given.lanes, max(1, given.processes))
    inside = os.path.realpath(given.roots).startswith(os.path.realpath(given.folder) + os.sep)
    print(json.dumps(result, indent=2) if given.json else summary(result, roots, inside))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
