"""Records for the test vectors: fixed keys, ids and times; sound ones, and ones with a fault that is signed.

Everything is deterministic, so a changed vector means a changed format. The keys are made from their names: they are
worth nothing anywhere else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from ai_infra.events import generated
from ai_infra.events.avro import EPOCH
from ai_infra.events.body import Body
from ai_infra.events.codec import decode_body
from ai_infra.events.compose import compose
from ai_infra.events.event import Cause, Record
from ai_infra.events.generated import BODIES, SCHEMAS
from ai_infra.events.keys import BROADCAST_TOPICS, MODEL_TOPICS
from ai_infra.events.lanes import BROADCAST_KEY, lane_key, lane_of
from ai_infra.events.parse import read
from ai_infra.events.statement import DATASCHEMA_PREFIX, EVENT_PAYLOAD_TYPE, pae
from ai_infra.trust.delegation import delegate
from ai_infra.trust.roles import ROLES, SPEAKER, UNSEQUENCED

LANES = 8
TIME = datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
START = datetime(2026, 1, 2, tzinfo=UTC)
MODEL = "digits"
Json = dict[str, Any]
Headers = dict[str, bytes]


def uuid(n: int) -> str:
    return f"019b7d10-0000-7000-8000-{n:012x}"


def seed(name: str) -> bytes:
    return hashlib.sha256(f"ai-infra test vector: {name}".encode()).digest()


@dataclass(frozen=True)
class Key:
    """A key whose seed is in the vectors: worth nothing anywhere else."""

    key_id: str

    @property
    def pair(self) -> tuple[bytes, bytes]:
        public, secret = crypto_sign_seed_keypair(seed(self.key_id))
        return public, secret

    def sign(self, message: bytes) -> bytes:
        return crypto_sign(message, self.pair[1])[:64]


def speaker_of(topic: str) -> str:
    """The first role that may say this."""
    return next(role for role in (*COUNTED, "orchestrator", "approver", "operator") if topic in ROLES[role])


COUNTED = ("trainer", "registry", "promoter", "canary", "drift", "serving", "indexer")


def principal_id(role: str) -> str:
    return f"{role}-1" if role == "approver" else role


def delegation_of(role: str, **changes: Any) -> bytes:
    # A delegation has room for some ten event types: an operator's leaves out what orchestrators say too.
    events = [event for event in ROLES[role] if role != "operator" or event not in ROLES["orchestrator"]]
    settings: Json = {
        "service": principal_id(role),
        "events": events,
        "keyring": 1,
        "key": Key(f"session of {role}").pair[0],
        "not_before": START,
        "lifetime": timedelta(hours=24),
    }
    return delegate(Key(f"{role}-1"), **settings | changes).raw


def composed(body: Body, *, role: str | None = None, delegation: bytes | None = None, **changes: Any) -> Record:
    """A sound record."""
    topic = body.TOPIC
    role = role or speaker_of(topic)
    if topic in BROADCAST_TOPICS:
        key, lane = BROADCAST_KEY, 0
    elif topic in MODEL_TOPICS:
        key, lane = body.model, lane_of(body.model, LANES)  # type: ignore[attr-defined]  # MODEL_TOPICS have it
    else:
        key, lane = lane_key(3), 3
    settings: Json = {
        "key": key,
        "lane": lane,
        "id": uuid(1),
        "time": TIME,
        "source": f"//ai-infra.test/{role}",
        "subject": None,
        "signer": f"{role}-1",
        "keyring": 1,
        "delegation": delegation or delegation_of(role),
        "sign": Key(f"session of {role}").sign,
    }
    if role in COUNTED and role != "serving" and topic not in UNSEQUENCED:
        lane = changes.get("lane", lane)
        settings |= {
            "producer": f"{role}/{lane}",
            "epoch": 0,
            "seq": 2,
            "prev": "5a" * 32,
            "causes": [Cause(uuid(9), lane)],
        }
    signed = compose(body, **settings | changes)
    return Record(
        topic=signed.topic,
        partition=signed.partition,
        offset=41,
        append_time_ms=(TIME - EPOCH) // timedelta(milliseconds=1) + 22,
        key=signed.key,
        value=signed.value,
        headers=tuple(signed.headers),
    )


def sample(topic: str) -> Body:
    """A body of a topic with a value in every field, made from the schema."""
    schema = json.loads(SCHEMAS[BODIES[topic].SCHEMA_SHA256])
    body = _sample(schema, {}, topic)
    role = speaker_of(topic)
    if topic in SPEAKER:
        body = replace(body, **{SPEAKER[topic]: principal_id(role)})
    if topic == "producer.heartbeat":
        body = replace(body, producer=f"{role}/3")
    assert isinstance(body, Body)
    return body


def _sample(schema: Any, names: Json, where: str) -> Any:
    name = where.rsplit(".", 1)[-1]
    if isinstance(schema, list):
        return _sample(schema[1], names, where)
    if isinstance(schema, str) and schema in names:
        schema = names[schema]
    if schema == "string":
        return {"model": MODEL}.get(
            name, "ab" * 32 if name.endswith(("sha256", "checksum", "hash")) else f"some {name}"
        )
    if schema == "boolean":
        return True
    if schema in ("int", "long"):
        return 1 + len(name) * (70 if schema == "int" else 1_000_003)
    if schema["type"] == "record":
        names[schema["name"]] = schema
        values = {f["name"]: _sample(f["type"], names, f"{where}.{f['name']}") for f in schema["fields"]}
        return getattr(generated, schema["name"])(**values)
    if schema["type"] == "enum":
        names[schema["name"]] = schema
        return list(getattr(generated, schema["name"]))[-1]
    if schema["type"] == "array":
        return (_sample(schema["items"], names, where),) * 2
    if schema["type"] == "map":
        return {"10": _sample(schema["values"], names, where), "9": -1}
    if schema.get("logicalType"):
        return TIME
    return _sample(schema["type"], names, where)


def signed_again(
    record: Record, *, role: str, body: bytes | None = None, key: bytes | None = None, **headers: bytes
) -> Record:
    """The record with other parts and a signature over them, without our own checks: for faults that are signed."""
    old = dict(record.headers)
    new = old | {name.replace("content_type", "content-type"): value for name, value in headers.items()}
    key = key if key is not None else record.key
    assert record.value is not None
    assert key is not None
    value = record.value[:10] + body if body is not None else record.value

    def text(name: str) -> str | None:
        return new[name].decode("utf-8", "surrogateescape") if name in new else None

    def number(name: str) -> int | None:
        return int(new[name]) if name in new else None

    claims = {
        "body_sha256": hashlib.sha256(value[10:]).hexdigest(),
        "causes": json.loads(new.get("causes", b"[]")),
        "content_type": text("content-type"),
        "delegation_sha256": hashlib.sha256(new["delegation"]).hexdigest(),
        "key": key.decode(),
        "lane": record.partition,
        "schema_sha256": (text("ce_dataschema") or "").removeprefix(DATASCHEMA_PREFIX),
        "topic": record.topic,
    }
    claims |= {n: text(n) for n in ("ce_dataschema", "ce_id", "ce_source", "ce_specversion", "ce_subject", "ce_time")}
    claims |= {n: text(n) for n in ("ce_type", "prev", "producer", "signer")}
    claims |= {n: number(n) for n in ("epoch", "keyring", "seq")}
    statement = json.dumps(claims, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    message = pae(EVENT_PAYLOAD_TYPE, statement.encode("utf-8", "surrogateescape"))
    new["signature"] = Key(f"session of {role}").sign(message)
    return replace(record, key=key, value=value, headers=tuple(new.items()))


def with_headers(record: Record, change: Callable[[Headers], object]) -> Record:
    headers = dict(record.headers)
    change(headers)
    return replace(record, headers=tuple(headers.items()))


def plain(value: Any) -> Any:
    """A decoded body in JSON: times as milliseconds, enums as symbols, absent as null."""
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(milliseconds=1)
    return str(value) if isinstance(value, str) else value


def vector(name: str, about: str, record: Record, *, error: str | None = None) -> Json:
    """One file's content. What must pass carries the statement, the hash and the body that a reader must come to."""
    known = sorted({f"{role}-1" for role in (*COUNTED, "orchestrator", "approver", "operator")})
    made: Json = {
        "name": name,
        "about": about,
        "lanes": LANES,
        "keys": {key_id: Key(key_id).pair[0].hex() for key_id in known},
        "record": {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "append_time_ms": record.append_time_ms,
            "key": None if record.key is None else record.key.hex(),
            "value": None if record.value is None else record.value.hex(),
            "headers": [[header, value.hex()] for header, value in record.headers],
        },
    }
    if error is not None:
        return made | {"expect": {"error": error}}
    unverified = read(record, LANES)
    return made | {
        "expect": {
            "statement": unverified.message.split(b" ", 4)[4].decode(),
            "event_hash": unverified.hash,
            "body": plain(decode_body(record.topic, unverified.body_bytes, unverified.schema_sha256)),
        }
    }
