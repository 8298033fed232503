"""A reader of events, written from docs/event-format.md alone: the standard library and PyNaCl, nothing of ai-infra.

    python independent_event_reader.py VECTORS_DIRECTORY SCHEMAS_DIRECTORY

Judges every vector as the document says; exits 1 where one disagrees. It is here to show that the document is
complete, and must never be "fixed" by looking at our code.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import nacl.exceptions
import nacl.signing

LATEST_KEYRING = 1
BROADCAST = {"signer.changed", "policy.changed"}
OF_A_LANE = {"producer.heartbeat", "audit.finding", "audit.checkpoint", "operator.action"}
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


class Refused(Exception):
    """The record is refused: code, why."""


def need(condition: bool, code: str, why: str) -> None:
    if not condition:
        raise Refused(code, why)


def canonical(value: Any) -> bytes:
    """RFC 8785 for text, integers, booleans and null with ASCII keys."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def parsing_canonical_form(schema: Any, namespace: str = "") -> str:
    """Avro's specification, "Transforming into Parsing Canonical Form"."""
    if isinstance(schema, str):
        primitive = schema in {"null", "boolean", "int", "long", "float", "double", "bytes", "string"}
        return json.dumps(schema if primitive or "." in schema or not namespace else f"{namespace}.{schema}")
    if isinstance(schema, list):
        return "[" + ",".join(parsing_canonical_form(branch, namespace) for branch in schema) + "]"
    kind = schema["type"]
    if kind not in {"record", "enum", "array", "map"}:
        return parsing_canonical_form(kind, namespace)
    if kind in {"array", "map"}:
        inner = "items" if kind == "array" else "values"
        return f'{{"type":"{kind}","{inner}":{parsing_canonical_form(schema[inner], namespace)}}}'
    namespace = schema.get("namespace", namespace)
    name = json.dumps(f"{namespace}.{schema['name']}" if namespace else schema["name"])
    if kind == "enum":
        return f'{{"name":{name},"type":"enum","symbols":{json.dumps(schema["symbols"], separators=(",", ":"))}}}'
    types = [
        (json.dumps(field["name"]), parsing_canonical_form(field["type"], namespace)) for field in schema["fields"]
    ]
    fields = ",".join(f'{{"name":{field},"type":{type_}}}' for field, type_ in types)
    return f'{{"name":{name},"type":"record","fields":[{fields}]}}'


def crc_64_avro(data: bytes) -> bytes:
    """Avro's specification, "Schema Fingerprints"; little-endian."""
    fingerprint = empty = 0xC15D213AA4D7A795
    for byte in data:
        entry = (fingerprint ^ byte) & 0xFF
        for _ in range(8):
            entry = (entry >> 1) ^ (empty & -(entry & 1))
        fingerprint = (fingerprint >> 8) ^ entry
    return fingerprint.to_bytes(8, "little")


class Schemas:
    """All versions of all topics' schemas, by fingerprint."""

    def __init__(self, directory: Path) -> None:
        self.by_sha256: dict[str, tuple[str, Any]] = {}
        self.crc: dict[str, bytes] = {}
        files = [(path.stem, path) for path in directory.glob("*.avsc")]
        files += [(path.parent.name, path) for path in directory.glob("released/*/*.avsc")]
        for topic, path in files:
            schema = json.loads(path.read_text(encoding="utf-8"))
            sha256 = hashlib.sha256(canonical(schema)).hexdigest()
            self.by_sha256[sha256] = (topic, schema)
            self.crc[sha256] = crc_64_avro(parsing_canonical_form(schema).encode())

    def of_topic(self, topic: str) -> set[str]:
        return {sha256 for sha256, (of, _) in self.by_sha256.items() if of == topic}


class Datum:
    """Strict reading of one datum."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.named: dict[str, Any] = {}

    def take(self, n: int) -> bytes:
        need(0 <= n <= len(self.data) - self.at, "undecodable_body", f"{n} bytes at {self.at}")
        self.at += n
        return self.data[self.at - n : self.at]

    def integer(self, bits: int = 64) -> int:
        z = 0
        for i in range(10):
            byte = self.take(1)[0]
            z |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                break
        else:
            raise Refused("undecodable_body", "an integer of more than 10 bytes")
        n = z // 2 if z % 2 == 0 else -(z + 1) // 2
        need(-(2 ** (bits - 1)) <= n < 2 ** (bits - 1), "undecodable_body", f"{n} has more than {bits} bits")
        return n

    def text(self) -> str:
        raw = self.take(self.integer())
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("bad_text", str(error)) from error
        need("\0" not in text, "bad_text", "U+0000")
        return text

    def index(self, below: int) -> int:
        n = self.integer()
        need(0 <= n < below, "undecodable_body", f"index {n}")
        return n

    def block(self) -> int:
        n = self.integer()
        if n < 0:
            n = -n
            need(0 <= self.integer() <= len(self.data) - self.at, "undecodable_body", "a block's size")
        need(n <= len(self.data) - self.at, "undecodable_body", "a block's count")
        return n

    def read(self, schema: Any) -> Any:
        if isinstance(schema, list):
            return self.read(schema[self.index(len(schema))])
        if isinstance(schema, str) and schema in self.named:
            schema = self.named[schema]
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind in {"record", "enum"}:
            self.named[schema["name"]] = schema
        if kind == "record":
            return {field["name"]: self.read(field["type"]) for field in schema["fields"]}
        if kind == "enum":
            return schema["symbols"][self.index(len(schema["symbols"]))]
        if kind == "array":
            items = []
            while n := self.block():
                items += [self.read(schema["items"]) for _ in range(n)]
            return items
        if kind == "map":
            return self.mapping(schema["values"])
        if kind == "null":
            return None
        if kind == "boolean":
            need(self.take(1) in {b"\0", b"\1"}, "undecodable_body", "a boolean")
            return self.data[self.at - 1] == 1
        if kind == "string":
            return self.text()
        n = self.integer(32 if kind == "int" else 64)
        if isinstance(schema, dict) and schema.get("logicalType") == "timestamp-millis":
            need(-62_135_596_800_000 <= n <= 253_402_300_799_999, "undecodable_body", "a time")
        return n

    def mapping(self, values: Any) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while n := self.block():
            for _ in range(n):
                key = self.text()
                need(key not in entries, "undecodable_body", "a key twice")
                entries[key] = self.read(values)
        return entries


def murmur2(data: bytes) -> int:
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = 0x9747B28C ^ len(data)
    whole = len(data) // 4 * 4
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if whole < len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)


def check_place(topic: str, raw: Any, partition: int, lanes: int) -> str:
    need(raw is not None and 1 <= len(raw) <= 128, "wrong_key", "no key, or a long one")
    try:
        key = str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise Refused("bad_text", "key") from error
    model = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", key) is not None
    lane = re.fullmatch(r"_lane/(0|[1-9][0-9]*)", key)
    if topic in BROADCAST:
        need(key == "_broadcast", "wrong_key", key)
        expected = 0
    elif topic in OF_A_LANE and lane is not None:
        need(int(lane[1]) < lanes, "wrong_key", key)
        expected = int(lane[1])
    else:
        need(model and (topic not in OF_A_LANE or topic == "operator.action"), "wrong_key", key)
        expected = (murmur2(raw) & 0x7FFFFFFF) % lanes
    need(partition == expected, "wrong_lane", f"{partition} instead of {expected}")
    return key


UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
FORMS = {
    "ce_specversion": r"1\.0",
    "ce_id": UUID,
    "ce_type": r".{1,128}",
    "ce_time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "ce_dataschema": r"urn:ai-infra:schema:[0-9a-f]{64}",
    "content-type": r"application/avro",
    "prev": r"[0-9a-f]{64}",
}
TEXTS = {"ce_source": 256, "ce_subject": 256, "signer": 128, "producer": 128}
INTEGERS = ("keyring", "epoch", "seq")
REQUIRED = {*FORMS, "ce_source", "signer", "keyring", "delegation", "signature"} - {"prev"}


def check_headers(headers: list[tuple[str, bytes]], topic: str) -> dict[str, Any]:
    """Texts, integers and parsed causes by header name; `None` where absent."""
    names = [name for name, _ in headers]
    need(len(names) <= 64, "malformed_event", "too many headers")
    need(len(names) == len(set(names)), "repeated_header", "a header twice")
    need(sum(len(n.encode()) + len(v) for n, v in headers) <= 16_384, "malformed_event", "headers too large")
    raw = dict(headers)
    for name in names:
        need(not name.startswith("ce_") or name in REQUIRED | {"ce_subject"}, "malformed_event", name)
    for name in REQUIRED:
        need(name in raw, "malformed_event", f"{name} is missing")
    h: dict[str, Any] = dict.fromkeys((*FORMS, *TEXTS, *INTEGERS))
    for name, form in FORMS.items():
        if name in raw:
            h[name] = raw[name].decode("ascii", "replace")
            need(re.fullmatch(form, h[name], re.ASCII) is not None, "malformed_event", name)
    for name, most in TEXTS.items():
        if name in raw:
            h[name] = check_text(name, raw[name], most)
    for name in INTEGERS:
        if name in raw:
            need(re.fullmatch(rb"0|[1-9][0-9]{0,15}", raw[name]) is not None, "malformed_event", name)
            h[name] = int(raw[name])
            need(h[name] < 2**53, "malformed_event", name)
    try:
        datetime.strptime(h["ce_time"], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007  # only whether it exists
    except ValueError as error:
        raise Refused("malformed_event", "ce_time") from error
    need(h["ce_type"] == topic, "malformed_event", "ce_type")
    need(len(raw["signature"]) == 64, "malformed_event", "signature")
    need(65 <= len(raw["delegation"]) <= 400, "malformed_event", "delegation")
    counted = [h[name] is not None for name in ("producer", "epoch", "seq")]
    good = all(counted) or (not any(counted) and h["prev"] is None)
    need(good and (h["prev"] is not None or (h["seq"] or 0) <= 1), "malformed_event", "producer, epoch, seq, prev")
    h["causes"] = check_causes(raw["causes"]) if "causes" in raw else []
    return h | {"signature": raw["signature"], "delegation": raw["delegation"]}


def check_text(name: str, raw: bytes, most: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused("bad_text", name) from error
    need("\0" not in text, "bad_text", name)
    need(1 <= len(raw) <= most and not re.search(r"[\x00-\x1f\x7f]", text), "malformed_event", name)
    return text


def check_causes(raw: bytes) -> list[Any]:
    try:
        causes = json.loads(raw)
        need(isinstance(causes, list) and 1 <= len(causes) <= 32, "malformed_event", "causes")
        for cause in causes:
            good = sorted(cause) == ["id", "lane"] and re.fullmatch(UUID, cause["id"]) is not None
            need(good and type(cause["lane"]) is int and 0 <= cause["lane"] < 2**53, "malformed_event", "causes")
    except (ValueError, TypeError, AttributeError) as error:
        raise Refused("malformed_event", "causes") from error
    need(canonical(causes) == raw, "malformed_event", "causes are not canonical")
    return list(causes)


def unframe(value: Any, topic: str, schemas: Schemas, named: str) -> tuple[Any, bytes]:
    need(value is not None, "malformed_event", "no value")
    if value[:2] == b"\xc3\x01" and len(value) >= 10:
        framed = {sha256 for sha256 in schemas.of_topic(topic) if schemas.crc[sha256] == value[2:10]}
        body = value[10:]
    elif value[:1] == b"\0" and len(value) >= 5:
        framed = {named}
        body = value[5:]
    else:
        raise Refused("unknown_schema", "framing")
    need(bool(framed), "unknown_schema", "framing names no schema of the topic")
    need(len(body) <= 49_152, "body_too_large", str(len(body)))
    need(named in schemas.of_topic(topic), "unknown_schema", "ce_dataschema")
    need(schemas.crc[named] in {schemas.crc[one] for one in framed}, "malformed_event", "framing, ce_dataschema")
    return schemas.by_sha256[named][1], body


def pae(kind: str, body: bytes) -> bytes:
    return f"DSSEv1 {len(kind.encode())} {kind} {len(body)} ".encode() + body


def verify(public_key: bytes, message: bytes, signature: bytes, code: str) -> None:
    need(int.from_bytes(signature[32:], "little") < GROUP_ORDER, code, "S is not reduced")
    try:
        nacl.signing.VerifyKey(public_key).verify(message, signature)
    except (nacl.exceptions.BadSignatureError, ValueError) as error:
        raise Refused(code, "signature") from error


def check_delegation(raw: bytes, signer: str, key: bytes) -> dict[str, Any]:
    try:
        d = json.loads(raw[64:])
        session = base64.urlsafe_b64decode(d["key"] + "=")
        good = sorted(d) == ["events", "key", "keyring", "naf", "nbf", "service", "signer"]
        good = good and canonical(d) == raw[64:] and len(session) == 32 and d["signer"] == signer
        good = good and all(type(d[name]) is int for name in ("keyring", "naf", "nbf"))
        good = good and 0 <= d["naf"] - d["nbf"] <= 7 * 86_400 and all(isinstance(e, str) for e in d["events"])
    except (ValueError, TypeError, KeyError) as error:
        raise Refused("bad_delegation", "form") from error
    need(good, "bad_delegation", "form")
    verify(key, pae("application/vnd.ai-infra.delegation.v1+json", raw[64:]), raw[:64], "bad_delegation")
    return dict(d) | {"session": session}


def judge(vector: dict[str, Any], schemas: Schemas) -> dict[str, Any]:
    """Statement, hash and body of the vector's record; raises Refused. The steps are those of the document."""
    record, keys = vector["record"], vector["keys"]
    topic, partition = record["topic"], record["partition"]
    h = check_headers([(name, bytes.fromhex(value)) for name, value in record["headers"]], topic)
    key = check_place(
        topic, None if record["key"] is None else bytes.fromhex(record["key"]), partition, vector["lanes"]
    )
    value = None if record["value"] is None else bytes.fromhex(record["value"])
    sha256 = h["ce_dataschema"].removeprefix("urn:ai-infra:schema:")
    schema, body = unframe(value, topic, schemas, sha256)
    uncopied = ("content-type", "signature", "delegation")
    claims = {name: value for name, value in h.items() if name not in uncopied}
    claims |= {
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "content_type": h["content-type"],
        "delegation_sha256": hashlib.sha256(h["delegation"]).hexdigest(),
        "key": key,
        "lane": partition,
        "schema_sha256": sha256,
        "topic": topic,
    }
    statement = canonical(claims)
    message = pae("application/vnd.ai-infra.event.v1+json", statement)
    need(len(message) <= 4095, "malformed_event", "message")
    need(h["keyring"] <= LATEST_KEYRING, "unknown_keyring", str(h["keyring"]))
    need(h["signer"] in keys, "unknown_signer", h["signer"])
    delegation = check_delegation(h["delegation"], h["signer"], bytes.fromhex(keys[h["signer"]]))
    verify(delegation["session"], message, h["signature"], "bad_signature")
    now = record["append_time_ms"]
    need(delegation["nbf"] * 1000 - 120_000 <= now <= delegation["naf"] * 1000 + 999, "expired_delegation", str(now))
    need(delegation["keyring"] <= h["keyring"], "bad_delegation", "keyring")
    need(topic in delegation["events"], "not_allowed", topic)
    datum = Datum(body)
    decoded = datum.read(schema)
    need(datum.at == len(body), "undecodable_body", "bytes are left over")
    need(decoded.get("model", key) == key, "wrong_key", "body.model")
    return {"statement": statement.decode(), "event_hash": hashlib.sha256(message).hexdigest(), "body": decoded}


def main(vectors: Path, schemas_directory: Path) -> int:
    schemas = Schemas(schemas_directory)
    files = sorted(vectors.glob("*.json"))
    agreed = 0
    for path in files:
        vector = json.loads(path.read_text(encoding="utf-8"))
        try:
            found = judge(vector, schemas)
        except Refused as refused:
            found = {"error": refused.args[0]}
        if found == vector["expect"]:
            agreed += 1
        else:
            print(f"{path.name}: expected {vector['expect']}, found {found}")
    print(f"{agreed} of {len(files)} vectors agree")
    return 0 if files and agreed == len(files) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
