"""`verify.py` and our own audit come to one verdict about any entry: two programs that share no code.

Entries are changed at random, from single fields to their kinds, signed anew by their senders where possible, and
entered by a log whose keys fit again. Where one of the two accepts and the other refuses, one of them is wrong.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.tampering.forging import Forger, Header, sign_header
from tests.properties import SOAK
from tests.unit.indexer.log_folder import LANES, ORIGIN, LogFolder

from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.exceptions import CanonicalError
from ai_infra.objects.reader import FolderReader
from ai_infra.trust.dsse import sign_document
from ai_infra.trust.keyring_document import KEYRING_PAYLOAD_TYPE
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.audit import audit_archive
from ai_infra_indexer.export import verify as verifier

TRIES = 3_000 if SOAK else 150
VOICES = {
    1: "orchestrator",
    2: "trainer",
    3: "trainer",
    4: "registry",
    5: "orchestrator",
    6: "orchestrator",
    8: "canary",
}
VALUES: list[Any] = [
    None,
    0,
    1,
    -1,
    2**53,
    2**53 - 1,
    "",
    "x",
    "0" * 64,
    [],
    {},
    [{}],
    True,
    1.5,
    "é\u2028%<",
    "a\nb",
    "\x7f",
]
Change = Callable[[random.Random, Header, bytes], bytes]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> LogFolder:
    return LogFolder.make(tmp_path_factory.mktemp("archive"), make_world)


def verdicts(log: LogFolder, root: Path) -> tuple[set[str], set[str]]:
    """Codes that our audit and `verify.py` find in lane 1; what only the other reads is left out."""
    world = log.worlds[0]
    report = audit_archive(ArchivedLane(FolderReader(root), ORIGIN, 1), world.roots, LANES)
    roots = verifier.Roots(dict(world.roots.keys), world.roots.threshold)
    lane = verifier.Lane(verifier.Job(str(root), roots, ORIGIN, LANES, {}, {}), 1).check()
    completeness = {"withheld_event", "equivocation", "sequenced_twice"}
    return {p.code for p in report.problems}, {p.code for p in lane.report.problems} - completeness


def a_field(rng: random.Random, header: Header, body: bytes) -> bytes:
    place = rng.choice([header, header["chain"], header["kafka"], header["statement"], header["statement"]])
    place[rng.choice(sorted(place))] = rng.choice(VALUES)
    return body


def a_borrowed_field(rng: random.Random, header: Header, body: bytes) -> bytes:
    statement = header["statement"]
    statement[rng.choice(sorted(statement))] = statement[rng.choice(sorted(statement))]
    return body


def a_cause(rng: random.Random, header: Header, body: bytes) -> bytes:
    cause = {"id": rng.choice([header["chain"]["id"], "x", 5]), "lane": rng.choice([0, 1, 9, -1, "1", None])}
    header["statement"]["causes"] = [cause] * rng.choice([1, 2, 32, 33])
    return body


def a_byte(rng: random.Random, header: Header, body: bytes) -> bytes:
    at = rng.randrange(len(body))
    return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]


def a_piece(rng: random.Random, header: Header, body: bytes) -> bytes:
    at, end = sorted((rng.randrange(len(body)), rng.randrange(len(body))))
    return rng.choice([body[:at], body[:at] + body[end:], body[:end] + body[at:], body + body[at:end]])


def base64_of(rng: random.Random, header: Header, body: bytes) -> bytes:
    name = rng.choice(["signature", "delegation"])
    raw = base64.b64decode(header[name])
    header[name] = base64.b64encode(rng.choice([raw[:-1], raw + b"\0", bytes(64) + raw[64:], b"", raw[::-1]])).decode()
    return body


CHANGES: list[Change] = [a_field, a_borrowed_field, a_cause, a_byte, a_piece, base64_of]


def changed(rng: random.Random, forger: Forger) -> str:
    """Change one entry; says what was done."""
    position = rng.choice(sorted(VOICES))
    change, signed = rng.choice(CHANGES), rng.random() < 0.8
    said: list[str] = []

    def apply(entries: list[tuple[Header, bytes]]) -> list[tuple[Header, bytes]]:
        header, body = entries[position]
        body = change(rng, header, body)
        statement = header["statement"]
        if signed and isinstance(statement, dict):
            if change in (a_byte, a_piece):
                statement["body_sha256"] = sha256_hex(body)
            sign_header(header, forger.world(1).sessions[VOICES[position]].sign)
        entries[position] = (header, body)
        said.append(f"{change.__name__} at {position}, {'signed' if signed else 'unsigned'}: {json.dumps(header)}")
        return entries

    forger.relink(1, apply)
    return said[0]


def test_both_come_to_the_same_verdict(log: LogFolder, tmp_path: Path) -> None:
    rng, refused = random.Random(None if SOAK else 7), 0
    forger = Forger.of(log, tmp_path / "copy")
    raws = list(log.raws[1])
    for _ in range(TRIES):
        forger.log.raws[1] = list(raws)
        try:
            what = changed(rng, forger)
        except (TypeError, KeyError, ValueError):
            continue  # what can't even be written
        ours, theirs = verdicts(log, forger.root)
        assert bool(ours) == bool(theirs), f"audit: {ours}, verify.py: {theirs}; {what}"
        assert "unreadable" not in theirs, what
        refused += bool(ours)
    assert refused > TRIES // 2


def a_keyring(rng: random.Random, document: dict[str, Any]) -> str:
    """Change one thing somewhere in a keyring; says where."""
    places: list[Any] = [document]
    for place in places:
        inner = place.values() if isinstance(place, dict) else place
        places += [item for item in inner if isinstance(item, dict | list) and item]
    place = rng.choice(places)
    at = rng.choice(sorted(place)) if isinstance(place, dict) else rng.randrange(len(place))
    kind = rng.randrange(4)
    if kind == 0:
        del place[at]
    elif kind == 1 and isinstance(place, dict):
        place[rng.choice(["more", "not_after", "description", "0", "1", "01", "é"])] = rng.choice(VALUES)
    elif kind == 2 and isinstance(place, list):
        place.append(place[at])
    else:
        place[at] = rng.choice([*VALUES, 2, "*", "audit", "events", "trainer"])
    return f"{at!r} of {str(place)[:400]}"


def test_both_come_to_the_same_verdict_about_keyrings_that_the_roots_have_signed(
    log: LogFolder, tmp_path: Path
) -> None:
    rng = random.Random(None if SOAK else 11)
    forger = Forger.of(log, tmp_path / "copy")
    roots = [forger.signer("root-1"), forger.signer("root-2")]
    counters, accepted = dict(forger.world(1).counters), 0
    for _ in range(TRIES):
        forger.world(1).counters = dict(counters)
        document = json.loads(forger.world(1).keyring.text)["keyring"] | {"version": 2}
        document["revocations"] = [{"key": "serving-1", "revoked_at": 5, "reason": "lost", "positions": {"1": 3}}]
        what = a_keyring(rng, document)
        try:
            body = canonical_json(document)
        except CanonicalError:
            continue
        statement = {"keyring_sha256": sha256_hex(body), "version": document.get("version", 2)}
        try:
            envelope = json.loads(sign_document(KEYRING_PAYLOAD_TYPE, statement, roots))
        except CanonicalError:
            continue
        text = canonical_json({**envelope, "keyring": document}).decode()
        forger.append(1, forger.keyring_record(1, text, 2))
        ours, theirs = verdicts(log, forger.root)
        assert bool(ours) == bool(theirs), f"audit: {ours}, verify.py: {theirs}; {what}"
        accepted += not ours
    assert accepted > TRIES // 100
