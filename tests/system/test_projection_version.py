"""What the projection makes of a fixed corpus is pinned: who changes it raises its version, so that old rows are found.

The corpus has every type of event that is projected, in rounds; from round to round the values go through every member
of an enumeration, through presence and absence, and come back to the same ids, so that rows meet.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, get_args, get_origin, get_type_hints

from ai_infra.events.canonical import canonical_json, sha256_hex
from ai_infra.events.event import Attributes, Event, Record
from ai_infra.manifest.registration import Registration, sign_registration
from ai_infra.readmodel import connect
from ai_infra.readmodel.migrations import migrate
from ai_infra.trust.keyring_document import KEYRING_PAYLOAD_TYPE
from ai_infra_indexer import parity
from ai_infra_indexer.appending import project_lines
from ai_infra_indexer.history import Judgement, Verdict
from ai_infra_indexer.projection import RULES
from ai_infra_indexer.projection.version import PROJECTION, TABLES
from ai_infra_indexer.sequence import Line
from ai_infra_indexer.store import ensure_lane

ROUNDS: Final = 24
LANE: Final = 3
PUBLIC_KEY: Final = base64.b64encode(bytes(range(32))).decode()
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)

# By table, the digest of its rows. After a change that is meant: raise PROJECTION, and put in what the failure shows.
PINNED_VERSION: Final[int] = 2
PINNED: Final[Mapping[str, str]] = {
    "approvals": "24 b3875d4969c64f4c",
    "artifacts": "3 8292d6fd79f4668d",
    "attestations": "12 89c414e6d127aa6e",
    "deployments": "20 f71d9e12443ea144",
    "drift_suggestions": "3 b017c052f6a25187",
    "evaluations": "3 429071303520039c",
    "heartbeats": "20 eb046af6fc35e0f8",
    "jobs": "3 016fe242b301806e",
    "keyrings": "4 5a801986b229914c",
    "keys": "4 bd57e20ef128a48c",
    "lineage_edges": "108 f21323baf5241b47",
    "operator_actions": "24 f89e4cb56f6d2ee5",
    "policies": "4 0e4f7d840b9ffac8",
    "productions": "24 c5c517a69704f409",
    "promotion_steps": "34 ffd2722288ae1e12",
    "promotions": "3 004e4c2809aaf0df",
    "refused_events": "5 d5049e91de3d0de2",
    "rollout_steps": "48 2ff4e9819e681a8a",
    "said_findings": "24 5b44c3f0ff774a1f",
    "serving_replicas": "20 6ecb258e059a0782",
    "versions": "10 41e3d0356719e925",
}


def uuid(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


def value(name: str, hint: Any, at: int) -> Any:
    """The value of a field in a round."""
    arguments = get_args(hint)
    if type(None) in arguments:
        return None if (at + len(name)) % 3 == 0 else value(name, arguments[0], at)
    if get_origin(hint) is tuple:
        return tuple(value(name, arguments[0], at + n) for n in range(at % 3))
    if get_origin(hint) is Mapping:
        return {f"{name}-{n}": at + n for n in range(at % 3)}
    if hint is str:
        return text(name, at)
    if hint is int:
        return 1 + at % 4
    if hint is bool:
        return at % 2 == 0
    if hint is datetime:
        return _BEGIN + timedelta(seconds=at)
    if issubclass(hint, Enum):
        members = list(hint)
        return members[at % len(members)]
    return record(hint, at)


def text(name: str, at: int) -> str:
    if name == "keyring":
        return keyring(1 + at % 4)
    if name == "envelope":
        return envelope(at)
    if name.endswith("_json"):
        return f'{{"{name}":{at}}}'
    if name == "event_id":
        return uuid(at % 5)
    return f"{name}-{at % (3 if name.endswith('_id') else 5)}"


def record(kind: type[Any], at: int) -> Any:
    hints = get_type_hints(kind)
    return kind(**{f.name: value(f.name, hints[f.name], at) for f in fields(kind)})


def keyring(version: int) -> str:
    """A keyring's text with a key more in each version, and the one before revoked."""
    keys = [
        {"id": f"key-{n}", "public_key": PUBLIC_KEY, "principal": "p", "use": "event", "deployed_at": 0}
        for n in range(version)
    ]
    gone = [{"key": f"key-{n}", "revoked_at": 0, "reason": "r", "positions": {}} for n in range(version - 1)]
    body = {
        "version": version,
        "created_at": 0,
        "roots": {"keys": {"root-1": PUBLIC_KEY}, "threshold": 1},
        "keys": keys,
        "principals": [],
        "roles": {},
        "revocations": gone,
    }
    payload = canonical_json({"keyring_sha256": sha256_hex(canonical_json(body)), "version": version})
    document = {"payload": base64.b64encode(payload).decode(), "payloadType": KEYRING_PAYLOAD_TYPE}
    signed = {"signatures": [{"keyid": "root-1", "sig": base64.b64encode(bytes(64)).decode()}]}
    return canonical_json({**document, **signed, "keyring": body}).decode()


def envelope(at: int) -> str:
    stated = Registration(
        artifact_id="artifact_id-0",
        model="model-0",
        version=1,
        artifact_sha256="b" * 64,
        artifact_bytes=1,
        manifest_sha256="c" * 64,
        provenance_sha256="d" * 64,
        input_checksum="e" * 64,
        builder_id="urn:builder",
        produced_event_id=uuid(at),
        keyring_version=1,
        rules="registry/v1",
        registered_at=_BEGIN,
    )
    return sign_registration(stated, lambda _: bytes(64), "manifest-1").envelope


def corpus() -> Iterator[Line]:
    positions = itertools.count()
    for at in range(ROUNDS):
        for kind in sorted(RULES, key=lambda body: body.TOPIC):
            position = next(positions)
            body = record(kind, at)
            attributes = Attributes(
                id=uuid(1_000 + position),
                source="/test",
                type=kind.TOPIC,
                time=_BEGIN + timedelta(milliseconds=position),
                subject=None,
                dataschema="",
                signer="s-1",
                keyring=1,
                delegation=b"",
                signature=b"",
                producer=None,
                epoch=None,
                seq=None,
                prev=None,
                causes=(),
                traceparent=None,
            )
            append_ms = int(_BEGIN.timestamp() * 1000) + position
            heard = Record(kind.TOPIC, LANE, position, append_ms, b"", b"", ())
            event: Event[Any] = Event(body, attributes, heard, LANE, "model-0", f"{position:064x}", "s", b"")
            yield Line(position, event, None, b"", b"")  # type: ignore[arg-type] # its link is of no interest here


def test_rows_of_the_fixed_corpus_change_only_with_the_version_of_the_projection(database: str) -> None:
    migrate(database)
    lines = list(corpus())
    with connect(database, autocommit=True) as connection:
        ensure_lane(connection, LANE, "example.org/log/lanes/3")
        with connection.transaction():
            refused = project_lines(connection, LANE, [(line, Judgement(Verdict.PROJECTED)) for line in lines])
    assert not refused, {lines[position].event.type: why for position, why in refused.items()}
    with parity.snapshot(database) as snapshot:
        keys = parity.tables(snapshot)
        digests = [parity.digest(snapshot, table, keys[table], LANE) for table in TABLES]
    assert not [d.table for d in digests if d.rows == 0], "the corpus says nothing of these tables"
    found = {d.table: f"{d.rows} {d.sha256[:16]}" for d in digests}
    changed = sorted(table for table in found if found[table] != PINNED.get(table))
    assert not changed or PROJECTION > PINNED_VERSION, (
        f"the rows of {', '.join(changed)} are others than those of projection {PROJECTION}: raise PROJECTION in "
        "projection/version.py, so that databases with rows of the old one are found"
    )
    assert PROJECTION == PINNED_VERSION, f"pin what projection {PROJECTION} gives: {found}"
